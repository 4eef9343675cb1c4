"""What the specifications share: settings, templates, contexts, and the few-shot recipe of the CoOp family."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from conceptbench.errors import ConceptBenchError

Setting = Literal["base-to-novel", "all-classes"]
"""Train on the base half and test on each half with its own candidates, or train and test on all classes."""

DEFAULT_TEMPLATE = "a photo of a {}."
"""Prompt of a class when none is given."""


@dataclass(frozen=True)
class Recipe:
    """Few-shot training by SGD, shared by the prompt methods (defaults: MaPLe, base-to-novel)."""

    epochs: int = 5
    batch_size: int = 4
    lr: float = 0.0035
    warmup_lr: float = 1e-5
    """Constant learning rate of the first epoch."""
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        """Refuse what cannot be trained with."""
        require_trainable(self.epochs, self.batch_size, self.lr)
        if not self.warmup_lr >= 0:
            raise ConceptBenchError("an adaptation needs warmup_lr >= 0; correct the configuration.")


def require_trainable(epochs: int, batch_size: int, lr: float) -> None:
    """Raise ConceptBenchError for numbers that nothing can be trained with."""
    if epochs < 1 or batch_size < 1:
        raise ConceptBenchError("an adaptation needs epochs >= 1 and batch_size >= 1; correct the configuration.")
    if not lr > 0:
        raise ConceptBenchError("an adaptation needs lr > 0; correct the configuration.")


def require_place(name: str, template: str | None) -> None:
    """Raise ConceptBenchError for a template without a place for the class name; None stands for another one."""
    if template is not None and "{}" not in template:
        raise ConceptBenchError(f"{name}: the template {template!r} has no {{}} for the class name; add it.")


def require_prompts(name: str, *counts: int) -> None:
    """Raise ConceptBenchError when a number of tokens or of positions is not at least 1."""
    if min(counts) < 1:
        raise ConceptBenchError(f"{name}: numbers of tokens and depths must be at least 1; correct the configuration.")
