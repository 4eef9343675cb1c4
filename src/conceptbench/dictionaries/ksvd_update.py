"""The dictionary update of K-SVD: each atom becomes the best rank-one fit of what the others leave to its users.

Shapes: n signals, m atoms, d features, k slots per signal. The residual E = y - codes atoms is kept up to date, and for
an atom only the rows of its users are read and written: 2 n k d multiplications a pass, where the error matrix of every
atom would take k times as many (Aharon, Elad and Bruckstein 2006; Rubinstein, Zibulevsky and Elad 2008).

Atoms are updated in blocks. Inside a block all start from the same residual (Jacobi) and run in parallel; blocks follow
each other (Gauss-Seidel). Atoms join a block only if they share few users with it, so that the two hardly differ;
blocks of one atom are the serial K-SVD. Blocks do not depend on the number of threads, and neither do the results.
"""

from dataclasses import dataclass
from typing import Final

import numba
import numpy as np
from jaxtyping import Float32, Int32, Int64
from numba import njit, prange

from conceptbench.dictionaries.rules import Sign
from conceptbench.dictionaries.threads import ranges, share_threads

SHARED_USERS: Final = 0.1
"""An atom may join a block when at most this share of its users are users of the block."""
LOOK_AHEAD: Final = 4
"""Atoms that are tried for a block, in multiples of its size."""
FEW_USERS = 64
"""Atoms with at most so many users alternate on their Gram matrix, d / users times as often at a like price."""
_STILL = np.float32(1e-6)
"""They stop when the squared norm of the coefficients grows by less than this share."""
_ORDER_FREE = {"reassoc", "contract", "nsz", "arcp"}


@dataclass(frozen=True, eq=False)
class Update:
    """What a sweep over all atoms made of a chunk."""

    atoms: Float32[np.ndarray, "atom feature"]
    values: Float32[np.ndarray, "signal slot"]
    """Coefficients of the new atoms, on the old support."""
    users: Int64[np.ndarray, "atom"]
    """Signals in whose support the atom is."""
    before: float
    """Squared error of the chunk with the old atoms and values."""
    after: float
    errors: Float32[np.ndarray, "signal"]
    """Squared error of each signal with the new ones."""


def update_dictionary(
    y: Float32[np.ndarray, "signal feature"],
    atoms: Float32[np.ndarray, "atom feature"],
    indices: Int32[np.ndarray, "signal slot"],
    values: Float32[np.ndarray, "signal slot"],
    *,
    rng: np.random.Generator,
    sign: Sign = "split",
    block_size: int | None = None,
    power_steps: int = 3,
) -> Update:
    """Update every atom that has users, and their coefficients, once; the support stays.

    An atom u and coefficients x of its users alternate: u along F' x, of norm 1, then x = F u (`positive`: its positive
    part), with F the residual of the users without the atom. These are power steps for the top singular pair of F,
    started from the present coefficients, so that an atom keeps its sign; none of them raises the squared error.
    With few users they cost little, and go on until nothing moves, or nearly (`FEW_USERS`).

    Args:
        y: the signals of the chunk.
        atoms: unit rows.
        indices: support, -1 in spare slots.
        values: coefficients on it.
        rng: order of the atoms.
        sign: whether coefficients may be negative.
        block_size: atoms updated in parallel, at most; 1 is the serial form, None is `default_block_size`.
        power_steps: alternations of an atom with many users.
    """
    n, k = indices.shape
    m = len(atoms)
    atoms, values = atoms.copy(), np.ascontiguousarray(values).copy()
    residual, errors = np.empty_like(y, np.float32), np.empty(n, np.float32)
    share_threads()
    parts = ranges()
    _residuals(parts, y, atoms, indices, values, residual, errors)
    before = float(errors.sum(dtype=np.float64))
    start, entries = group_by_atom(indices.ravel(), m)
    size = default_block_size(m, k) if block_size is None else block_size
    order = rng.permutation(m)
    chosen, bounds = colour(order, start, entries, k, n, size, SHARED_USERS)
    flat, positive = values.ravel(), sign == "positive"
    if parts > 1:
        with numba.parallel_chunksize(1):
            _parallel_sweep(parts, chosen, bounds, start, entries, residual, atoms, flat, power_steps, positive)
    else:
        _sweep(chosen, bounds, start, entries, residual, atoms, flat, power_steps, positive)
    _squared_norms(residual, errors)
    return Update(atoms, values, np.diff(start), before, float(errors.sum(dtype=np.float64)), errors)


