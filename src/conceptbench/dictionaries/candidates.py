"""Which latents fire: a product of low precision proposes candidates, float32 decides. Nothing of size B x m is kept.

With x a centred token, w an encoder row, x' and w' their bfloat16 roundings, the product that the processor returns
differs from x . w by at most

    |x - x'| |w'| + |x| |w - w'| + A |x'| |w'| + 2^-8 |product|

by the inequality of Cauchy and Schwarz: the roundings of the two factors (their norms are known exactly, and are about
2.4 times smaller than the worst case), the accumulation in float32 over d products (A = 2 d 2^-24) and the rounding of
the result. Latents that cannot be among the k largest within these bounds are left out; the rest are computed again in
float32. A product in float32 is treated alike, with the accumulation alone as its slack. So the result does not depend
on the processor's abilities, on the library that multiplies, or on the number of threads.
"""

from collections.abc import Iterator
from copy import copy
from typing import Any, Final, Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from conceptbench.dictionaries import kernels, selection
from conceptbench.dictionaries.learner import Precision
from conceptbench.dictionaries.support import Support
from conceptbench.dictionaries.threads import ranges, share_threads

TILE_VALUES: Final = 4 << 20
"""Pre-activations held at once: 8 MiB in bfloat16, which stays in the caches."""
MAX_BLOCK: Final = 32
BLOCKS_PER_CHOICE: Final = 8
ROUNDING: Final = 2.0**-8
ACCUMULATION: Final = 2.0**-23
SAFETY: Final = 1.001
"""Covers the float32 rounding of the norms themselves."""


def resolve(precision: Precision) -> Literal["bf16", "fp32"]:
    """Return the precision that `auto` stands for: bfloat16 where the processor multiplies it natively."""
    if precision != "auto":
        return precision
    abilities = torch.cpu.get_capabilities()
    native = any(abilities.get(name) for name in ("avx512_bf16", "amx_bf16", "amx_tile"))
    return "bf16" if native else "fp32"


