"""Compiled Batch-OMP: pursuit on the Gram matrix alone. Shapes: n signals, m atoms, k slots per signal.

With support S, correlations p0 = D y and Gram matrix G, the coefficients solve G_SS c = p0_S and the correlations of
the residual are p = p0 - c G_S, so that no vector of d features is touched (Rubinstein, Zibulevsky, Elad, Technion
CS-2008-08). The rows of `factor` hold the lower triangular T with inverse(G_SS) = T' T, in float64, which grows by a
row when an atom joins. Each signal is served by one thread in a fixed order: results do not depend on the threads.
"""

import numpy as np
from numba import njit, prange

_BLOCK = 1024
"""Correlations updated at once: they stay in the first-level cache while the rows of the Gram matrix stream by."""
_STOP = 1e-5
"""The pursuit ends when no correlation exceeds this share of the first one: below lies rounding."""
_DEPENDENT = 1e-6
"""An atom whose squared distance to the span of the support is below this share of its square cannot join it."""
_EXCHANGES = 4
"""The non-negative pursuit adds at most this many times k atoms, counting those that it drops again."""
_SIGNED = np.int32(0x7FFFFFFF)
_POSITIVE = np.int32(-1)
_ORDER_FREE = {"reassoc", "contract", "nsz", "arcp"}
"""Licences that let sums be vectorised; NaN and infinity keep their meaning."""


@njit(cache=True, fastmath=_ORDER_FREE, error_model="numpy", nogil=True)
def _subtract(start, stop, source, gram, support, coefficients, size, target):  # type: ignore[no-untyped-def]
    """Write target = source - sum_i coefficients_i gram[support_i] for the columns start..stop, four rows a pass."""
    p0, p = source[start:stop], target[start:stop]
    width = len(p)
    for j in range(width):
        p[j] = p0[j]
    quads = size // 4 * 4
    for i in range(0, quads, 4):
        a0, g0 = np.float32(coefficients[i]), gram[support[i], start:stop]
        a1, g1 = np.float32(coefficients[i + 1]), gram[support[i + 1], start:stop]
        a2, g2 = np.float32(coefficients[i + 2]), gram[support[i + 2], start:stop]
        a3, g3 = np.float32(coefficients[i + 3]), gram[support[i + 3], start:stop]
        for j in range(width):
            p[j] -= (a0 * g0[j] + a1 * g1[j]) + (a2 * g2[j] + a3 * g3[j])
    for i in range(quads, size):
        a0, g0 = np.float32(coefficients[i]), gram[support[i], start:stop]
        for j in range(width):
            p[j] -= a0 * g0[j]


@njit(cache=True, nogil=True)
def _peak(bits, mask):  # type: ignore[no-untyped-def]
    """Return the largest of the masked bits, at least 0."""
    peak = np.int32(0)
    for j in range(len(bits)):
        peak = max(peak, bits[j] & mask)
    return peak


@njit(cache=True, nogil=True)
def _first(bits, mask, peak):  # type: ignore[no-untyped-def]
    """Return where the peak stands first."""
    for j in range(len(bits)):
        if bits[j] & mask == peak:
            return j
    return 0


@njit(cache=True, error_model="numpy", nogil=True)
def _strongest(p0, gram, support, coefficients, size, p, mask):  # type: ignore[no-untyped-def]
    """Update the correlations p and return (strongest atom outside the support, its magnitude), (-1, 0) for none.

    Floats of one sign are ordered as their bits are, and integers have a fast maximum: `_SIGNED` masks the sign,
    `_POSITIVE` leaves it, so that negative correlations are negative integers.
    """
    m = len(p0)
    bits = p.view(np.int32)
    best, where = np.int32(0), -1
    for start in range(0, m, _BLOCK):
        stop = min(start + _BLOCK, m)
        _subtract(start, stop, p0, gram, support, coefficients, size, p)
        for i in range(size):
            if start <= support[i] < stop:
                p[support[i]] = 0
        peak = _peak(bits[start:stop], mask)
        if peak > best:
            best, where = peak, start
    if where < 0:
        return -1, np.float32(0)
    atom = where + _first(bits[where : min(where + _BLOCK, m)], mask, best)
    return atom, abs(p[atom])


@njit(cache=True, error_model="numpy", nogil=True)
def _join(gram, support, size, atom, factor, column):  # type: ignore[no-untyped-def]
    """Append the atom's row to the factor; False when the atom depends on the support."""
    rest = np.float64(gram[atom, atom])
    least = _DEPENDENT * rest
    for i in range(size):
        column[i] = gram[atom, support[i]]
    for j in range(size):
        factor[size, j] = 0
    for i in range(size):
        along = 0.0
        for j in range(i + 1):
            along += factor[i, j] * column[j]
        rest -= along * along
        for j in range(i + 1):
            factor[size, j] -= along * factor[i, j]
    if not rest > least:
        return False
    scale = 1 / np.sqrt(rest)
    for j in range(size):
        factor[size, j] *= scale
    factor[size, size] = scale
    support[size] = atom
    return True


