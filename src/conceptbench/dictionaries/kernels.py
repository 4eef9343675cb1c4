"""Compiled loops of the sparse step on a CPU. Shapes: B tokens, S slots per token, d features, m latents.

A slot is one latent that may fire on one token; slots with a value <= 0 do not fire and carry no gradient. The loops
over tokens or latents take a range, which one thread runs; the `parallel_` forms share them out. Every sum is taken by
one thread in a fixed order, so results do not depend on the number of threads.
"""

import numpy as np
from numba import njit, prange

_ORDER_FREE = {"reassoc", "contract", "nsz", "arcp"}
"""Licences that let a sum over features be vectorised; NaN and infinity keep their meaning."""


@njit(cache=True, fastmath=_ORDER_FREE, error_model="numpy", nogil=True)
def residuals(begin, end, target, latents, values, atoms, residual, value_gradients):  # type: ignore[no-untyped-def]
    """Write residual = target - sum over slots of value * atom, and value_gradients = -residual . atom.

    Shapes: target, residual (B, d); latents, values, value_gradients (B, S); atoms (m, d). The gradient is that of
    half the squared residual.
    """
    slots, d = latents.shape[1], target.shape[1]
    for t in range(begin, end):
        for f in range(d):
            residual[t, f] = target[t, f]
        for s in range(slots):
            value = values[t, s]
            if value > 0:
                atom = atoms[latents[t, s]]
                for f in range(d):
                    residual[t, f] -= value * atom[f]
        for s in range(slots):
            total = np.float32(0)
            if values[t, s] > 0:
                atom = atoms[latents[t, s]]
                for f in range(d):
                    total -= residual[t, f] * atom[f]
            value_gradients[t, s] = total


@njit(cache=True, parallel=True)
def parallel_residuals(parts, target, latents, values, atoms, residual, value_gradients):  # type: ignore[no-untyped-def]
    """Run `residuals` over all tokens in `parts` ranges."""
    n = len(target)
    for i in prange(parts):
        residuals(i * n // parts, (i + 1) * n // parts, target, latents, values, atoms, residual, value_gradients)


@njit(cache=True)
def group_by_latent(rows, latents, values, value_gradients, weights, tokens, width):  # type: ignore[no-untyped-def]
    """Sort the firing slots by latent, keeping their order (a counting sort), and weight them.

    Takes flat arrays of equal length, where row r belongs to loss part r // tokens. Returns (start (m + 1), rows,
    weighted values, weighted value gradients, their sum per latent (m): the gradient of the encoder bias).
    """
    start = np.zeros(width + 1, np.int64)
    for e in range(len(latents)):
        if values[e] > 0:
            start[latents[e] + 1] += 1
    for j in range(width):
        start[j + 1] += start[j]
    filled = start[:-1].copy()
    fired = start[width]
    row = np.empty(fired, np.int32)
    value = np.empty(fired, np.float32)
    gradient = np.empty(fired, np.float32)
    bias_gradient = np.zeros(width, np.float32)
    for e in range(len(latents)):
        if values[e] > 0:
            j = latents[e]
            p = filled[j]
            filled[j] += 1
            weight = weights[rows[e] // tokens]
            row[p], value[p], gradient[p] = rows[e], weight * values[e], weight * value_gradients[e]
            bias_gradient[j] += gradient[p]
    return start, row, value, gradient, bias_gradient


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
def update_rows(begin, end, slots, inputs, residual, parameters, moments, rates):  # type: ignore[no-untyped-def]
    """One pass over the latents: gradients of atom and encoder row, projection, Adam, unit norm.

    `slots` is what `group_by_latent` returns: row r of `residual` (P B, d) belongs to token r mod B of `inputs` (B, d).
    `parameters`: atoms (m, d), encoder (m, d), encoder bias (m); `moments`: (2, m, d), (2, m, d), (2, m). `rates` are
    those of `_adam`.
    """
    start, rows, values, value_gradients, bias_gradient = slots
    atoms, encoder, bias = parameters
    atom_moments, encoder_moments, bias_moments = moments
    tokens, d = inputs.shape
    to_atom, to_encoder = np.empty(d, np.float32), np.empty(d, np.float32)
    for j in range(begin, end):
        to_atom[:] = 0
        to_encoder[:] = 0
        for p in range(start[j], start[j + 1]):
            source, error = inputs[rows[p] % tokens], residual[rows[p]]
            value, gradient = values[p], value_gradients[p]
            for f in range(d):
                to_atom[f] -= value * error[f]
                to_encoder[f] += gradient * source[f]
        radial = np.float32(0)
        for f in range(d):
            radial += to_atom[f] * atoms[j, f]
        squares = np.float32(0)
        for f in range(d):
            atoms[j, f], atom_moments[0, j, f], atom_moments[1, j, f] = _adam(
                atoms[j, f], to_atom[f] - radial * atoms[j, f], atom_moments[0, j, f], atom_moments[1, j, f], rates
            )
            encoder[j, f], encoder_moments[0, j, f], encoder_moments[1, j, f] = _adam(
                encoder[j, f], to_encoder[f], encoder_moments[0, j, f], encoder_moments[1, j, f], rates
            )
            squares += atoms[j, f] * atoms[j, f]
        shrink = np.float32(1) / np.sqrt(squares)
        for f in range(d):
            atoms[j, f] *= shrink
        bias[j], bias_moments[0, j], bias_moments[1, j] = _adam(
            bias[j], bias_gradient[j], bias_moments[0, j], bias_moments[1, j], rates
        )


@njit(cache=True, parallel=True)
def parallel_update_rows(parts, slots, inputs, residual, parameters, moments, rates):  # type: ignore[no-untyped-def]
    """Run `update_rows` over all latents in `parts` ranges."""
    n = len(parameters[0])
    for i in prange(parts):
        update_rows(i * n // parts, (i + 1) * n // parts, slots, inputs, residual, parameters, moments, rates)