def default_block_size(width: int, k: int) -> int:
    """Return the number of atoms of which a signal with k of `width` has a quarter of one, on average; at most 64."""
    return int(np.clip(width // (4 * k), 1, 64))


@njit(cache=True, fastmath=_ORDER_FREE, error_model="numpy", nogil=True)
def _dot(left, right):  # type: ignore[no-untyped-def]
    """Inner product of two rows."""
    total = np.float32(0)
    for f in range(len(left)):
        total += left[f] * right[f]
    return total


@njit(cache=True, fastmath=_ORDER_FREE, error_model="numpy", nogil=True)
def _residual_rows(begin, end, y, atoms, indices, values, residual, errors):  # type: ignore[no-untyped-def]
    """Write the residual of the signals begin..end and its squared norm."""
    d = y.shape[1]
    for t in range(begin, end):
        row = residual[t]
        for f in range(d):
            row[f] = y[t, f]
        for s in range(indices.shape[1]):
            if indices[t, s] >= 0:
                value, atom = values[t, s], atoms[indices[t, s]]
                for f in range(d):
                    row[f] -= value * atom[f]
        errors[t] = _dot(row, row)


@njit(cache=True, nogil=True)
def _squared_norms(rows, squares):  # type: ignore[no-untyped-def]
    """Write the squared norm of each row."""
    for t in range(len(rows)):
        squares[t] = _dot(rows[t], rows[t])


@njit(cache=True, parallel=True)
def _parallel_residuals(parts, y, atoms, indices, values, residual, errors):  # type: ignore[no-untyped-def]
    """Run `_residual_rows` over all signals in `parts` ranges."""
    n = len(y)
    for i in prange(parts):
        _residual_rows(i * n // parts, (i + 1) * n // parts, y, atoms, indices, values, residual, errors)


def _residuals(parts: int, y: np.ndarray, *arrays: np.ndarray) -> None:
    if parts > 1:
        _parallel_residuals(parts, y, *arrays)
    else:
        _residual_rows(0, len(y), y, *arrays)


@njit(cache=True)
def group_by_atom(indices, m):  # type: ignore[no-untyped-def]
    """Return (start (m + 1), entries): entries[start[j]:start[j + 1]] are the flat slots of atom j, ascending."""
    start = np.zeros(m + 1, np.int64)
    for atom in indices:
        if atom >= 0:
            start[atom + 1] += 1
    for j in range(m):
        start[j + 1] += start[j]
    filled = start[:-1].copy()
    entries = np.empty(start[m], np.int64)
    for e in range(len(indices)):
        atom = indices[e]
        if atom >= 0:
            entries[filled[atom]] = e
            filled[atom] += 1
    return start, entries


@njit(cache=True)
def colour(order, start, entries, k, n, size, share):  # type: ignore[no-untyped-def]
    """Return (atoms that have users, block by block; bounds of the blocks), greedily in the given order.

    A block takes the next atom; then, of those that follow, up to `size` that share at most `share` of their users with
    the atoms before them in the block.
    """
    pending = np.array([j for j in order if start[j + 1] > start[j]], np.int64)
    chosen, bounds = np.empty(len(pending), np.int64), [0]
    marked = np.full(n, -1, np.int64)
    taken, left = 0, len(pending)
    while left > 0:
        first, kept, tried = taken, 0, 0
        while tried < left and taken - first < size and tried < LOOK_AHEAD * size:
            atom = pending[tried]
            tried += 1
            users = entries[start[atom] : start[atom + 1]]
            shared = 0
            for e in users:
                shared += marked[e // k] == len(bounds)
            if taken > first and shared > share * len(users):
                pending[kept] = atom
                kept += 1
                continue
            for e in users:
                marked[e // k] = len(bounds)
            chosen[taken] = atom
            taken += 1
        for i in range(tried, left):
            pending[kept + i - tried] = pending[i]
        left = kept + left - tried
        bounds.append(taken)
    return chosen, np.array(bounds)


@njit(cache=True, error_model="numpy", nogil=True)
def _rank_one(users, k, residual, atom, values, steps, positive, new_atom, new_values):  # type: ignore[no-untyped-def]
    """Alternate the atom and the coefficients of its users; see `update_dictionary`.

    With F = E + x d' (present atom d and coefficients x): F' v = E' v + (x . v) d and F u = E u + (d . u) x.
    """
    for f in range(len(atom)):
        new_atom[f] = atom[f]
    for i in range(len(users)):
        new_values[i] = values[users[i]]
    if len(users) <= FEW_USERS:
        more = steps * max(1, len(atom) // len(users))
        _alternate_users(users, k, residual, atom, values, more, positive, new_atom, new_values)
    else:
        _alternate_rows(users, k, residual, atom, values, steps, positive, new_atom, new_values)


@njit(cache=True, fastmath=_ORDER_FREE, error_model="numpy", nogil=True)
def _alternate_rows(  # type: ignore[no-untyped-def]
    users, k, residual, atom, values, steps, positive, new_atom, new_values
):
    """Alternate by passes over the rows of the users: 2 |users| d multiplications each."""
    d = len(atom)
    along = np.empty(d, np.float32)
    for step in range(steps + 1):
        overlap, together = np.float32(0), np.float32(0)
        for f in range(d):
            overlap += atom[f] * new_atom[f]
            along[f] = 0
        for i in range(len(users)):
            row, present = residual[users[i] // k], values[users[i]]
            if step > 0:
                value = overlap * present + _dot(row, new_atom)
                new_values[i] = max(value, np.float32(0)) if positive else value
            if step < steps:
                together += new_values[i] * present
                for f in range(d):
                    along[f] += new_values[i] * row[f]
        if step < steps and not _direct(along, together, atom, new_atom):
            return


@njit(cache=True, fastmath=_ORDER_FREE, error_model="numpy", nogil=True)
def _alternate_users(  # type: ignore[no-untyped-def]
    users, k, residual, atom, values, steps, positive, new_atom, new_values
):
    """Alternate on the Gram matrix K = F F' of the users: |users|^2 multiplications each, until nothing moves.

    x and u = F' x / |F' x| give x = F u = K x / sqrt(x' K x), so that the atom is needed at the end only.
    """
    n, d = len(users), len(atom)
    inner, moved, last = np.empty((n, n), np.float32), np.empty(n, np.float32), new_values.copy()
    for i in range(n):
        moved[i] = _dot(residual[users[i] // k], atom)
    for i in range(n):
        for j in range(i + 1):
            both = _dot(residual[users[i] // k], residual[users[j] // k])
            one, other = values[users[i]], values[users[j]]
            inner[i, j] = both + moved[i] * other + one * moved[j] + one * other
            inner[j, i] = inner[i, j]
    strength = np.float32(0)
    for step in range(steps):
        square = np.float32(0)
        for i in range(n):
            moved[i] = _dot(inner[i], new_values)
            square += moved[i] * new_values[i]
        if not square > 0:
            if step == 0:
                return
            break
        scale, before, strength = np.float32(1) / np.sqrt(square), strength, np.float32(0)
        for i in range(n):
            last[i] = new_values[i]
            value = scale * moved[i]
            new_values[i] = max(value, np.float32(0)) if positive else value
            strength += new_values[i] * new_values[i]
        if strength <= before * (1 + _STILL):
            break
    along, together = np.zeros(d, np.float32), np.float32(0)
    for i in range(n):
        together += last[i] * values[users[i]]
        for f in range(d):
            along[f] += last[i] * residual[users[i] // k, f]
    if not _direct(along, together, atom, new_atom):
        for i in range(n):
            new_values[i] = values[users[i]]


@njit(cache=True, fastmath=_ORDER_FREE, error_model="numpy", nogil=True)
def _direct(along, together, atom, new_atom):  # type: ignore[no-untyped-def]
    """Write the direction of along + together atom; False, and nothing written, where that is zero."""
    squares = np.float32(0)
    for f in range(len(atom)):
        along[f] += together * atom[f]
        squares += along[f] * along[f]
    if not squares > 0:
        return False
    scale = np.float32(1) / np.sqrt(squares)
    for f in range(len(atom)):
        new_atom[f] = along[f] * scale
    return True


@njit(cache=True, fastmath=_ORDER_FREE, error_model="numpy", nogil=True)
def _move(begin, end, users, k, residual, atom, values, new_atom, new_values):  # type: ignore[no-untyped-def]
    """Exchange the part of an atom in the residual of its users among the signals begin..end; take its new values."""
    first = np.searchsorted(users, begin * k)
    for i in range(first, len(users)):
        if users[i] >= end * k:
            break
        row = residual[users[i] // k]
        old, new = values[users[i]], new_values[i]
        for f in range(len(atom)):
            row[f] += old * atom[f] - new * new_atom[f]
        values[users[i]] = new


@njit(cache=True)
def _sweep(chosen, bounds, start, entries, residual, atoms, values, steps, positive):  # type: ignore[no-untyped-def]
    """Update the atoms in the order of `chosen`, block by block, on one thread."""
    n = len(residual)
    k = len(values) // max(n, 1)
    new_values, new_atoms = np.empty(len(entries), np.float32), np.empty_like(atoms)
    for b in range(len(bounds) - 1):
        for i in range(bounds[b], bounds[b + 1]):
            j = chosen[i]
            span = slice(start[j], start[j + 1])
            _rank_one(entries[span], k, residual, atoms[j], values, steps, positive, new_atoms[j], new_values[span])
        for i in range(bounds[b], bounds[b + 1]):
            j = chosen[i]
            span = slice(start[j], start[j + 1])
            _move(0, n, entries[span], k, residual, atoms[j], values, new_atoms[j], new_values[span])
            atoms[j] = new_atoms[j]


@njit(cache=True, parallel=True)
def _parallel_sweep(  # type: ignore[no-untyped-def]
    parts, chosen, bounds, start, entries, residual, atoms, values, steps, positive
):
    """Do what `_sweep` does: the atoms of a block in parallel, then the signals that they move in `parts` ranges."""
    n = len(residual)
    k = len(values) // max(n, 1)
    new_values, new_atoms = np.empty(len(entries), np.float32), np.empty_like(atoms)
    for b in range(len(bounds) - 1):
        for i in prange(bounds[b], bounds[b + 1]):
            j = chosen[i]
            begin, end = start[j], start[j + 1]
            _rank_one(
                entries[begin:end], k, residual, atoms[j], values, steps, positive, new_atoms[j], new_values[begin:end]
            )
        for part in prange(parts):
            for i in range(bounds[b], bounds[b + 1]):
                j = chosen[i]
                begin, end = start[j], start[j + 1]
                _move(
                    part * n // parts, (part + 1) * n // parts, entries[begin:end], k,
                    residual, atoms[j], values, new_atoms[j], new_values[begin:end],
                )  # fmt: skip
        for i in range(bounds[b], bounds[b + 1]):
            atoms[chosen[i]] = new_atoms[chosen[i]]