@njit(cache=True, error_model="numpy", nogil=True)
def _add_direction(p0, support, size, factor, coefficients):  # type: ignore[no-untyped-def]
    """Add to the coefficients what the last row of the factor contributes: (T_row . p0_S) T_row."""
    last = size - 1
    along = 0.0
    for j in range(size):
        along += factor[last, j] * p0[support[j]]
    coefficients[last] = 0
    for j in range(size):
        coefficients[j] += along * factor[last, j]


@njit(cache=True, error_model="numpy", nogil=True)
def _pursue_signed(p0, gram, k, p, support, coefficients, factor, column):  # type: ignore[no-untyped-def]
    """Orthogonal matching pursuit; return the size of the support."""
    size, first = 0, np.float32(0)
    while size < k:
        atom, strength = _strongest(p0, gram, support, coefficients, size, p, _SIGNED)
        first = max(first, strength)
        if atom < 0 or strength <= _STOP * first or not _join(gram, support, size, atom, factor, column):
            break
        size += 1
        _add_direction(p0, support, size, factor, coefficients)
    return size


@njit(cache=True, error_model="numpy", nogil=True)
def _drop(support, coefficients, target, size, gram, p0, factor, column):  # type: ignore[no-untyped-def]
    """Move from feasible coefficients towards the target until one reaches 0, drop it, solve for the rest.

    The one that reaches 0 first is dropped by its place, not by its value, which rounding can leave above 0: so every
    call shrinks the support. The target becomes the least-squares solution on what is left; returns its size.
    """
    step, blocking = np.inf, -1
    for i in range(size):
        if target[i] <= 0:
            reach = coefficients[i] / (coefficients[i] - target[i]) if coefficients[i] > 0 else 0.0
            if reach < step:
                step, blocking = reach, i
    kept = 0
    for i in range(size):
        moved = coefficients[i] + step * (target[i] - coefficients[i])
        if i != blocking and moved > 0:
            support[kept], coefficients[kept] = support[i], moved
            kept += 1
    solved = 0
    for i in range(kept):
        atom = support[i]
        if _join(gram, support, solved, atom, factor, column):
            coefficients[solved] = coefficients[i]
            solved += 1
            _add_direction(p0, support, solved, factor, target)
    return solved


@njit(cache=True, error_model="numpy", nogil=True)
def _pursue_positive(p0, gram, k, p, support, coefficients, target, factor, column):  # type: ignore[no-untyped-def]
    """Non-negative pursuit: the active-set method of Lawson and Hanson (1974), ended at k atoms; return the size.

    The atom of the largest positive correlation joins, then the coefficients become the non-negative least-squares
    solution on the support, which may drop atoms. All stay positive, and the squared error falls with every atom.
    """
    size, first = 0, np.float32(0)
    for _ in range(_EXCHANGES * k):
        if size == k:
            break
        atom, strength = _strongest(p0, gram, support, coefficients, size, p, _POSITIVE)
        first = max(first, strength)
        if atom < 0 or strength <= _STOP * first or not _join(gram, support, size, atom, factor, column):
            break
        coefficients[size] = 0
        for i in range(size):
            target[i] = coefficients[i]
        size += 1
        _add_direction(p0, support, size, factor, target)
        while size > 0 and target[:size].min() <= 0:
            size = _drop(support, coefficients, target, size, gram, p0, factor, column)
        for i in range(size):
            coefficients[i] = target[i]
    return size


@njit(cache=True, error_model="numpy", nogil=True)
def pursue(begin, end, correlations, gram, k, signed, indices, values):  # type: ignore[no-untyped-def]
    """Write atoms and coefficients of the signals begin..end in the order of selection; spare slots get -1 and 0.

    Shapes: correlations (n, m), gram (m, m), indices int32 and values float32 (n, k); k <= m.
    """
    p = np.empty(correlations.shape[1], np.float32)
    support = np.empty(k, np.int64)
    coefficients, target, column = np.zeros(k), np.zeros(k), np.zeros(k)
    factor = np.zeros((k, k))
    for t in range(begin, end):
        if signed:
            size = _pursue_signed(correlations[t], gram, k, p, support, coefficients, factor, column)
        else:
            size = _pursue_positive(correlations[t], gram, k, p, support, coefficients, target, factor, column)
        for i in range(k):
            indices[t, i] = support[i] if i < size else -1
            values[t, i] = coefficients[i] if i < size else 0


@njit(cache=True, parallel=True)
def parallel_pursue(parts, correlations, gram, k, signed, indices, values):  # type: ignore[no-untyped-def]
    """Run `pursue` over all signals in `parts` ranges."""
    n = len(correlations)
    for i in prange(parts):
        pursue(i * n // parts, (i + 1) * n // parts, correlations, gram, k, signed, indices, values)
