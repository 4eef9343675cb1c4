"""Tokens in random order through a buffer of bounded size: every token exactly once an epoch."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float32

from conceptbench.activations.shards import Values, to_float32
from conceptbench.errors import ConceptBenchError

Positions = np.ndarray[Any, np.dtype[np.int64]]


def by_shard(
    positions: Positions, shards: int, shard_images: int, batch_tokens: int, buffer_tokens: int, name: str
) -> list[Positions]:
    """Return the positions of images in ascending order, those of one shard together.

    Args:
        name: what the images are of, for errors.

    Raises:
        ConceptBenchError: when the buffer is smaller than a batch or a position occurs twice.
    """
    if not 0 < batch_tokens <= buffer_tokens:
        raise ConceptBenchError(
            f"A buffer of {buffer_tokens} tokens cannot fill batches of {batch_tokens}; "
            "set buffer_tokens to at least batch_tokens, and batch_tokens above 0."
        )
    ordered = np.sort(positions)
    if (np.diff(ordered) == 0).any():
        raise ConceptBenchError(f"A row of {name} is named twice; give each row once to shuffled_tokens.")
    starts = np.searchsorted(ordered, np.arange(1, shards) * shard_images)
    return [group for group in np.split(ordered, starts) if len(group)]


def shuffled(
    groups: Sequence[Positions],
    load: Callable[[Positions], Values],
    *,
    tokens_per_image: int,
    width: int,
    dtype: np.dtype[Any],
    batch_tokens: int,
    buffer_tokens: int,
    generator: np.random.Generator,
) -> Iterator[Float32[np.ndarray, "token feature"]]:
    """Yield batches of tokens [batch_tokens, feature]; only the last may be smaller.

    Groups (the images of one shard) are visited in random order and their images in random order within, so that the
    disk is read shard by shard. Tokens wait in the buffer; batches are drawn from it at random, down to its half,
    then it is refilled. When everything fits the result is one full permutation.

    Args:
        groups: image positions, one array for each shard.
        load: returns the tokens [image, token, feature] of some positions.
        tokens_per_image: tokens `load` returns for each image.
        width: features of a token.
        dtype: dtype of the buffer, the stored one.
        batch_tokens: size of a batch.
        buffer_tokens: tokens held in memory, at least `batch_tokens`.
        generator: the source of all randomness.
    """
    total = tokens_per_image * sum(len(group) for group in groups)
    capacity = min(buffer_tokens, total)
    keep = min(capacity // 2, capacity - min(batch_tokens, capacity))
    incoming = _token_chunks(groups, load, generator, max(1, capacity // (4 * tokens_per_image)))
    buffer, rest = np.empty((capacity, width), dtype), np.empty((0, width), dtype)
    free, filled, waiting = np.arange(capacity), np.empty(0, np.int64), total
    while waiting or len(filled):
        while waiting and len(free):
            rest = rest if len(rest) else next(incoming)
            slots, free = free[: len(rest)], free[len(rest) :]
            buffer[slots], rest = rest[: len(slots)], rest[len(slots) :]
            filled, waiting = np.concatenate([filled, slots]), waiting - len(slots)
        order = generator.permutation(filled)
        usable = len(order) if not waiting else (len(order) - keep) // batch_tokens * batch_tokens
        for start in range(0, usable, batch_tokens):
            yield to_float32(buffer[order[start : start + batch_tokens]])
        free, filled = order[:usable], order[usable:]


def _token_chunks(
    groups: Sequence[Positions], load: Callable[[Positions], Values], generator: np.random.Generator, images: int
) -> Iterator[Values]:
    """Tokens [n, feature] of a few images at a time, shards and images within shards in random order."""
    for index in generator.permutation(len(groups)):
        positions = generator.permutation(groups[index])
        for start in range(0, len(positions), images):
            tokens = load(positions[start : start + images])
            yield tokens.reshape(-1, tokens.shape[-1])
