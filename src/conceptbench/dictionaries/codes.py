"""Sparse codes of tokens: compressed rows over (image, token), and their aggregates per image."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from jaxtyping import Float32, Int32, Int64
from safetensors import SafetensorError
from scipy import sparse

from conceptbench.errors import ConceptBenchError
from conceptbench.tensor_files import map_tensors, write_tensors

FORMAT: Final = "conceptbench-codes-1"
DTYPES: Final = {"indptr": np.int64, "indices": np.int32, "values": np.float32}
"""The arrays of a code by name."""
BLOCK_FIRINGS: Final = 1 << 22
"""Firings worked on at once, so that sums over a large code take little more memory than the code."""


@dataclass(frozen=True, eq=False)
class Codes:
    """Codes of `shape = (image, token, latent)`; row `image * n_tokens + token` of the compressed matrix is a token.

    Within a row the latents ascend. Stored values are the firings: finite and positive, absent entries are 0.
    """

    indptr: Int64[np.ndarray, "row_plus_1"]
    indices: Int32[np.ndarray, "firing"]
    values: Float32[np.ndarray, "firing"]
    shape: tuple[int, int, int]
    dictionary: str
    """Digest of the dictionary that wrote the codes."""

    def __post_init__(self) -> None:
        """Refuse arrays that are not such a matrix."""
        self._check("Codes")

    @property
    def n_rows(self) -> int:
        """Number of tokens over all images."""
        return self.shape[0] * self.shape[1]

    def csr(self) -> sparse.csr_matrix:
        """Return the matrix [image * token, latent] without copying the values."""
        return sparse.csr_matrix((self.values, self.indices, self.indptr), shape=(self.n_rows, self.shape[2]))

    def image_max(self) -> sparse.csr_matrix:
        """Return the largest value over the tokens of an image, float32 [image, latent]."""
        return self._by_image(np.maximum.reduceat, lambda values: values)

    def image_count(self, threshold: float) -> sparse.csr_matrix:
        """Return the number of tokens of an image with value > `threshold` (PatchSAE's definition B), int64.

        Raises:
            ConceptBenchError: for a negative threshold, which tokens that do not fire would exceed.
        """
        if threshold < 0:
            raise ConceptBenchError(f"The threshold of image_count is {threshold}; it must not be negative.")
        return self._by_image(np.add.reduceat, lambda values: np.ones(len(values), np.int64), threshold)

    def select_images(self, images: Sequence[int] | np.ndarray) -> "Codes":
        """Return the codes of some images, in the order given."""
        wanted = np.asarray(images, np.int64)
        rows = (wanted[:, None] * self.shape[1] + np.arange(self.shape[1])).ravel()
        return self._take(rows, (len(wanted), self.shape[1], self.shape[2]))

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Join codes of consecutive images.

        Raises:
            ConceptBenchError: when the parts come from different dictionaries or have different tokens.
        """
        if not parts:
            raise ConceptBenchError("No codes to concatenate; encode at least one batch of images.")
        if len({(part.shape[1:], part.dictionary) for part in parts}) > 1:
            raise ConceptBenchError(
                "Codes of different dictionaries or token counts cannot be joined; encode them alike."
            )
        starts = np.cumsum([0, *(part.indptr[-1] for part in parts)])
        indptr = [np.zeros(1, np.int64), *(part.indptr[1:] + start for part, start in zip(parts, starts, strict=False))]
        return cls(
            indptr=np.concatenate(indptr),
            indices=np.concatenate([part.indices for part in parts]),
            values=np.concatenate([part.values for part in parts]),
            shape=(sum(part.shape[0] for part in parts), *parts[0].shape[1:]),
            dictionary=parts[0].dictionary,
        )

    def save(self, path: Path | str) -> None:
        """Write one safetensors file, complete or absent."""
        meta = {"format": FORMAT, "shape": json.dumps(self.shape), "dictionary": self.dictionary}
        write_tensors({name: getattr(self, name) for name in DTYPES}, path, meta)

    @classmethod
    def load(cls, path: Path | str, dictionary: str | None = None) -> Self:
        """Map what `save` wrote; with `dictionary`, insist on that digest. Memory is taken as arrays are read.

        Raises:
            ConceptBenchError: when the file is missing, damaged, of another format or of another dictionary.
        """
        tensors, meta = _read(Path(path))
        if meta.get("format") != FORMAT or set(tensors) != set(DTYPES):
            raise ConceptBenchError(f"{path} is not a {FORMAT} file; run encode_codes again.")
        if dictionary is not None and meta["dictionary"] != dictionary:
            raise ConceptBenchError(f"{path} was written by another dictionary than asked for; run encode_codes again.")
        try:
            images, tokens, latents = (int(n) for n in json.loads(meta["shape"]))
            return cls(**tensors, shape=(images, tokens, latents), dictionary=meta["dictionary"])
        except (ConceptBenchError, ValueError, KeyError) as error:
            raise ConceptBenchError(f"{path} is damaged ({error}); run encode_codes again.") from error

    def _blocks(self, tokens: int) -> Iterator[tuple[int, int, slice]]:
        """Yield (first, last + 1, firings) of consecutive groups of `tokens` rows, few firings at a time."""
        ends = self.indptr[::tokens]
        first, groups = 0, len(ends) - 1
        while first < groups:
            last = int(np.searchsorted(ends, ends[first] + BLOCK_FIRINGS, side="right")) - 1
            last = min(max(last, first + 1), groups)
            yield first, last, slice(int(ends[first]), int(ends[last]))
            first = last

    def _by_image(
        self, reduce: Callable[..., Any], of: Callable[[np.ndarray], np.ndarray], above: float | None = None
    ) -> sparse.csr_matrix:
        """Reduce what `of` makes of the values that share an image and a latent, or of those above a number."""
        n_images, n_tokens, width = self.shape
        sizes = np.zeros(n_images + 1, np.int64)
        data, latents = [of(self.values[:0])], [self.indices[:0].astype(np.int64)]
        for first, last, firings in self._blocks(n_tokens):
            each = np.diff(self.indptr[first * n_tokens : last * n_tokens + 1 : n_tokens])
            keys = np.repeat(np.arange(last - first, dtype=np.int64), each) * width + self.indices[firings]
            values = self.values[firings]
            if above is not None:
                kept = values > above
                keys, values = keys[kept], values[kept]
            order = np.argsort(keys, kind="stable")
            ordered = keys[order]
            starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(keys) else np.zeros(0, np.int64)
            if len(keys):
                data.append(reduce(of(values)[order], starts))
                latents.append(ordered[starts] % width)
            sizes[first + 1 : last + 1] = np.bincount(ordered[starts] // width, minlength=last - first)
        parts = (np.concatenate(data), np.concatenate(latents), np.cumsum(sizes))
        return sparse.csr_matrix(parts, shape=(n_images, width))

    def _take(self, rows: np.ndarray, shape: tuple[int, int, int]) -> "Codes":
        part = self.csr()[rows]
        return Codes(
            part.indptr.astype(np.int64, copy=False),
            part.indices.astype(np.int32, copy=False),
            part.data.astype(np.float32, copy=False),
            shape,
            self.dictionary,
        )

    def _check(self, what: str) -> None:
        for name, dtype in DTYPES.items():
            array = getattr(self, name)
            if array.dtype != dtype or array.ndim != 1:
                raise ConceptBenchError(
                    f"{what}: {name} must be one-dimensional {np.dtype(dtype)}, it is {array.dtype}."
                )
        rows, width = self.n_rows, self.shape[2]
        sizes = np.diff(self.indptr)
        fits = len(self.indptr) == rows + 1 and self.indptr[0] == 0 and self.indptr[-1] == len(self.indices)
        if not fits or len(self.indices) != len(self.values) or (sizes < 0).any():
            raise ConceptBenchError(f"{what}: the arrays do not describe {rows} rows.")
        for first, last, firings in self._blocks(1):
            indices, values = self.indices[firings], self.values[firings]
            if len(indices) and not 0 <= indices.min() <= indices.max() < width:
                raise ConceptBenchError(f"{what}: a latent lies outside 0..{width - 1}.")
            inside = np.ones(len(indices), bool)
            inside[(self.indptr[first:last] - firings.start)[sizes[first:last] > 0]] = False
            if (np.diff(indices, prepend=-1)[inside] <= 0).any():
                raise ConceptBenchError(f"{what}: the latents of a row do not ascend.")
            if not (np.isfinite(values).all() and (values > 0).all()):
                raise ConceptBenchError(f"{what}: a value is not finite and positive.")


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    if not path.is_file():
        raise ConceptBenchError(f"Codes {path} do not exist; run encode_codes.")
    try:
        return map_tensors(path)
    except (SafetensorError, OSError) as error:
        raise ConceptBenchError(
            f"{path} is not a readable safetensors file ({error}); run encode_codes again."
        ) from error
