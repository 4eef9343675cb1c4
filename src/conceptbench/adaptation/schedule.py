"""Learning rates of few-shot prompt learning, one per epoch."""

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
