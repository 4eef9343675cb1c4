"""Specifications of the dictionaries that learn no concept."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from conceptbench.dictionaries.specs.base import Named


@dataclass(frozen=True, kw_only=True)
class _Null(Named):
    batch_size: ClassVar[int] = 2048
    epochs: ClassVar[int] = 1


@dataclass(frozen=True, kw_only=True)
class Random(_Null):
    """Null: random unit atoms, tied encoder with one least-squares scale, k largest kept."""

    method: ClassVar[Literal["random"]] = "random"
    width: int
    """Number of latents."""
    k: int
    """Latents kept per token, at most."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be encoded with."""
        self.require(self.k >= 1, f"k is {self.k}, it must be at least 1")
        self.require(self.width >= self.k, f"width {self.width} is smaller than k {self.k}")


@dataclass(frozen=True, kw_only=True)
class Raw(_Null):
    """Null: the coordinates themselves, each split into its positive and its negative part (2 d latents)."""

    method: ClassVar[Literal["raw"]] = "raw"
    k: int | None = None
    """Coordinates kept per token, at most; None keeps all."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be encoded with."""
        self.require(self.k is None or self.k >= 1, f"k is {self.k}, it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Pca(_Null):
    """Null: principal components, each split into its positive and its negative part, k largest scores kept."""

    method: ClassVar[Literal["pca"]] = "pca"
    k: int
    """Scores kept per token, at most."""
    components: int | None = None
    """Leading components used; None means all d."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be encoded with."""
        self.require(self.k >= 1, f"k is {self.k}, it must be at least 1")
        few = self.components is not None and self.components < self.k
        self.require(not few, f"components {self.components} is smaller than k {self.k}")
