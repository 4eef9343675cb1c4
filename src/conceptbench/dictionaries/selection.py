"""Compiled choice of the latents that fire, from pre-activations of low precision. Shapes: n rows of a tile, m latents.

A tile holds products of rounded tokens and rounded encoder rows, as bfloat16 bits or float32. Each differs from the
exact pre-activation by at most its slack (see `candidates`), so whatever can belong to the result is known for
certain; only that is computed in float32, and the result is the one of a float32 encoder, up to ties in float32.

The columns of a tile are seen as `height` rows of `blocks` columns: block b holds the latents b, b + blocks, ...
A block's largest value is found for all blocks at once, and most blocks are never looked into.
"""

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, prange, types
from numba.extending import intrinsic, overload

_FAST = {"reassoc", "contract", "nsz", "arcp", "nnan"}
HALVINGS = 14


@intrinsic
def _as_float(typing_context, bits):  # type: ignore[no-untyped-def]
    """The float32 of 32 bits."""
    del typing_context, bits

    def generate(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        """Emit one bit cast."""
        del context, signature
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


def _widen(value: Any) -> Any:
    """The float32 of an element of a tile: bfloat16 bits, or a float32 itself."""


@overload(_widen, inline="always")
def _widen_overload(value):  # type: ignore[no-untyped-def]
    """Choose by the type of the tile."""
    if value == types.int16:
        return lambda value: _as_float(np.int32(value) << np.int32(16))  # type: ignore[call-arg]
    return lambda value: value


@njit(cache=True, fastmath=_FAST, error_model="numpy", nogil=True)
def _block_maxima(row, bias, top):  # type: ignore[no-untyped-def]
    """Write the largest pre-activation of each block into `top` (blocks)."""
    blocks = len(top)
    for b in range(blocks):
        top[b] = -np.inf
    for first in range(0, len(row), blocks):
        products, offsets = row[first : first + blocks], bias[first : first + blocks]
        for b in range(blocks):
            value = _widen(products[b]) + offsets[b]
            top[b] = value if value > top[b] else top[b]


@njit(cache=True, fastmath=_FAST, error_model="numpy", nogil=True)
def _at_most_kth(values, k):  # type: ignore[no-untyped-def]
    """Return a number that at least k of the values reach, close to the k-th largest; 0 if fewer are positive."""
    low, high, positive = np.float32(0), np.float32(0), np.float32(0)
    one, none = np.float32(1), np.float32(0)
    for value in values:
        high = value if value > high else high
        positive += one if value > 0 else none
    if positive < k:
        return np.float32(0)
    for _ in range(HALVINGS):
        middle = np.float32(0.5) * (low + high)
        reached = np.float32(0)
        for value in values:
            reached += one if value >= middle else none
        if reached < k:
            high = middle
            continue
        low = middle
        if reached == k:
            break
    return low


@njit(cache=True, fastmath=_FAST, error_model="numpy", nogil=True)
def _dot(left, right):  # type: ignore[no-untyped-def]
    """Inner product of two rows."""
    total = np.float32(0)
    for f in range(len(left)):
        total += left[f] * right[f]
    return total


@njit(cache=True, error_model="numpy", nogil=True)
def _partition(values, latents, n, k):  # type: ignore[no-untyped-def]
    """Reorder the first n pairs so that the k largest values come first; of equal values the smaller latent wins."""
    low, high = 0, n - 1
    while low < high:
        pivot, pivot_latent = values[(low + high) // 2], latents[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] > pivot or (values[i] == pivot and latents[i] < pivot_latent):
                i += 1
            while values[j] < pivot or (values[j] == pivot and latents[j] > pivot_latent):
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                latents[i], latents[j] = latents[j], latents[i]
                i += 1
                j -= 1
        if k - 1 <= j:
            high = j
        elif k - 1 >= i:
            low = i
        else:
            return


@njit(cache=True, fastmath=_FAST, error_model="numpy", nogil=True)
def _propose(row, factors, encoder, k, blocks_of, found):  # type: ignore[no-untyped-def]
    """Write the latents that may be among the k largest, with bounds of their pre-activations; return their number.

    `factors`: of the encoder's norms, of its losses, of the product. `blocks_of`: the encoder's norms by block (2,
    blocks), its largest absolute bias, scratch (3, blocks). `found`: columns, upper and lower bounds (m each).
    """
    of_rows, of_loss, of_product = factors
    _, bias, norms = encoder
    block_norms, largest_bias, scratch = blocks_of
    column, upper, lower = found
    top, reach, bound = scratch[0], scratch[1], scratch[2]
    blocks = len(top)
    _block_maxima(row, bias, top)
    for b in range(blocks):
        fixed = of_rows * block_norms[0, b] + of_loss * block_norms[1, b]
        slack = fixed + of_product * (abs(top[b]) + largest_bias)
        reach[b], bound[b] = top[b] + slack, top[b] - slack
    floor = _at_most_kth(bound, k)
    n = 0
    for b in range(blocks):
        if reach[b] >= floor and reach[b] > 0:
            fixed = of_rows * block_norms[0, b] + of_loss * block_norms[1, b]
            for j in range(b, len(row), blocks):
                product = _widen(row[j])
                guess, rounding = product + bias[j], of_product * abs(product)
                if guess + fixed + rounding >= floor:
                    slack = of_rows * norms[0, j] + of_loss * norms[1, j] + rounding
                    column[n], upper[n], lower[n] = j, guess + slack, guess - slack
                    n += 1
    floor = max(floor, _at_most_kth(lower[:n], k))
    left = 0
    for i in range(n):
        if upper[i] >= floor and upper[i] > 0:
            column[left] = column[i]
            left += 1
    return left


@njit(cache=True, nogil=True)
def _sort_by_latent(latents, values, n):  # type: ignore[no-untyped-def]
    """Order the first n pairs by latent (Shell's sort with Ciura's gaps)."""
    for gap in (301, 132, 57, 23, 10, 4, 1):
        for i in range(gap, n):
            j, value, place = latents[i], values[i], i
            while place >= gap and latents[place - gap] > j:
                latents[place], values[place] = latents[place - gap], values[place - gap]
                place -= gap
            latents[place], values[place] = j, value


@njit(cache=True, fastmath=_FAST, error_model="numpy", nogil=True)
def largest(begin, end, first, tile, tokens, encoder, k, chosen):  # type: ignore[no-untyped-def]
    """Write the k largest positive pre-activations of the rows begin:end of a tile, latents ascending.

    `first`: the token of row 0; `tile` (n, m). `tokens`: centred (B, d), factors (2, B), factor of the product.
    `encoder`: rows (m, d), bias (m), norms (2, m), their largest per block (2, blocks), the largest absolute bias.
    `chosen`: counts (B), latents (B, k), values (B, k). The slack is factors[0] * norms[0] + factors[1] * norms[1] +
    factor * |product|.
    """
    centred, factors, of_product = tokens
    rows, bias, norms, block_norms, largest_bias = encoder
    counts, latents, values = chosen
    width = tile.shape[1]
    blocks_of = block_norms, largest_bias, np.empty((3, block_norms.shape[1]), np.float32)
    column, upper, exact = np.empty(width, np.int32), np.empty(width, np.float32), np.empty(width, np.float32)
    for r in range(begin, end):
        t = first + r
        slack = factors[0, t], factors[1, t], of_product
        n = _propose(tile[r], slack, (rows, bias, norms), k, blocks_of, (column, upper, exact))
        kept = 0
        for i in range(n):
            j = column[i]
            value = _dot(centred[t], rows[j]) + bias[j]
            if value > 0:
                column[kept], exact[kept] = j, value
                kept += 1
        if kept > k:
            _partition(exact, column, kept, k)
            kept = k
        counts[t] = kept
        for i in range(kept):
            latents[t, i], values[t, i] = column[i], exact[i]
        _sort_by_latent(latents[t], values[t], kept)


@njit(cache=True, fastmath=_FAST, error_model="numpy", nogil=True)
def _count_reaching(row, factors, encoder, thresholds, mask):  # type: ignore[no-untyped-def]
    """Mark in `mask` the latents whose pre-activation may exceed its threshold; return their number."""
    of_rows, of_loss, of_product = factors
    bias, norms, losses = encoder
    count = np.int64(0)
    for j in range(len(row)):
        product = _widen(row[j])
        reach = product + bias[j] + of_rows * norms[j] + of_loss * losses[j] + of_product * abs(product)
        mask[j] = reach > thresholds[j]
        count += mask[j]
    return count


@njit(cache=True, fastmath=_FAST, error_model="numpy", nogil=True)
def count_above(begin, end, first, tile, tokens, encoder, thresholds, counts):  # type: ignore[no-untyped-def]
    """Write for the rows begin:end of a tile how many pre-activations may exceed their thresholds (m).

    `tile`, `tokens` and `encoder` as in `largest`, without the norms by block; `counts` (n).
    """
    _, factors, of_product = tokens
    _, bias, norms = encoder
    mask = np.empty(tile.shape[1], np.uint8)
    for r in range(begin, end):
        slack = factors[0, first + r], factors[1, first + r], of_product
        counts[r] = _count_reaching(tile[r], slack, (bias, norms[0], norms[1]), thresholds, mask)


@njit(cache=True, fastmath=_FAST, error_model="numpy", nogil=True)
def fill_above(begin, end, first, tile, tokens, encoder, thresholds, start, latents, values):  # type: ignore[no-untyped-def]
    """Write those latents, ascending, at `start[r]` and on; the value is 0 where the threshold is not exceeded."""
    centred, factors, of_product = tokens
    rows, bias, norms = encoder
    mask = np.empty(tile.shape[1], np.uint8)
    for r in range(begin, end):
        t, e = first + r, start[r]
        slack = factors[0, t], factors[1, t], of_product
        _count_reaching(tile[r], slack, (bias, norms[0], norms[1]), thresholds, mask)
        for j in range(len(mask)):
            if not mask[j]:
                continue
            value = _dot(centred[t], rows[j]) + bias[j]
            latents[e], values[e] = j, value if value > thresholds[j] else np.float32(0)
            e += 1


@njit(cache=True, parallel=True)
def parallel_largest(parts, first, tile, tokens, encoder, k, chosen):  # type: ignore[no-untyped-def]
    """Run `largest` over all rows of a tile in `parts` ranges."""
    n = len(tile)
    for i in prange(parts):
        largest(i * n // parts, (i + 1) * n // parts, first, tile, tokens, encoder, k, chosen)


@njit(cache=True, parallel=True)
def parallel_count_above(parts, first, tile, tokens, encoder, thresholds, counts):  # type: ignore[no-untyped-def]
    """Run `count_above` over all rows of a tile in `parts` ranges."""
    n = len(tile)
    for i in prange(parts):
        count_above(i * n // parts, (i + 1) * n // parts, first, tile, tokens, encoder, thresholds, counts)


@njit(cache=True, parallel=True)
def parallel_fill_above(parts, first, tile, tokens, encoder, thresholds, start, latents, values):  # type: ignore[no-untyped-def]
    """Run `fill_above` over all rows of a tile in `parts` ranges."""
    n = len(tile)
    for i in prange(parts):
        fill_above(
            i * n // parts, (i + 1) * n // parts, first, tile, tokens, encoder, thresholds, start, latents, values
        )