def block_height(width: int, k: int) -> int:
    """Return how many latents share a block: a power of 2 that divides the width and leaves 8 k blocks or more."""
    height = MAX_BLOCK
    while height > 1 and (width % height or width // height < BLOCKS_PER_CHOICE * k):
        height //= 2
    return height


def product(left: Float[Tensor, "row feature"], right: Float[Tensor, "latent feature"]) -> Float[Tensor, "row latent"]:
    """Return left right' in float32, by oneDNN where torch has it: on some processors twice as fast as the default."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return left @ right.T
    with torch.inference_mode():
        result: Tensor = torch.nn.functional.linear(left.to_mkldnn(), right).to_dense()
    return result


class Candidates:
    """An encoder, prepared for choosing latents. The caller keeps it up to date: `refresh`, or row by row.

    `rows` and `bias` are views of the encoder; `rounded` (m or 0, d) and `norms` (2, m) follow them (see
    `kernels.round_rows`; without bfloat16 only the norms of the rows are kept).
    """

    def __init__(
        self, encoder: Float[Tensor, "latent feature"], bias: Float[Tensor, "latent"], precision: Precision = "auto"
    ) -> None:
        """Round the encoder where the precision asks for it."""
        self._encoder = encoder.detach()
        self.rows, self.bias = self._encoder.numpy(), bias.detach().numpy()
        self.precision = resolve(precision)
        width, d = self.rows.shape
        self._low = torch.empty(width if self.precision == "bf16" else 0, d, dtype=torch.bfloat16)
        self.rounded = self._low.view(torch.int16).numpy()
        self.norms = np.zeros((2, width), np.float32)
        self.refresh()

    def among(self, latents: Int64[np.ndarray, "some"]) -> "Candidates":
        """Return some latents alone, as they are now; they are numbered by their places in `latents`."""
        some = copy(self)
        some.rows, some.bias, some.norms = self.rows[latents], self.bias[latents], np.take(self.norms, latents, axis=1)
        some._encoder = torch.from_numpy(some.rows)
        if len(self.rounded):
            some.rounded = self.rounded[latents]
            some._low = torch.from_numpy(some.rounded).view(torch.bfloat16)
        return some

    def refresh(self) -> None:
        """Follow a change of the whole encoder."""
        if len(self.rounded):
            kernels.round_rows(0, len(self.rows), self.rows, self.rounded, self.norms)
        else:
            self.norms[0] = np.sqrt(np.einsum("jf,jf->j", self.rows, self.rows))

    def finite(self) -> bool:
        """Return whether the encoder holds no NaN and no infinity; choices from others are meaningless."""
        return bool(np.isfinite(self.norms).all() and np.isfinite(self.bias).all())

    def largest(self, centred: Float32[np.ndarray, "token feature"], k: int) -> Support:
        """Return the k largest positive pre-activations of each token, or fewer; latents ascend within a token."""
        tokens, width = len(centred), len(self.rows)
        blocks = width // block_height(width, k)
        block_norms, largest_bias = self.norms.reshape(2, -1, blocks).max(1), np.abs(self.bias).max()
        encoder = (self.rows, self.bias, self.norms, block_norms, largest_bias)
        chosen = np.empty(tokens, np.int64), np.empty((tokens, k), np.int32), np.empty((tokens, k), np.float32)
        for first, tile, inputs in self._tiles(centred):
            selection.parallel_largest(ranges(), first, tile, inputs, encoder, k, chosen)
        return Support.of_slots(*chosen)

    def above(
        self, centred: Float32[np.ndarray, "token feature"], thresholds: Float32[np.ndarray, "latent"]
    ) -> Support:
        """Return all pre-activations above their (non-negative) thresholds, latents ascending within a token."""
        encoder = (self.rows, self.bias, self.norms)
        parts = []
        for first, tile, inputs in self._tiles(centred):
            counts = np.empty(len(tile), np.int64)
            selection.parallel_count_above(ranges(), first, tile, inputs, encoder, thresholds, counts)
            start = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
            latents, values = np.empty(start[-1], np.int32), np.empty(start[-1], np.float32)
            selection.parallel_fill_above(ranges(), first, tile, inputs, encoder, thresholds, start, latents, values)
            parts.append(Support(start, latents, values).keep(values > 0))
        return Support.join(parts)

    def _tiles(
        self, centred: Float32[np.ndarray, "token feature"]
    ) -> Iterator[tuple[int, np.ndarray, tuple[Any, ...]]]:
        """Yield (first token, products of a tile of tokens with all latents, tokens with the factors of the slack)."""
        share_threads()
        inputs, factors, of_product = self._prepare(centred)
        height = max(1, min(len(centred), TILE_VALUES // len(self.rows)))
        low = torch.empty(height if len(self.rounded) else 0, len(self.rows), dtype=torch.bfloat16)
        for first in range(0, len(centred), height):
            part = inputs[first : first + height]
            if len(self.rounded):
                tile = torch.mm(part, self._low.T, out=low[: len(part)]).view(torch.int16)
            else:
                tile = product(part, self._encoder)
            yield first, tile.numpy(), (centred, factors, of_product)

    def _prepare(
        self, centred: Float32[np.ndarray, "token feature"]
    ) -> tuple[Tensor, Float32[np.ndarray, "2 token"], np.float32]:
        """Return the tokens as they are multiplied, and the factors of the slack."""
        tokens, d = centred.shape
        accumulation = np.float32(SAFETY * ACCUMULATION * d)
        if not len(self.rounded):
            norms = np.sqrt(np.einsum("tf,tf->t", centred, centred))
            return torch.from_numpy(centred), np.stack([accumulation * norms, 0 * norms]), np.float32(0)
        low = torch.empty(tokens, d, dtype=torch.bfloat16)
        norms = np.empty((2, tokens), np.float32)
        kernels.round_rows(0, tokens, centred, low.view(torch.int16).numpy(), norms)
        kept, lost = SAFETY * norms
        factors = np.stack([lost + accumulation * kept, kept + lost]).astype(np.float32)
        return low, factors, np.float32(SAFETY * ROUNDING)
