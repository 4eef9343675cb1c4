"""Sparse coding by orthogonal matching pursuit: a few atoms for each signal, signed or non-negative.

Batch-OMP (`omp_kernels`) on tiles of signals: one product gives their correlations with all atoms, the pursuit itself
works on the Gram matrix. Nothing dense outlives a tile; besides it there are k indices and k values per signal and
the Gram matrix, 4 m^2 bytes.
"""

from typing import Final

import numpy as np
import torch
from jaxtyping import Float32, Int32
from torch import Tensor

from conceptbench.dictionaries import omp_kernels
from conceptbench.dictionaries.rules import Sign
from conceptbench.dictionaries.threads import ranges, share_threads
from conceptbench.errors import ConceptBenchError

TILE_VALUES: Final = 2 << 20
"""Correlations held at once (8 MiB): they stay in the cache between the product and the pursuit."""


def gram_matrix(atoms: Float32[np.ndarray, "atom feature"]) -> Float32[np.ndarray, "atom atom"]:
    """Return all inner products of atoms."""
    rows = _aligned(atoms)
    with torch.inference_mode():
        gram: np.ndarray = torch.mm(rows, rows.T).numpy()
    return gram


def omp_encode(
    y: Float32[np.ndarray, "signal feature"],
    atoms: Float32[np.ndarray, "atom feature"],
    k: int,
    sign: Sign = "split",
    gram: Float32[np.ndarray, "atom atom"] | None = None,
) -> tuple[Int32[np.ndarray, "signal slot"], Float32[np.ndarray, "signal slot"]]:
    """Return (atoms, coefficients) of the sparse approximation of each signal, in the order of selection.

    `split`: the atom of the largest absolute correlation with the residual joins and all coefficients become those of
    least squares (Pati, Rezaiifar and Krishnaprasad 1993). `positive`: the largest positive correlation, and the
    coefficients of non-negative least squares, which may drop atoms again (Lawson and Hanson 1974, ended at k atoms).
    Signals that fewer than k atoms represent to rounding have spare slots: index -1, value 0.

    Args:
        y: the signals.
        atoms: the dictionary; rows of any norm, though selection favours long ones.
        k: atoms for each signal, at most.
        sign: whether coefficients may be negative.
        gram: `gram_matrix(atoms)`, if it is at hand.

    Raises:
        ConceptBenchError: when k is outside 1..atoms, the shapes do not fit, or a signal or an atom is not finite.
    """
    m, d = atoms.shape
    if not 1 <= k <= m:
        raise ConceptBenchError(f"A pursuit of {k} atoms out of {m} is impossible; choose k from 1 to {m}.")
    if y.ndim != 2 or y.shape[1] != d:
        raise ConceptBenchError(f"Signals of shape {y.shape} do not fit atoms of {d} features; use matching ones.")
    if not (np.isfinite(y).all() and np.isfinite(atoms).all()):
        raise ConceptBenchError("Signals or atoms of a pursuit hold NaN or infinity; verify the activation store.")
    inner = gram_matrix(atoms) if gram is None else gram
    indices, values = np.empty((len(y), k), np.int32), np.empty((len(y), k), np.float32)
    columns = _aligned(atoms).T
    height = max(1, TILE_VALUES // m)
    share_threads()
    with torch.inference_mode():
        for start in range(0, len(y), height):
            correlations = torch.mm(_aligned(y[start : start + height]), columns).numpy()
            tile = indices[start : start + height], values[start : start + height]
            _pursue(correlations, inner, k, sign == "split", *tile)
    return indices, values


def _aligned(rows: Float32[np.ndarray, "row feature"]) -> Tensor:
    """Return a copy in memory of torch's own, whose alignment is fixed: the last bits of products depend on it."""
    return torch.tensor(rows, dtype=torch.float32)


def _pursue(correlations: np.ndarray, gram: np.ndarray, k: int, signed: bool, *tile: np.ndarray) -> None:
    if (parts := ranges()) > 1:
        omp_kernels.parallel_pursue(parts, correlations, gram, k, signed, *tile)
    else:
        omp_kernels.pursue(0, len(correlations), correlations, gram, k, signed, *tile)


def split_signs(
    indices: Int32[np.ndarray, "signal slot"], values: Float32[np.ndarray, "signal slot"], width: int, sign: Sign
) -> tuple[Int32[np.ndarray, "signal slot"], Float32[np.ndarray, "signal slot"]]:
    """Return (latents in ascending order, values >= 0).

    With `split` a negative coefficient of atom j is a firing of latent width + j. Spare slots come first, with value 0.
    """
    latents = np.where(values < 0, indices + width, indices) if sign == "split" else indices
    order = np.argsort(latents, axis=1)
    return (
        np.take_along_axis(latents, order, 1).astype(np.int32),
        np.take_along_axis(np.abs(values), order, 1),
    )
