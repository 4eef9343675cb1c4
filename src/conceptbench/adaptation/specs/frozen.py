"""Methods on frozen features: the backbone is asked for its features and nothing inside it changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from conceptbench.adaptation.specs.base import require_place, require_trainable
from conceptbench.errors import ConceptBenchError


@dataclass(frozen=True)
class ZeroShotSpec:
    """The backbone as it is: one prompt per class."""

    name: str = "zero-shot"
    method: Literal["zero-shot"] = "zero-shot"
    template: str | None = None
    """Prompt with `{}` for the class name, usually the one of the data set; None takes `DEFAULT_TEMPLATE`."""

    def __post_init__(self) -> None:
        """Refuse a template without a place for the class name."""
        require_place(self.name, self.template)


@dataclass(frozen=True)
class LinearProbeSpec:
    """Logistic regression on frozen image features, L2 strength chosen on the validation shots (CLIP's recipe)."""

    name: str = "linear-probe"
    method: Literal["linear-probe"] = "linear-probe"
    max_iter: int = 1000
    search_steps: int = 8
    """Halvings of the interval around the best C of the coarse grid."""


@dataclass(frozen=True)
class CacheOptions:
    """The cache of Tip-Adapter (Zhang et al. 2022) and the grid on which its two numbers are searched."""

    template: str | None = None
    """Prompt with `{}` of the text side; None takes `DEFAULT_TEMPLATE`."""
    views: int = 10
    """Augmented views of a training image whose mean feature is its key."""
    beta: float = 1.0
    """Sharpness of the affinity before the search; the keys of tip-adapter-f are trained with it."""
    alpha: float = 1.17
    """Weight of the cache before the search; the keys of tip-adapter-f are trained with it."""
    beta_max: float = 7.0
    """Upper end of the searched sharpness; the grid starts at 0.1."""
    alpha_max: float = 3.0
    """Upper end of the searched weight; the grid starts at 0.1."""
    beta_steps: int = 200
    alpha_steps: int = 20


@dataclass(frozen=True)
class TipAdapterSpec(CacheOptions):
    """Zero-shot logits plus votes of the training images, by their affinity; nothing is trained."""

    name: str = "tip-adapter"
    method: Literal["tip-adapter"] = "tip-adapter"

    def __post_init__(self) -> None:
        """Refuse a grid without values."""
        _check_cache(self.name, self)


@dataclass(frozen=True)
class TipAdapterFSpec(CacheOptions):
    """Tip-Adapter whose keys are fine-tuned (Tip-Adapter-F); the last epoch is kept."""

    name: str = "tip-adapter-f"
    method: Literal["tip-adapter-f"] = "tip-adapter-f"
    epochs: int = 20
    batch_size: int = 256
    lr: float = 1e-3
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        """Refuse a grid without values and numbers that cannot be trained with."""
        _check_cache(self.name, self)
        require_trainable(self.epochs, self.batch_size, self.lr)


def _check_cache(name: str, options: CacheOptions) -> None:
    require_place(name, options.template)
    if min(options.views, options.beta_steps, options.alpha_steps) < 1:
        raise ConceptBenchError(f"{name}: views, beta_steps and alpha_steps must be at least 1; correct them.")
    if min(options.beta_max, options.alpha_max) <= 0.1:
        raise ConceptBenchError(
            f"{name}: the grids start at 0.1, so beta_max and alpha_max must lie above it; raise them."
        )
