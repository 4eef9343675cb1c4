"""How well a dictionary reconstructs and how it fires: streaming calculators, `add_batch` then `compute`."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from jaxtyping import Float, Float64, Int64

from conceptbench.dictionaries.codes import Codes
from conceptbench.dictionaries.dictionary import Dictionary
from conceptbench.errors import ConceptBenchError

DEAD_AT_MOST: Final = 0.0
"""A latent whose share of firing tokens is at most this is dead."""
DENSE_ABOVE: Final = 0.1
"""A latent that fires on more than this share of tokens is dense."""
COHERENCE_ROWS: Final = 1024
"""Rows of the table of cosines between atoms that are held at once."""
HISTOGRAM_EDGES: Final = tuple(float(edge) for edge in np.arange(-6.0, 0.25, 0.25))
"""Edges of the histogram of log10 densities; lower densities, dead latents too, are counted in the first bin."""


class FvuCalculator:
    """Fraction of variance unexplained: sum ||x - x'||^2 / sum ||x - mean(x)||^2 with the per-feature mean, in float64.

    The total is accumulated by Welford's method and batches are merged by Chan's rule, so that neither the offset of
    the tokens nor their split into batches matters.
    """

    def __init__(self) -> None:
        """Start with no tokens."""
        self._n = 0
        self._mean: np.ndarray | None = None
        self._total = 0.0
        self._residual = 0.0

    def add_batch(
        self, x: Float[np.ndarray, "token feature"], reconstruction: Float[np.ndarray, "token feature"]
    ) -> None:
        """Add tokens and their reconstructions."""
        if x.shape != reconstruction.shape:
            raise ConceptBenchError(f"Tokens {x.shape} and reconstructions {reconstruction.shape} differ in shape.")
        if not len(x):
            return
        values = x.astype(np.float64)
        self._residual += float(np.square(values - reconstruction).sum())
        n, mean = len(values), values.mean(0)
        within = float(np.square(values - mean).sum())
        if self._mean is None:
            self._n, self._mean, self._total = n, mean, within
            return
        step = mean - self._mean
        merged = self._n + n
        self._total += within + float(step @ step) * self._n * n / merged
        self._mean = self._mean + step * (n / merged)
        self._n = merged

    def compute(self) -> float:
        """Return the FVU.

        Raises:
            ConceptBenchError: when the tokens have no variance.
        """
        if not self._total > 0:
            raise ConceptBenchError("The tokens have no variance, so the FVU is undefined; evaluate on more tokens.")
        return self._residual / self._total


class CosineCalculator:
    """Mean cosine between a token and its reconstruction, both minus `centre`; tokens equal to it count as 0."""

    def __init__(self, centre: Float[np.ndarray, "feature"]) -> None:
        """Start with no tokens."""
        self._centre = centre.astype(np.float64)
        self._n = 0
        self._sum = 0.0

    def add_batch(
        self, x: Float[np.ndarray, "token feature"], reconstruction: Float[np.ndarray, "token feature"]
    ) -> None:
        """Add tokens and their reconstructions."""
        left, right = x - self._centre, reconstruction - self._centre
        norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
        products = np.einsum("td,td->t", left, right)
        self._sum += float(np.divide(products, norms, out=np.zeros_like(norms), where=norms > 0).sum())
        self._n += len(x)

    def compute(self) -> float:
        """Return the mean cosine.

        Raises:
            ConceptBenchError: when no token was added.
        """
        if not self._n:
            raise ConceptBenchError("No tokens to evaluate on; pass at least one batch.")
        return self._sum / self._n


class SignalCalculator:
    """Signal recovered in norm, and the bias of the reconstruction's length; tokens count from `centre`.

    In norm: 1 - mean of ||x - x'|| / ||x||, the log of DB-KSVD, in which 2/3 stands for an error of one third, about
    8/9 of the energy (1 - FVU). Bias: mean ||x'||^2 over mean <x, x'>, 1 for an unbiased reconstruction and smaller
    where codes are shrunk.
    """

    def __init__(self, centre: Float[np.ndarray, "feature"]) -> None:
        """Start with no tokens."""
        self._centre = centre.astype(np.float64)
        self._n = 0
        self._error = self._squares = self._products = 0.0

    def add_batch(
        self, x: Float[np.ndarray, "token feature"], reconstruction: Float[np.ndarray, "token feature"]
    ) -> None:
        """Add tokens and their reconstructions; a token at the centre has no signal and is not counted."""
        left, right = x - self._centre, reconstruction - self._centre
        lengths = np.linalg.norm(left, axis=1)
        counted = lengths > 0
        self._error += float((np.linalg.norm(left - right, axis=1)[counted] / lengths[counted]).sum())
        self._squares += float(np.square(right).sum())
        self._products += float((left * right).sum())
        self._n += int(counted.sum())

    def recovered_norm(self) -> float:
        """Return the signal recovered in norm: 1 is all; below 0 the reconstruction is worse than the centre.

        Raises:
            ConceptBenchError: when no token was added.
        """
        if not self._n:
            raise ConceptBenchError("No tokens to evaluate on; pass at least one batch.")
        return 1 - self._error / self._n

    def bias(self) -> float | None:
        """Return the relative reconstruction bias; None when reconstructions do not point along the tokens."""
        return self._squares / self._products if self._products > 0 else None


class HoyerCalculator:
    """Mean Hoyer sparsity of the codes: (sqrt(m) - |f|_1 / |f|_2) / (sqrt(m) - 1), 1 for one firing latent, 0 for all
    alike (Hoyer 2004); tokens without a firing latent have none and are left out.
    """

    def __init__(self, width: int) -> None:
        """Start with no tokens."""
        self._root = float(np.sqrt(width))
        self._n = 0
        self._sum = 0.0

    def add_batch(self, codes: Codes) -> None:
        """Add codes."""
        token = np.repeat(np.arange(codes.n_rows), np.diff(codes.indptr))
        values = codes.values.astype(np.float64)
        first = np.bincount(token, weights=np.abs(values), minlength=codes.n_rows)
        second = np.bincount(token, weights=np.square(values), minlength=codes.n_rows)
        fires = second > 0
        self._sum += float((first[fires] / np.sqrt(second[fires])).sum())
        self._n += int(fires.sum())

    def compute(self) -> float | None:
        """Return the mean; None when no token fires or the dictionary has one latent."""
        if not self._n or self._root == 1:
            return None
        return (self._root - self._sum / self._n) / (self._root - 1)


@dataclass(frozen=True)
class Coherence:
    """How close the atoms of a dictionary are to each other."""

    largest: float
    """Largest absolute cosine of two atoms: the mutual coherence (Donoho and Elad 2003)."""
    mean_nearest: float
    """Mean over atoms of the signed cosine with the nearest other atom: an opposite atom is no double."""


def coherence(atoms: Float[np.ndarray, "latent feature"]) -> Coherence | None:
    """Return the coherence, from blocks of rows of the table of cosines; None for fewer than two atoms.

    Zero atoms are left out. Memory grows with the width, not with its square.
    """
    lengths = np.linalg.norm(atoms, axis=1, keepdims=True)
    unit = (atoms / np.where(lengths > 0, lengths, 1)).astype(np.float32)[lengths[:, 0] > 0]
    if len(unit) < 2:
        return None
    largest, nearest = 0.0, np.full(len(unit), -1.0, np.float32)
    for start in range(0, len(unit), COHERENCE_ROWS):
        block = unit[start : start + COHERENCE_ROWS]
        cosines = block @ unit[start:].T  # the other half of the table is this one turned
        np.fill_diagonal(cosines, -np.inf)
        nearest[start : start + len(block)] = np.maximum(nearest[start : start + len(block)], cosines.max(axis=1))
        nearest[start:] = np.maximum(nearest[start:], cosines.max(axis=0))
        np.fill_diagonal(cosines, 0.0)
        largest = max(largest, float(cosines.max()), -float(cosines.min()))
    return Coherence(min(largest, 1.0), float(np.minimum(nearest, 1.0).mean()))


@dataclass(frozen=True)
class Firing:
    """How latents fire over the tokens seen."""

    l0: float
    """Mean count of firing latents per token."""
    dead_share: float
    dense_share: float
    density: Float64[np.ndarray, "latent"]
    """Share of tokens on which a latent fires."""

    def histogram(self) -> Int64[np.ndarray, "bin"]:
        """Return the number of latents per bin of log10 density (`HISTOGRAM_EDGES`)."""
        floor = 10.0 ** HISTOGRAM_EDGES[0]
        return np.histogram(np.log10(np.maximum(self.density, floor)), bins=HISTOGRAM_EDGES)[0].astype(np.int64)


class FiringCalculator:
    """L0 and the shares of dead and dense latents, at stated thresholds on the share of firing tokens."""

    def __init__(self, width: int, dead_at_most: float = DEAD_AT_MOST, dense_above: float = DENSE_ABOVE) -> None:
        """Start with no tokens."""
        self._firings = np.zeros(width, np.int64)
        self._n = 0
        self._dead_at_most, self._dense_above = dead_at_most, dense_above

    def add_batch(self, codes: Codes) -> None:
        """Add codes."""
        self._firings += np.bincount(codes.indices, minlength=len(self._firings))
        self._n += codes.n_rows

    def compute(self) -> Firing:
        """Return the summary.

        Raises:
            ConceptBenchError: when no token was added.
        """
        if not self._n:
            raise ConceptBenchError("No tokens to evaluate on; pass at least one batch.")
        density = self._firings / self._n
        return Firing(
            l0=float(self._firings.sum() / self._n),
            dead_share=float((density <= self._dead_at_most).mean()),
            dense_share=float((density > self._dense_above).mean()),
            density=density,
        )


def evaluate(
    dictionary: Dictionary, batches: Iterable[Float[np.ndarray, "token feature"]], device: str = "cpu"
) -> dict[str, Any]:
    """Return fvu, cosine, recovered_norm, bias, l0, dead_share, dense_share, hoyer, coherence, nearest_atom, the
    thresholds, the density histogram and the token count; a value that does not exist is None.

    Raises:
        ConceptBenchError: when there are no tokens, or they have no variance, or are not finite.
    """
    fvu, cosine = FvuCalculator(), CosineCalculator(dictionary.normaliser.mean)
    signal = SignalCalculator(dictionary.normaliser.mean)
    firing, hoyer = FiringCalculator(dictionary.width), HoyerCalculator(dictionary.width)
    tokens = 0
    for batch in batches:
        codes = dictionary.encode(batch, device)
        reconstruction = dictionary.decode(codes)
        for calculator in (fvu, cosine, signal):
            calculator.add_batch(batch, reconstruction)
        firing.add_batch(codes)
        hoyer.add_batch(codes)
        tokens += len(batch)
    fires, close = firing.compute(), coherence(dictionary.atoms)
    return {
        "fvu": fvu.compute(),
        "cosine": cosine.compute(),
        "recovered_norm": signal.recovered_norm(),
        "bias": signal.bias(),
        "l0": fires.l0,
        "dead_share": fires.dead_share,
        "dense_share": fires.dense_share,
        "hoyer": hoyer.compute(),
        "coherence": close.largest if close else None,
        "nearest_atom": close.mean_nearest if close else None,
        "thresholds": {"dead_at_most": DEAD_AT_MOST, "dense_above": DENSE_ABOVE},
        "log10_density_histogram": {"edges": list(HISTOGRAM_EDGES), "latents": fires.histogram().tolist()},
        "tokens": tokens,
    }
