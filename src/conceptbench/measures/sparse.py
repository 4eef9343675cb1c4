"""Sparse codes seen from the images' side: one score per image and latent, and patch tokens without the prefix.

Every measure starts from the compressed sparse rows of `conceptbench.dictionaries.Codes` (rows are tokens, image by
image). Nothing here makes a dense array over tokens and latents.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import sparse

Reduce = Literal["max", "mean", "count"]
_REDUCE: dict[Reduce, int] = {"max": 0, "mean": 1, "count": 2}


class SparseCodes(Protocol):
    """What a measure needs of a code table: CSR arrays over (image, token) rows and the shape."""

    @property
    def indptr(self) -> Any:
        """Row starts, int64 [images * tokens + 1]."""

    @property
    def indices(self) -> Any:
        """Latent of every non-zero, int32 [non-zeros]."""

    @property
    def values(self) -> Any:
        """Value of every non-zero, float32 [non-zeros]."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Images, tokens per image, width of the dictionary."""


@dataclass(frozen=True)
class ArrayCodes:
    """Codes held as plain NumPy arrays, also signed ones; for codes that no dictionary of this package wrote."""

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    values: NDArray[np.float32]
    shape: tuple[int, int, int]


def from_dense(dense: NDArray[np.floating[Any]]) -> ArrayCodes:
    """Codes from a dense array [image, token, latent]; zeros are dropped."""
    images, tokens, width = dense.shape
    rows = sparse.csr_array(np.asarray(dense, dtype=np.float32).reshape(images * tokens, width))
    return ArrayCodes(rows.indptr.astype(np.int64), rows.indices.astype(np.int32), rows.data, (images, tokens, width))


def is_signed(codes: SparseCodes) -> bool:
    """Whether any value is negative (raw coordinates, PCA): such latents are tried in both directions."""
    values = np.asarray(codes.values)
    return bool(values.size) and bool(values.min() < 0)


def image_scores(
    codes: SparseCodes,
    *,
    reduce: Reduce = "max",
    prefix_tokens: int = 0,
    both_signs: bool = False,
    threshold: float = 0.0,
) -> sparse.csc_array:
    """One score per image and latent, sparse [image, width] (or [image, 2 * width] with both signs).

    `max` and `mean` run over the tokens after the first `prefix_tokens`, zeros included; `count` is the number of
    tokens above `threshold`. With `both_signs`, column width + j is latent j with its values negated.
    """
    indptr, indices, values = _arrays(codes)
    parts = [_reduce(indptr, indices, values, codes.shape, prefix_tokens, _REDUCE[reduce], threshold)]
    if both_signs:
        parts.append(_reduce(indptr, indices, -values, codes.shape, prefix_tokens, _REDUCE[reduce], threshold))
    columns = sparse.csc_array(sparse.hstack(parts, format="csc"))
    columns.sort_indices()
    return columns


def patch_scores(codes: SparseCodes, *, prefix_tokens: int, both_signs: bool = False) -> sparse.csc_array:
    """Patch-token codes, sparse [image * patch, width] (or twice the width with both signs); the prefix is left out."""
    indptr, indices, values = _arrays(codes)
    images, tokens, width = codes.shape
    lengths = np.diff(indptr).reshape(images, tokens)
    keep = np.repeat(np.tile(np.arange(tokens) >= prefix_tokens, images), lengths.ravel())
    starts = np.concatenate([[0], np.cumsum(lengths[:, prefix_tokens:].ravel())])
    shape = (images * (tokens - prefix_tokens), width)
    columns = sparse.csr_array((values[keep], indices[keep], starts), shape=shape).tocsc()
    if both_signs:
        columns = sparse.csc_array(sparse.hstack([columns, -columns], format="csc"))
    columns.sort_indices()
    return columns


def split_sign(column: int, width: int) -> tuple[int, int]:
    """Latent and sign of a column of a two-signed score table."""
    return (column, 1) if column < width else (column - width, -1)


def _arrays(codes: SparseCodes) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    return np.asarray(codes.indptr), np.asarray(codes.indices), np.asarray(codes.values)


def _reduce(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    values: NDArray[np.float32],
    shape: tuple[int, int, int],
    prefix_tokens: int,
    kind: int,
    threshold: float,
) -> sparse.csr_array:
    images, tokens, width = shape
    starts, columns, scores = _reduce_kernel(
        indptr, indices, values, images, tokens, width, prefix_tokens, kind, np.float32(threshold)
    )
    rows = sparse.csr_array((scores, columns, starts), shape=(images, width))
    rows.eliminate_zeros()
    return rows


def _reduce_rows(  # type: ignore[no-untyped-def]
    indptr, indices, values, images, tokens, width, prefix, kind, threshold
):  # pragma: no cover - compiled
    starts = np.zeros(images + 1, dtype=np.int64)
    columns = np.empty(values.size, dtype=np.int32)
    scores = np.empty(values.size, dtype=np.float32)
    buffer = np.zeros(width, dtype=np.float64)
    seen = np.zeros(width, dtype=np.int64)
    touched = np.empty(width, dtype=np.int32)
    filled = 0
    for image in range(images):
        n_touched = 0
        for row in range(image * tokens + prefix, (image + 1) * tokens):
            for at in range(indptr[row], indptr[row + 1]):
                latent = indices[at]
                value = values[at]
                if seen[latent] == 0:
                    touched[n_touched] = latent
                    n_touched += 1
                    buffer[latent] = value if kind == 0 else 0.0
                seen[latent] += 1
                if kind == 0:
                    buffer[latent] = max(buffer[latent], value)
                elif kind == 1:
                    buffer[latent] += value
                elif value > threshold:
                    buffer[latent] += 1.0
        for position in range(n_touched):
            latent = touched[position]
            score = buffer[latent]
            if kind == 0 and seen[latent] < tokens - prefix:
                score = max(score, 0.0)
            elif kind == 1:
                score /= tokens - prefix
            columns[filled] = latent
            scores[filled] = score
            filled += 1
            seen[latent] = 0
        starts[image + 1] = filled
    return starts, columns[:filled].copy(), scores[:filled].copy()


_reduce_kernel = njit(cache=True)(_reduce_rows)
