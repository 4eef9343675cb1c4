"""Tokens without a store: the backbone computes them again whenever they are asked for.

For images so many that their activations fit on no disk. A pass over the tokens is a pass over the images; memory is
bounded by the shuffling buffer and one batch, whatever the number of images.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float32

from conceptbench.activations.pipeline import Loader, one_pass, stored_values
from conceptbench.activations.record import SHARD_IMAGES
from conceptbench.activations.request import ImageSource, Precision, RowIds, TokenModel, make_spec
from conceptbench.activations.shards import Values, to_float32
from conceptbench.activations.shuffle import by_shard, shuffled
from conceptbench.seeds import rng

BATCH_IMAGES: Final = 256


class LiveTokens:
    """The tokens of a data set at some blocks of a backbone, with the reading methods of `ActivationStore`.

    Values are those that a recording would store: float16, finite. They agree with a store's up to the last bits, which
    depend on how images are grouped into batches.
    """

    def __init__(
        self,
        backbone: TokenModel,
        dataset: ImageSource,
        blocks: Sequence[int],
        *,
        batch_images: int = BATCH_IMAGES,
        precision: Precision = "float32",
        workers: int | None = None,
    ) -> None:
        """Describe what is computed on demand; `workers` threads prepare photographs, as many as torch has by default.

        Raises:
            ConceptBenchError: for a block out of range.
        """
        self._backbone, self._dataset, self._batch = backbone, dataset, batch_images
        self._workers = workers or torch.get_num_threads()
        self.spec = make_spec(backbone, dataset, blocks, None, batch_images, "float16", None, SHARD_IMAGES, precision)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(images, tokens, features) of every block."""
        return self.spec.shape

    @property
    def spec_digest(self) -> str:
        """Digest of the specification: that of a store with the same tokens."""
        return self.spec.digest

    def read(self, block: int, rows: Sequence[int] | RowIds) -> Float32[np.ndarray, "image token feature"]:
        """Return the tokens of some dataset rows, in the order asked for.

        Raises:
            ConceptBenchError: when a value is not finite or does not fit float16; image and block are named.
        """
        return to_float32(self._compute(block, np.asarray(rows, dtype=np.int64)))

    def shuffled_tokens(
        self,
        block: int,
        batch_tokens: int,
        seed: int,
        epoch: int,
        buffer_tokens: int,
        rows: Sequence[int] | RowIds | None = None,
    ) -> Iterator[Float32[np.ndarray, "token feature"]]:
        """Yield every token of the chosen rows exactly once, in the order of a store of the whole data set.

        Args:
            block: the block. batch_tokens: tokens in a batch; the last may be smaller.
            seed, epoch: fix the order, as in `ActivationStore.shuffled_tokens`.
            buffer_tokens: tokens kept in memory. rows: dataset rows, each at most once; all by default.

        Raises:
            ConceptBenchError: as `read`, and when the buffer is smaller than a batch or a row is named twice.
        """
        positions = np.arange(self.shape[0]) if rows is None else np.asarray(rows, dtype=np.int64)
        shards = self.spec.n_shards, self.spec.shard_images
        return shuffled(
            by_shard(positions, *shards, batch_tokens, buffer_tokens, self._dataset.name),
            partial(self._compute, block),
            tokens_per_image=self.shape[1],
            width=self.shape[2],
            dtype=self.spec.numpy_dtype,
            batch_tokens=batch_tokens,
            buffer_tokens=buffer_tokens,
            generator=rng(seed, "shuffled_tokens", epoch),
        )

    def _compute(self, block: int, rows: np.ndarray[Any, np.dtype[np.int64]]) -> Values:
        """Tokens [image, token, feature] of some rows as a store would hold them."""
        out = np.empty((len(rows), *self.shape[1:]), self.spec.numpy_dtype)
        parts = [rows[start : start + self._batch] for start in range(0, len(rows), self._batch)]
        done = 0
        with Loader(self._backbone, self._dataset, self._workers) as loader, torch.no_grad():
            for part, coming in zip(parts, loader.batches(parts), strict=True):
                found = one_pass(self._backbone, coming.result(), self.spec, [block])
                out[done : done + len(part)] = stored_values(self.spec, block, found[block], part)
                done += len(part)
        return out
