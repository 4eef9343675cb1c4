"""Learning rates of few-shot training: one per epoch in the CoOp family, one per step with AdamW."""

from __future__ import annotations

import math


def learning_rate(epoch: int, epochs: int, lr: float, warmup_lr: float = 1e-5) -> float:
    """Learning rate of `epoch` (1-based): a constant first epoch, then a cosine whose counter starts anew.

    For epoch e >= 2 it is lr (1 + cos(pi (e - 2) / epochs)) / 2, as the CoOp family trains it: the period is the total
    number of epochs although one of them was spent warming up, so the rate never reaches 0.
    """
    if epoch == 1:
        return warmup_lr
    return lr * (1 + math.cos(math.pi * (epoch - 2) / epochs)) / 2


def cosine_rate(step: int, steps: int, lr: float, min_lr: float = 0.0) -> float:
    """Learning rate of `step` (0-based) of `steps`: a cosine from `lr` that would reach `min_lr` after the last one."""
    return min_lr + (lr - min_lr) * (1 + math.cos(math.pi * step / steps)) / 2
