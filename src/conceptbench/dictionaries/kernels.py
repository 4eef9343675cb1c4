"""Compiled loops of the sparse step on a CPU. Shapes: B tokens, F firings, d features, m latents.

Firings are the entries of a `Support`: those of token t are `start[t]:start[t + 1]`. The loops over tokens or latents
take a range, which one thread runs; the `parallel_` forms share them out over the threads that torch uses too (those of
another pool would wait for torch's, which keep spinning after a product). Every sum is taken by one thread in a fixed
order, so results do not depend on the number of threads.
"""

import numpy as np
from numba import njit, prange

_ORDER_FREE = {"reassoc", "contract", "nsz", "arcp"}
"""Licences that let a sum over features be vectorised; NaN and infinity keep their meaning."""


@njit(cache=True, fastmath=_ORDER_FREE, error_model="numpy", nogil=True)
def residuals(begin, end, target, start, latents, values, atoms, weights, residual, gradients, squares):  # type: ignore[no-untyped-def]
    """Write residual = target - sum over firings of value * atom, its squares, and the gradients of the values.

    Shapes: target, residual (B, d); start (B + 1); latents, values, gradients (F); atoms (m, d); weights, squares (B).
    For the loss sum_t weights[t] / 2 * squares[t] the gradient of a value is -weights[t] * residual[t] . atom.
    """
    d = target.shape[1]
    for t in range(begin, end):
        for f in range(d):
            residual[t, f] = target[t, f]
        for e in range(start[t], start[t + 1]):
            value, atom = values[e], atoms[latents[e]]
            for f in range(d):
                residual[t, f] -= value * atom[f]
        total = np.float32(0)
        for f in range(d):
            total += residual[t, f] * residual[t, f]
        squares[t] = total
        weight = weights[t]
        for e in range(start[t], start[t + 1]):
            along = np.float32(0)
            atom = atoms[latents[e]]
            for f in range(d):
                along += residual[t, f] * atom[f]
            gradients[e] = -weight * along


@njit(cache=True, nogil=True)
def count_latents(latents, counts):  # type: ignore[no-untyped-def]
    """Add to `counts` (m + 1) how often each latent occurs, one place to the right."""
    for e in range(len(latents)):
        counts[latents[e] + 1] += 1


@njit(cache=True, nogil=True)
def place_by_latent(start, latents, values, gradients, rows, weights, first_row, filled, sorted_entries, bias_gradient):  # type: ignore[no-untyped-def]
    """Append the firings of one loss part to the places of their latents (the second half of a counting sort).

    `rows` (F) are the rows of the residual that the firings explain; when it is empty they are the tokens. `filled` (m)
    is the next free place of each latent. `sorted_entries`: input row, residual row (offset by `first_row`), weighted
    value, gradient of the value; `bias_gradient` (m) sums the last.
    """
    inputs, errors, coefficients, value_gradients = sorted_entries
    by_token = len(rows) == 0
    for t in range(len(start) - 1):
        for e in range(start[t], start[t + 1]):
            j = latents[e]
            p = filled[j]
            filled[j] += 1
            row = t if by_token else rows[e]
            inputs[p], errors[p] = t, first_row + row
            coefficients[p], value_gradients[p] = weights[row] * values[e], gradients[e]
            bias_gradient[j] += gradients[e]


@njit(cache=True, inline="always", error_model="numpy")
def _adam(parameter, gradient, first, second, rates):  # type: ignore[no-untyped-def]
    """Return (parameter, first moment, second moment) after one step of Adam.

    `rates`: lr / (1 - beta1^t), beta1, beta2, sqrt(1 - beta2^t), epsilon, all float32.
    """
    rate, beta1, beta2, root2, epsilon = rates
    first = beta1 * first + (np.float32(1) - beta1) * gradient
    second = beta2 * second + (np.float32(1) - beta2) * gradient * gradient
    return parameter - rate * first / (np.sqrt(second) / root2 + epsilon), first, second


@njit(cache=True, fastmath=_ORDER_FREE, error_model="numpy", nogil=True)
def _round_row(j, rows, bits, rounded, norms, values, back):  # type: ignore[no-untyped-def]
    """Round row j; `bits` are those of `rows`, `values` (d) and `back` (d) one scratch row as integers and floats."""
    d = rows.shape[1]
    for f in range(d):
        raw = bits[j, f]
        high = (raw + np.int32(0x7FFF) + ((raw >> 16) & np.int32(1))) >> 16
        rounded[j, f] = high
        values[f] = high << 16
    kept, lost = np.float32(0), np.float32(0)
    for f in range(d):
        gap = rows[j, f] - back[f]
        kept += back[f] * back[f]
        lost += gap * gap
    norms[0, j], norms[1, j] = np.sqrt(kept), np.sqrt(lost)


@njit(cache=True, nogil=True)
def round_rows(begin, end, rows, rounded, norms):  # type: ignore[no-untyped-def]
    """Round float32 rows (r, d) to bfloat16 bits (r, d, int16), to nearest with ties to even.

    `norms` (2, r) gets the norm of each rounded row and the norm of what rounding took away.
    """
    values = np.empty(rows.shape[1], np.int32)
    for j in range(begin, end):
        _round_row(j, rows, rows.view(np.int32), rounded, norms, values, values.view(np.float32))


