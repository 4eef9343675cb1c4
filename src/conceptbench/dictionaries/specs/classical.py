"""Specifications of the methods without gradients: clusters, independent components, factorisations."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from conceptbench.dictionaries.specs.base import Named


@dataclass(frozen=True, kw_only=True)
class _Sampled(Named):
    batch_size: ClassVar[int] = 2048
    epochs: ClassVar[int] = 1
    sample: int = 32_768
    """Training tokens it is fitted to: a uniform sample of all of them, drawn under the seed."""

    def __post_init__(self) -> None:
        """Refuse a sample that nothing can be fitted to."""
        self.require(self.sample >= 2, f"sample is {self.sample}, it must be at least 2")


@dataclass(frozen=True, kw_only=True)
class _Clustered(_Sampled):
    width: int
    """Number of centres."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be fitted."""
        super().__post_init__()
        self.require(self.width >= 2, f"width is {self.width}, it must be at least 2")
        self.require(self.sample >= self.width, f"sample {self.sample} is smaller than width {self.width}")


@dataclass(frozen=True, kw_only=True)
class KMeans(_Clustered):
    """k-means (scikit-learn's MiniBatchKMeans): a token is its nearest centre."""

    method: ClassVar[Literal["k-means"]] = "k-means"


@dataclass(frozen=True, kw_only=True)
class KMeansPursuit(_Clustered):
    """k-means whose centres' directions are combined by non-negative orthogonal matching pursuit."""

    method: ClassVar[Literal["k-means-omp"]] = "k-means-omp"
    k: int
    """Centres used for each token, at most."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be encoded with."""
        super().__post_init__()
        self.require(1 <= self.k <= self.width, f"k is {self.k}, it must lie in 1..{self.width}")


@dataclass(frozen=True, kw_only=True)
class Ica(_Sampled):
    """Independent components (scikit-learn's FastICA), each split into its positive and its negative part."""

    method: ClassVar[Literal["ica"]] = "ica"
    sample: int = 16_384
    """Training tokens it is fitted to: a uniform sample of all of them, drawn under the seed."""
    k: int
    """Components kept per token, at most."""
    components: int | None = None
    """Number of components; None means as many as features."""
    max_iter: int = 200
    """Iterations of FastICA, at most; the card says whether they were enough."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be encoded with."""
        super().__post_init__()
        self.require(self.k >= 1, f"k is {self.k}, it must be at least 1")
        few = self.components is not None and self.components < self.k
        self.require(not few, f"components {self.components} is smaller than k {self.k}")
        self.require(self.max_iter >= 1, f"max_iter is {self.max_iter}, it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class SemiNmf(_Sampled):
    """Semi-NMF (Ding, Li and Jordan 2010): free atoms, non-negative codes; tokens are encoded by matching pursuit."""

    method: ClassVar[Literal["semi-nmf"]] = "semi-nmf"
    sample: int = 16_384
    """Training tokens it is fitted to: a uniform sample of all of them, drawn under the seed."""
    width: int
    """Number of latents."""
    k: int
    """Latents used for each token, at most."""
    iterations: int = 60
    """Rounds of updates of the codes and the atoms."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be encoded with."""
        super().__post_init__()
        self.require(self.width >= 2, f"width is {self.width}, it must be at least 2")
        self.require(self.sample >= self.width, f"sample {self.sample} is smaller than width {self.width}")
        self.require(1 <= self.k <= self.width, f"k is {self.k}, it must lie in 1..{self.width}")
        self.require(self.iterations >= 1, f"iterations is {self.iterations}, it must be at least 1")
