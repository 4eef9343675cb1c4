"""What the specifications share: a name, checks that end in one sentence, the schedule of the trained methods."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from conceptbench.errors import ConceptBenchError

Start: TypeAlias = Literal["tokens", "random"]
"""Atoms at the start: centred training tokens blended with noise, or random directions."""


@dataclass(frozen=True, kw_only=True)
class Named:
    """The options of every method."""

    name: str
    """Name of the dictionary, as in the configuration and in paths."""
    normalise: bool = True
    """Subtract the mean of the training tokens and divide by one scale: coordinates have variance 1 on average."""

    def require(self, holds: bool, what: str) -> None:
        """Refuse the specification with a sentence when something does not hold."""
        if not holds:
            method = getattr(self, "method", "")
            raise ConceptBenchError(f"Dictionary '{self.name}' ({method}): {what}; correct it in the configuration.")


@dataclass(frozen=True, kw_only=True)
class Trained(Named):
    """The options of every method that is trained by gradients."""

    width: int
    """Number of latents."""
    lr: float = 1e-3
    """Learning rate of Adam after the warm-up."""
    warmup_steps: int = 200
    """Steps over which the learning rate rises linearly from 0."""
    decay_share: float = 0.2
    """Last share of all steps over which the learning rate falls to 0; 0 keeps it constant."""
    decay: Literal["linear", "cosine"] = "linear"
    """Shape of that fall."""
    epochs: int = 1
    """Passes over the training tokens."""
    batch_size: int = 2048
    """Tokens per step."""
    dead_tokens: int = 100_000
    """A latent that has not fired for this many tokens is dead."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be trained with."""
        self.require(self.width >= 1, f"width is {self.width}, it must be at least 1")
        self.require(self.lr > 0, f"lr is {self.lr}, it must be positive")
        self.require(self.warmup_steps >= 0, f"warmup_steps is {self.warmup_steps}, it must not be negative")
        self.require(0 <= self.decay_share <= 1, f"decay_share is {self.decay_share}, it must lie in 0..1")
        self.require(self.decay in ("linear", "cosine"), f"decay is '{self.decay}', it must be linear or cosine")
        self.require(self.epochs >= 1, f"epochs is {self.epochs}, it must be at least 1")
        self.require(self.batch_size >= 2, f"batch_size is {self.batch_size}, it must be at least 2")
        self.require(self.dead_tokens >= 1, f"dead_tokens is {self.dead_tokens}, it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Revived(Trained):
    """A trained method whose dead latents are revived by the AuxK loss (Gao et al., arXiv 2406.04093)."""

    aux_k: int | None = None
    """Dead latents that predict the residual; None means half the number of features."""
    aux_alpha: float = 1 / 32
    """Weight of the AuxK loss; 0 switches it off."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be trained with."""
        super().__post_init__()
        self.require(self.aux_k is None or self.aux_k >= 1, f"aux_k is {self.aux_k}, it must be at least 1")
        self.require(self.aux_alpha >= 0, f"aux_alpha is {self.aux_alpha}, it must not be negative")


@dataclass(frozen=True, kw_only=True)
class Started(Trained):
    """A trained method with free atoms, which start somewhere."""

    start: Start = "tokens"
    """Atoms at the start: centred training tokens blended with noise, or random directions."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be trained with."""
        super().__post_init__()
        self.require(self.start in ("tokens", "random"), f"start is '{self.start}', it must be tokens or random")


@dataclass(frozen=True, kw_only=True)
class Selecting(Revived):
    """A trained method that keeps a number of latents for each token."""

    k: int
    """Latents kept per token, at most or on average: negative pre-activations never fire."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be trained with."""
        super().__post_init__()
        self.require(self.k >= 1, f"k is {self.k}, it must be at least 1")
        self.require(self.width >= self.k, f"width {self.width} is smaller than k {self.k}")