@njit(cache=True, fastmath=_ORDER_FREE, error_model="numpy", nogil=True)
def update_rows(begin, end, entries, inputs, residual, extra, parameters, moments, rounded, norms, rates):  # type: ignore[no-untyped-def]
    """One pass over the latents: gradients of atom and encoder row, projection, Adam, unit norm, rounded copy.

    `entries`: start (m + 1), then the four arrays of `place_by_latent`, then the gradient of the encoder bias (m).
    `inputs` (B, d), `residual` (R, d); `extra`: for each latent a row of gradients to be added or -1 (m), and these
    gradients of atoms and encoder rows (n, d). `parameters`: atoms (m, d), encoder (m, d), encoder bias (m); `moments`:
    (2, m, d), (2, m, d), (2, m); `rounded` (m or 0, d) and `norms` as in `round_rows`, skipped when empty. `rates` are
    those of `_adam`. Latents without firings are updated too, as dense Adam does.
    """
    start, rows, errors, values, value_gradients, bias_gradient = entries
    atoms, encoder, bias = parameters
    atom_moments, encoder_moments, bias_moments = moments
    added, atom_gradients, encoder_gradients = extra
    d = inputs.shape[1]
    to_atom, to_encoder, values_of_row = np.empty(d, np.float32), np.empty(d, np.float32), np.empty(d, np.int32)
    for j in range(begin, end):
        for f in range(d):
            to_atom[f] = to_encoder[f] = 0
        for p in range(start[j], start[j + 1]):
            source, error = inputs[rows[p]], residual[errors[p]]
            value, gradient = values[p], value_gradients[p]
            for f in range(d):
                to_atom[f] -= value * error[f]
                to_encoder[f] += gradient * source[f]
        if added[j] >= 0:
            for f in range(d):
                to_atom[f] += atom_gradients[added[j], f]
                to_encoder[f] += encoder_gradients[added[j], f]
        radial = np.float32(0)
        for f in range(d):
            radial += to_atom[f] * atoms[j, f]
        squares = np.float32(0)
        for f in range(d):
            atoms[j, f], atom_moments[0, j, f], atom_moments[1, j, f] = _adam(
                atoms[j, f], to_atom[f] - radial * atoms[j, f], atom_moments[0, j, f], atom_moments[1, j, f], rates
            )
            squares += atoms[j, f] * atoms[j, f]
        shrink = np.float32(1) / np.sqrt(squares)
        for f in range(d):
            atoms[j, f] *= shrink
        for f in range(d):
            encoder[j, f], encoder_moments[0, j, f], encoder_moments[1, j, f] = _adam(
                encoder[j, f], to_encoder[f], encoder_moments[0, j, f], encoder_moments[1, j, f], rates
            )
        bias[j], bias_moments[0, j], bias_moments[1, j] = _adam(
            bias[j], bias_gradient[j], bias_moments[0, j], bias_moments[1, j], rates
        )
        if len(rounded):
            _round_row(
                j, encoder, encoder.view(np.int32), rounded, norms, values_of_row, values_of_row.view(np.float32)
            )


@njit(cache=True, fastmath=_ORDER_FREE, error_model="numpy", nogil=True)
def centre_rows(begin, end, height, x, centre, centred, squares, sums):  # type: ignore[no-untyped-def]
    """Write x - centre (B, d) and its squared norms (B); range i of `height` tokens adds up to row i of `sums`.

    The loop runs over ranges; `sums` (ranges, d) is float64.
    """
    d = x.shape[1]
    partial = np.empty(d, np.float32)
    for i in range(begin, end):
        for f in range(d):
            partial[f] = 0
        for t in range(i * height, min(len(x), (i + 1) * height)):
            total = np.float32(0)
            for f in range(d):
                value = x[t, f] - centre[f]
                centred[t, f] = value
                partial[f] += value
                total += value * value
            squares[t] = total
        for f in range(d):
            sums[i, f] = partial[f]


@njit(cache=True, parallel=True)
def parallel_residuals(parts, target, start, latents, values, atoms, weights, residual, gradients, squares):  # type: ignore[no-untyped-def]
    """Run `residuals` over all tokens in `parts` ranges."""
    n = len(target)
    for i in prange(parts):
        residuals(
            i * n // parts, (i + 1) * n // parts,
            target, start, latents, values, atoms, weights, residual, gradients, squares,
        )  # fmt: skip


@njit(cache=True, parallel=True)
def parallel_update_rows(parts, entries, inputs, residual, extra, parameters, moments, rounded, norms, rates):  # type: ignore[no-untyped-def]
    """Run `update_rows` over all latents in `parts` ranges."""
    n = len(parameters[0])
    for i in prange(parts):
        update_rows(
            i * n // parts, (i + 1) * n // parts,
            entries, inputs, residual, extra, parameters, moments, rounded, norms, rates,
        )  # fmt: skip
