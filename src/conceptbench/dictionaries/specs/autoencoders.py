"""Specifications of the sparse autoencoders."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from conceptbench.dictionaries.specs.base import Revived, Selecting, Started, Trained


@dataclass(frozen=True, kw_only=True)
class TopK(Started, Selecting):
    """TopK autoencoder with the AuxK loss on dead latents (Gao et al., arXiv 2406.04093)."""

    method: ClassVar[Literal["topk"]] = "topk"
    k_start: int | None = None
    """Latents kept per token on the first step, from where the number changes linearly to k; None means k."""
    k_steps: int = 0
    """Steps over which it changes."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be trained with."""
        super().__post_init__()
        fits = self.k_start is None or 1 <= self.k_start <= self.width
        self.require(fits, f"k_start is {self.k_start}, it must lie in 1..{self.width}")
        self.require(self.k_steps >= 0, f"k_steps is {self.k_steps}, it must not be negative")


@dataclass(frozen=True, kw_only=True)
class ReluL1(Trained):
    """ReLU autoencoder with an L1 penalty; presets `patchsae` (arXiv 2412.05276) and `sae-v` (2502.06755)."""

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
        self.require(self.l1 >= 0, f"l1 is {self.l1}, it must not be negative")
        self.require(self.l1_warmup_steps >= 0, f"l1_warmup_steps is {self.l1_warmup_steps}, it must not be negative")
        self.require(self.init in ("decoder", "kaiming"), f"init is '{self.init}', it must be decoder or kaiming")


@dataclass(frozen=True, kw_only=True)
class BatchTopK(Started, Selecting):
    """BatchTopK autoencoder (Bussmann et al., arXiv 2412.06410): k latents per token on average over a batch.

    At encoding one threshold, calibrated so that training tokens have k firings on average, takes the batch's place.
    """

    method: ClassVar[Literal["batch-topk"]] = "batch-topk"


@dataclass(frozen=True, kw_only=True)
class Matryoshka(Started, Selecting):
    """Matryoshka BatchTopK autoencoder (Bussmann et al., arXiv 2503.17547): nested prefixes that each reconstruct."""

    method: ClassVar[Literal["matryoshka"]] = "matryoshka"
    prefixes: tuple[float, ...] = (0.0625, 0.125, 0.25, 0.5, 1.0)
    """Nested prefixes as shares of the width, ascending, the last of them 1."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be trained with."""
        super().__post_init__()
        object.__setattr__(self, "prefixes", tuple(self.prefixes))  # a card read back holds a list
        rising = all(low < high for low, high in zip((0.0, *self.prefixes), self.prefixes, strict=False))
        holds = bool(self.prefixes) and rising and self.prefixes[-1] == 1
        self.require(holds, f"prefixes are {list(self.prefixes)}, they must rise from above 0 to 1")
        self.require(round(self.prefixes[0] * self.width) >= 1, f"prefix {self.prefixes[0]} of {self.width} is empty")


@dataclass(frozen=True, kw_only=True)
class JumpRelu(Started, Revived):
    """JumpReLU autoencoder (Rajamanoharan et al., arXiv 2407.14435): a learnt threshold for each latent."""

    method: ClassVar[Literal["jump-relu"]] = "jump-relu"
    sparsity: float
    """Weight of the sparsity penalty; the reconstruction loss is the batch's FVU."""
    penalty: Literal["l0", "target", "tanh"] = "l0"
    """Mean L0; squared relative deviation of the mean L0 from k; or mean of sum tanh(tanh_scale x code)."""
    k: int | None = None
    """Mean L0 aimed at with the penalty `target`, which needs it; the others ignore it."""
    tanh_scale: float = 4.0
    """Steepness of the tanh penalty."""
    sparsity_warmup_steps: int = 0
    """Steps over which the penalty's weight rises linearly from 0."""
    threshold: float = 1.0
    """Threshold of every latent at the start, in units of pre-activations."""
    bandwidth: float = 1.0
    """Width of the window around a threshold in which its pseudo-gradient is not 0."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be trained with."""
        super().__post_init__()
        for name in ("sparsity", "sparsity_warmup_steps"):
            self.require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}, it must not be negative")
        for name in ("threshold", "bandwidth", "tanh_scale"):
            self.require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}, it must be positive")
        known = ("l0", "target", "tanh")
        self.require(self.penalty in known, f"penalty is '{self.penalty}', it must be one of {', '.join(known)}")
        aims = self.k is not None and 1 <= self.k <= self.width
        self.require(self.penalty != "target" or aims, f"the penalty target needs k from 1 to the width, k is {self.k}")


@dataclass(frozen=True, kw_only=True)
class Archetypal(Selecting):
    """Relaxed archetypal TopK autoencoder (Fel et al., arXiv 2502.12892): atoms stay near the hull of the tokens."""

    method: ClassVar[Literal["archetypal"]] = "archetypal"
    candidates: int = 1024
    """Points whose row-stochastic combinations are the atoms: k-means centres of the first training tokens."""
    relaxation: float = 0.1
    """Largest distance of an atom from its combination, as a share of the candidates' mean norm; 0: none."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be trained with."""
        super().__post_init__()
        self.require(self.candidates >= 2, f"candidates is {self.candidates}, it must be at least 2")
        self.require(self.relaxation >= 0, f"relaxation is {self.relaxation}, it must not be negative")


@dataclass(frozen=True, kw_only=True)
class Frozen(Selecting):
    """Null: a TopK autoencoder whose random atoms stay as they were drawn, so that only the encoder learns."""

    method: ClassVar[Literal["frozen"]] = "frozen"
