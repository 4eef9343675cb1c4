"""Triton kernels of the sparse step on a GPU. Shapes: B tokens, s slots of a token, d features, m latents, N firings.

One program owns a token or a latent, so every sum is taken by one program in a fixed order: there are no atomic
additions, and two runs give the same bits. A program holds whole rows, padded to FEATURES, the least power of 2 that
holds d, and reads CHUNK of them at once, because one after the other would wait for memory each time.

Arrays are contiguous and float32, numbers of rows int64. With TRITON_INTERPRET=1 when this module is imported, Triton
runs the kernels on tensors of the CPU.
"""

import triton
import triton.language as tl


@triton.jit  # type: ignore[untyped-decorator]
def _slots_of(token, first, latents, values, atoms, d, slots, FEATURES: tl.constexpr, CHUNK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Return (values, atoms) of the slots of a token from `first` on; one that does not fire has an atom of 0."""
    slot, feature = first + tl.arange(0, CHUNK), tl.arange(0, FEATURES)
    value = tl.load(values + token * slots + slot, mask=slot < slots, other=0.0)
    latent = tl.load(latents + token * slots + slot, mask=slot < slots, other=0)
    fires = (value > 0)[:, None] & (feature < d)[None, :]
    return value, tl.load(atoms + latent[:, None] * d + feature[None, :], mask=fires, other=0.0)


@triton.jit  # type: ignore[untyped-decorator]
def explain_tokens(  # type: ignore[no-untyped-def]
    target, latents, values, atoms, weight, residual, squares, gradients, d, slots,
    FEATURES: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Write residual = target - sum over slots of value * atom, its squares, and the gradients of the values.

    Shapes: target, residual (B, d); latents, values, gradients (B, s); atoms (m, d); weight (1); squares (B). For the
    loss weight / 2 * sum of squares the gradient of a value is -weight * residual . atom, and that of a value 0, which
    does not fire, is 0; a value NaN makes the residual NaN. One program a token.
    """
    token, feature = tl.program_id(0).to(tl.int64), tl.arange(0, FEATURES)
    inside = feature < d
    rest = tl.load(target + token * d + feature, mask=inside, other=0.0)
    for first in range(0, slots, CHUNK):
        value, atom = _slots_of(token, first, latents, values, atoms, d, slots, FEATURES, CHUNK)
        rest -= tl.sum(value[:, None] * atom, 0)
    tl.store(residual + token * d + feature, rest, mask=inside)
    tl.store(squares + token, tl.sum(rest * rest, 0))
    scale = tl.load(weight)
    for first in range(0, slots, CHUNK):
        _, atom = _slots_of(token, first, latents, values, atoms, d, slots, FEATURES, CHUNK)
        slot = first + tl.arange(0, CHUNK)
        tl.store(gradients + token * slots + slot, -scale * tl.sum(rest[None, :] * atom, 1), mask=slot < slots)


@triton.jit  # type: ignore[untyped-decorator]
def sum_firings(start, gradients, sums, CHUNK: tl.constexpr):  # type: ignore[no-untyped-def]
    """Write the sums (m) of the gradients (N) between start[j] and start[j + 1] (m + 1). One program a latent."""
    latent = tl.program_id(0).to(tl.int64)
    begin, end = tl.load(start + latent), tl.load(start + latent + 1)
    parts = tl.full([CHUNK], 0, tl.float32)
    for first in range(begin, end, CHUNK):
        place = first + tl.arange(0, CHUNK)
        parts += tl.load(gradients + place, mask=place < end, other=0.0)
    tl.store(sums + latent, tl.sum(parts, 0))


@triton.jit
def _moved(parameter, moments, place, inside, size, gradient, rate, beta1, beta2, root2, epsilon):  # type: ignore[no-untyped-def]
    """Return the parameters (size) at some places after one step of Adam, whose moments (2, size) are written.

    The rates are those of `kernels.update_rows`.
    """
    first = beta1 * tl.load(moments + place, mask=inside, other=0.0) + (1 - beta1) * gradient
    second = beta2 * tl.load(moments + size + place, mask=inside, other=0.0) + (1 - beta2) * gradient * gradient
    tl.store(moments + place, first, mask=inside)
    tl.store(moments + size + place, second, mask=inside)
    return tl.load(parameter + place, mask=inside, other=0.0) - rate * first / (tl.sqrt(second) / root2 + epsilon)


@triton.jit  # type: ignore[untyped-decorator]
def update_latents(  # type: ignore[no-untyped-def]
    start, rows, coefficients, gradients, sums, inputs, residuals, atoms, encoder, bias,
    atom_moments, encoder_moments, bias_moments, rate, beta1, beta2, root2, epsilon, tokens, d,
    FEATURES: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """One pass over the latents: gradients of atom and encoder row, projection, Adam and unit norm, in place.

    The firings of latent j are those from start[j] to start[j + 1] (m + 1): the row of `residuals` (R, d) that they
    explain, their weighted value and the gradient of the value (N each). Row r is of token r modulo `tokens`, whose
    row of `inputs` (B, d) gives the gradient of the encoder row. `sums` (m) is the gradient of the encoder bias.
    Atoms and encoder (m, d), bias (m), moments (2, m, d), (2, m, d), (2, m). One program a latent; one that did not
    fire is updated too, as dense Adam does.
    """
    latent, width = tl.program_id(0).to(tl.int64), tl.num_programs(0).to(tl.int64)
    feature = tl.arange(0, FEATURES)
    inside = feature < d
    begin, end = tl.load(start + latent), tl.load(start + latent + 1)
    to_atom, to_encoder = tl.full([FEATURES], 0, tl.float32), tl.full([FEATURES], 0, tl.float32)
    for first in range(begin, end, CHUNK):
        place = first + tl.arange(0, CHUNK)
        there = place < end
        row = tl.load(rows + place, mask=there, other=0)
        coefficient = tl.load(coefficients + place, mask=there, other=0.0)
        gradient = tl.load(gradients + place, mask=there, other=0.0)
        tile = there[:, None] & inside[None, :]
        error = tl.load(residuals + row[:, None] * d + feature[None, :], mask=tile, other=0.0)
        source = tl.load(inputs + (row % tokens)[:, None] * d + feature[None, :], mask=tile, other=0.0)
        to_atom -= tl.sum(coefficient[:, None] * error, 0)
        to_encoder += tl.sum(gradient[:, None] * source, 0)
    here, size = latent * d + feature, width * d
    atom = tl.load(atoms + here, mask=inside, other=0.0)
    to_atom -= tl.sum(to_atom * atom, 0) * atom
    atom = _moved(atoms, atom_moments, here, inside, size, to_atom, rate, beta1, beta2, root2, epsilon)
    tl.store(atoms + here, atom / tl.sqrt(tl.sum(atom * atom, 0)), mask=inside)
    row = _moved(encoder, encoder_moments, here, inside, size, to_encoder, rate, beta1, beta2, root2, epsilon)
    tl.store(encoder + here, row, mask=inside)
    present = latent < width
    offset = _moved(
        bias, bias_moments, latent, present, width, tl.load(sums + latent), rate, beta1, beta2, root2, epsilon
    )
    tl.store(bias + latent, offset)
