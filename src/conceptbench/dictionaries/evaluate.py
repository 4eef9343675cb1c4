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
    """Return fvu, cosine, l0, dead_share, dense_share, their thresholds, the density histogram and the token count.

    Raises:
        ConceptBenchError: when there are no tokens, or they have no variance, or are not finite.
    """
    fvu, cosine = FvuCalculator(), CosineCalculator(dictionary.normaliser.mean)
    firing = FiringCalculator(dictionary.width)
    tokens = 0
    for batch in batches:
        codes = dictionary.encode(batch, device)
        reconstruction = dictionary.decode(codes)
        fvu.add_batch(batch, reconstruction)
        cosine.add_batch(batch, reconstruction)
        firing.add_batch(codes)
        tokens += len(batch)
    fires = firing.compute()
    return {
        "fvu": fvu.compute(),
        "cosine": cosine.compute(),
        "l0": fires.l0,
        "dead_share": fires.dead_share,
        "dense_share": fires.dense_share,
        "thresholds": {"dead_at_most": DEAD_AT_MOST, "dense_above": DENSE_ABOVE},
        "log10_density_histogram": {"edges": list(HISTOGRAM_EDGES), "latents": fires.histogram().tolist()},
        "tokens": tokens,
    }
