"""The threshold that stands for a batch at encoding: calibrated so that tokens have k firings on average."""

from collections.abc import Iterator
from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

from conceptbench.errors import ConceptBenchError

CALIBRATION_TOKENS: Final = 8_192
CALIBRATION_TILE: Final = 1_024


def calibrate(tiles: Iterator[Float[Tensor, "token latent"]], k: int, at_most: int = CALIBRATION_TOKENS) -> float:
    """Return the threshold that exactly `k` values a token exceed, over all tiles; 0 when fewer are positive.

    It is the (n k + 1)-th largest positive value of n tokens. With no more than `at_most` tokens, only so many values
    can matter, and no more than twice as many (and one tile) are held at once.
    """
    pool, tokens, limit = torch.zeros(0), 0, at_most * k + 1
    for tile in tiles:
        tokens += len(tile)
        pool = torch.cat([pool, tile[tile > 0].cpu()])
        if len(pool) > 2 * limit:
            pool = pool.topk(limit, sorted=False).values
    if tokens > at_most:
        raise ConceptBenchError(f"A threshold is calibrated on {tokens} tokens, more than {at_most}; pass fewer.")
    if len(pool) <= tokens * k:
        return 0.0
    return float(pool.topk(tokens * k + 1, sorted=False).values.min())
