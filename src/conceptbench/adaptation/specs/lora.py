"""Methods that learn changes of weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from conceptbench.adaptation.specs.base import require_place, require_trainable
from conceptbench.errors import ConceptBenchError

Towers = Literal["both", "image", "text"]
"""Which towers learn."""

Projection = Literal["q", "k", "v"]
"""An input projection of an attention layer."""

PROJECTIONS: tuple[Projection, ...] = get_args(Projection)


@dataclass(frozen=True)
class ClipLoraSpec:
    """Low-rank changes of attention projections (CLIP-LoRA, Zanella and Ben Ayed 2024)."""

    name: str = "clip-lora"
    method: Literal["clip-lora"] = "clip-lora"
    towers: Towers = "both"
    projections: tuple[Projection, ...] = PROJECTIONS
    rank: int = 2
    alpha: float = 1.0
    """The change of a weight is alpha / sqrt(rank) times the product of its two factors."""
    dropout: float = 0.25
    """Share of the inputs of the learned factors that is dropped in training."""
    iterations_per_shot: int = 500
    """Steps of training for each shot; 500 times 16 shots are 8,000."""
    batch_size: int = 32
    lr: float = 2e-4
    min_lr: float = 1e-6
    """End of the cosine over all steps."""
    weight_decay: float = 0.01
    template: str | None = None
    """Prompt with `{}`, usually the one of the data set; None takes `DEFAULT_TEMPLATE`."""

    def __post_init__(self) -> None:
        """Refuse what cannot be trained with."""
        object.__setattr__(self, "projections", tuple(self.projections))
        require_place(self.name, self.template)
        require_trainable(self.iterations_per_shot, self.batch_size, self.lr)
        if self.rank < 1 or not 0 <= self.dropout < 1 or not self.alpha > 0:
            raise ConceptBenchError(f"{self.name}: needs rank >= 1, 0 <= dropout < 1 and alpha > 0; correct it.")
        if not self.projections or not set(self.projections) <= set(PROJECTIONS):
            raise ConceptBenchError(f"{self.name}: projections are of q, k and v, not {self.projections}; correct it.")
        if self.towers not in get_args(Towers):
            raise ConceptBenchError(f"{self.name}: towers is both, image or text, not {self.towers!r}; correct it.")
