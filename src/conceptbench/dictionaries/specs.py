"""What is to be learnt: one frozen specification per method, and the closed union of them all.

The field names are those of the configuration, so that a section of it becomes a specification by keyword:
`specify(name="topk", method="topk", width=1024, k=8)`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any, ClassVar, Final, Literal, Self, TypeAlias

from conceptbench.errors import ConceptBenchError


@dataclass(frozen=True, kw_only=True)
class _Named:
    name: str
    """Name of the dictionary, as in the configuration and in paths."""
    normalise: bool = True
    """Subtract the mean of the training tokens and divide by one scale: coordinates have variance 1 on average."""

    method: ClassVar[str]

    def _require(self, holds: bool, what: str) -> None:
        if not holds:
            raise ConceptBenchError(
                f"Dictionary '{self.name}' ({self.method}): {what}; correct it in the configuration."
            )


@dataclass(frozen=True, kw_only=True)
class _Trained(_Named):
    width: int
    """Number of latents."""
    lr: float = 1e-3
    """Learning rate of Adam after the warm-up."""
    warmup_steps: int = 200
    """Steps over which the learning rate rises linearly from 0."""
    decay_share: float = 0.2
    """Last share of all steps over which the learning rate falls linearly to 0; 0 keeps it constant."""
    epochs: int = 1
    """Passes over the training tokens."""
    batch_size: int = 2048
    """Tokens per step."""
    dead_tokens: int = 100_000
    """A latent that has not fired for this many tokens is dead."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be trained with."""
        self._require(self.width >= 1, f"width is {self.width}, it must be at least 1")
        self._require(self.lr > 0, f"lr is {self.lr}, it must be positive")
        self._require(self.warmup_steps >= 0, f"warmup_steps is {self.warmup_steps}, it must not be negative")
        self._require(0 <= self.decay_share <= 1, f"decay_share is {self.decay_share}, it must lie in 0..1")
        self._require(self.epochs >= 1, f"epochs is {self.epochs}, it must be at least 1")
        self._require(self.batch_size >= 2, f"batch_size is {self.batch_size}, it must be at least 2")
        self._require(self.dead_tokens >= 1, f"dead_tokens is {self.dead_tokens}, it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class TopK(_Trained):
    """TopK autoencoder with the AuxK loss on dead latents (Gao et al., arXiv 2406.04093)."""

    method: ClassVar[Literal["topk"]] = "topk"
    k: int
    """Latents kept per token, at most: negative pre-activations never fire."""
    aux_k: int | None = None
    """Dead latents that predict the residual; None means half the number of features."""
    aux_alpha: float = 1 / 32
    """Weight of the AuxK loss; 0 switches it off."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be trained with."""
        super().__post_init__()
        self._require(self.k >= 1, f"k is {self.k}, it must be at least 1")
        self._require(self.width >= self.k, f"width {self.width} is smaller than k {self.k}")
        self._require(self.aux_k is None or self.aux_k >= 1, f"aux_k is {self.aux_k}, it must be at least 1")
        self._require(self.aux_alpha >= 0, f"aux_alpha is {self.aux_alpha}, it must not be negative")


@dataclass(frozen=True, kw_only=True)
class ReluL1(_Trained):
    """ReLU autoencoder with an L1 penalty; `ReluL1.patchsae` gives the recipe of PatchSAE (arXiv 2412.05276)."""

    method: ClassVar[Literal["relu-l1"]] = "relu-l1"
    l1: float
    """Weight of the mean L1 norm of the codes."""
    l1_warmup_steps: int = 0
    """Steps over which that weight rises linearly from 0."""
    norm_divided: bool = True
    """Divide squared errors by the token's norm and average over features, as PatchSAE does; else sum them."""
    ghost_gradients: bool = True
    """Let dead latents predict the residual through the exponential of their pre-activations."""
    init: Literal["decoder", "kaiming"] = "decoder"
    """Start the encoder as a copy of the atoms, or as an independent Kaiming-uniform draw."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be trained with."""
        super().__post_init__()
        self._require(self.l1 >= 0, f"l1 is {self.l1}, it must not be negative")
        self._require(self.l1_warmup_steps >= 0, f"l1_warmup_steps is {self.l1_warmup_steps}, it must not be negative")
        self._require(self.init in ("decoder", "kaiming"), f"init is '{self.init}', it must be decoder or kaiming")

    @classmethod
    def patchsae(cls, name: str, width: int = 49_152, **changes: Any) -> Self:
        """Return the published recipe: raw tokens, norm-divided loss, ghost gradients, constant rate after warm-up.

        The window of 64 steps without firing becomes 64 batches of tokens (128 images of 197 tokens each).
        """
        batch = 128 * 197
        recipe: dict[str, Any] = {
            "normalise": False, "l1": 8e-5, "lr": 4e-4, "warmup_steps": 500, "decay_share": 0.0, "epochs": 2,
            "batch_size": batch, "dead_tokens": 64 * batch, "init": "kaiming",
        }  # fmt: skip
        return cls(name=name, width=width, **(recipe | changes))


@dataclass(frozen=True, kw_only=True)
class _Null(_Named):
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
        self._require(self.k >= 1, f"k is {self.k}, it must be at least 1")
        self._require(self.width >= self.k, f"width {self.width} is smaller than k {self.k}")


@dataclass(frozen=True, kw_only=True)
class Raw(_Null):
    """Null: the coordinates themselves, each split into its positive and its negative part (2 d latents)."""

    method: ClassVar[Literal["raw"]] = "raw"
    k: int | None = None
    """Coordinates kept per token, at most; None keeps all."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be encoded with."""
        self._require(self.k is None or self.k >= 1, f"k is {self.k}, it must be at least 1")


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
        self._require(self.k >= 1, f"k is {self.k}, it must be at least 1")
        few = self.components is not None and self.components < self.k
        self._require(not few, f"components {self.components} is smaller than k {self.k}")


DictionarySpec: TypeAlias = TopK | ReluL1 | Random | Raw | Pca

METHODS: Final[dict[str, type[TopK] | type[ReluL1] | type[Random] | type[Raw] | type[Pca]]] = {
    kind.method: kind for kind in (TopK, ReluL1, Random, Raw, Pca)
}
"""The specification of each method, by its name in the configuration."""


def specify(*, name: str, method: str, **options: Any) -> DictionarySpec:
    """Build the specification of `method` from plain values.

    Raises:
        ConceptBenchError: for an unknown method or option (the nearest valid name is given), a missing one, or a
            value out of range.
    """
    kind = METHODS.get(method)
    if kind is None:
        raise ConceptBenchError(f"Dictionary '{name}': unknown method '{method}'{_nearest(method, METHODS)}.")
    known = {field.name: field for field in fields(kind)}
    for option in options:
        if option not in known:
            raise ConceptBenchError(
                f"Dictionary '{name}' ({method}): unknown option '{option}'{_nearest(option, known)}."
            )
    try:
        return kind(name=name, **options)
    except TypeError as error:
        raise ConceptBenchError(f"Dictionary '{name}' ({method}) is incomplete: {error}.") from error


def describe(spec: DictionarySpec) -> dict[str, Any]:
    """Return the plain values of a specification, the method among them; `specify` takes them back."""
    return {"method": spec.method, **asdict(spec)}


def _nearest(word: str, known: Mapping[str, Any]) -> str:
    close = get_close_matches(word, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; choose from {', '.join(sorted(known))}"
