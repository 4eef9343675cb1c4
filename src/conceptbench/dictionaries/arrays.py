"""Training tokens that fit in memory: an array becomes the shuffled batches of every epoch."""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float32

from conceptbench.seeds import rng

Epochs = Callable[[int], Iterator[Float32[np.ndarray, "token feature"]]]


def shuffled_epochs(x: Float32[np.ndarray, "token feature"], batch_size: int, seed: int) -> Epochs:
    """Return a function from the epoch to its batches: every token once, in an order of that seed and epoch."""

    def batches(epoch: int) -> Iterator[Float32[np.ndarray, "token feature"]]:
        """Yield the batches of one epoch; the last may be smaller."""
        order = rng(seed, "epoch", epoch).permutation(len(x))
        for start in range(0, len(x), batch_size):
            yield x[order[start : start + batch_size]]

    return batches
