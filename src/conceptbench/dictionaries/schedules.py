"""How learning rate and sparsity change over the steps of training; steps count from 0."""

import math

from conceptbench.dictionaries.specs import TopK, Trained


def learning_rate(spec: Trained, step: int, total_steps: int | None) -> float:
    """Return the rate of a step: linear warm-up, constant, and a fall to 0 over the last `decay_share` of all steps.

    The fall is linear, or half a cosine; with `decay_share` 1 it begins at once, on top of the warm-up.
    """
    rise = ramp(step, spec.warmup_steps)
    if not spec.decay_share or total_steps is None:
        return spec.lr * rise
    left = min(1.0, max(0.0, (total_steps - step) / max(1.0, spec.decay_share * total_steps)))
    fall = left if spec.decay == "linear" else (1 - math.cos(math.pi * left)) / 2
    return spec.lr * rise * fall


def ramp(step: int, steps: int) -> float:
    """Return how far a linear rise over `steps` steps has come: above 0 at the first, 1 at the last and after it."""
    return min(1.0, (step + 1) / steps) if steps else 1.0


def kept(spec: TopK, step: int) -> int:
    """Return how many latents a token keeps on a step: from `k_start` linearly to k over the first `k_steps` steps."""
    if spec.k_start is None or step >= spec.k_steps:
        return spec.k
    return round(spec.k_start + (spec.k - spec.k_start) * step / spec.k_steps)
