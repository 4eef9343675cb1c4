"""Bootstrap replicates over images and seeds, for measures that resample the same images many times.

A resample is a row of counts: how often each image is drawn (`inference.resample_weights`). Two measures given the
same weights are resampled together, so that their difference is paired. Seeds are the outer level: drawn first, with
replacement, and the same draw of images serves every seed, because all seeds are scored on the same images.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from conceptbench.inference import Estimate, group, resample_weights

Weights = NDArray[np.float64]
ALL_SEEDS = "all"
"""The value of the seed column in a row that pools the seeds."""
COSTLY_DIVISOR: Final = 5
"""Measures whose resamples go over patches or rank all latents anew take the resamples of the others over this."""
MOST_SEARCHES: Final = 20
"""Permutations of a null that repeats the whole search over latents, at most: a mean and a quantile, no p-value."""


def costly_resamples(n_resamples: int) -> int:
    """Resamples of the measures that are costly for each resample (docs/method.md, section 1)."""
    return n_resamples // COSTLY_DIVISOR


def image_weights(n: int, n_resamples: int, rng: np.random.Generator, strata: NDArray[Any] | None = None) -> Weights:
    """Counts [resample, image]: every row draws n images with replacement, within each stratum where given."""
    return np.concatenate(list(resample_weights(group(n, strata=strata), n_resamples, rng)))


def seed_weights(n_seeds: int, n_resamples: int, rng: np.random.Generator) -> Weights:
    """Shares [resample, seed] that sum to one: seeds drawn with replacement (all ones for a single seed)."""
    return image_weights(n_seeds, n_resamples, rng) / n_seeds


def nested_means(values: NDArray[Any], images: Weights, seeds: Weights) -> NDArray[np.float64]:
    """Replicates [resample] of the mean of values [seed, image], images inside seeds."""
    per_seed = (images @ values.T.astype(np.float64)) / images.sum(axis=1, keepdims=True)
    return np.asarray((per_seed * seeds).sum(axis=1))


def interval(point: float, replicates: NDArray[np.floating[Any]], n: int, level: float = 0.95) -> Estimate:
    """Percentile interval from bootstrap replicates [resample]; the note says why there is none."""
    finite = replicates[np.isfinite(replicates)]
    lost = len(replicates) - len(finite)
    if not np.isfinite(point) or len(finite) < max(2, len(replicates) / 2):
        return Estimate(float(point), np.nan, np.nan, n, "undefined on these images")
    if np.ptp(finite) == 0:
        return Estimate(float(point), np.nan, np.nan, n, "no variation between images")
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(point), float(low), float(high), n, f"{lost} resamples undefined" if lost else "")


def two_sided_p(replicates: NDArray[np.floating[Any]]) -> float:
    """Bootstrap p-value of a difference of zero: twice the smaller tail, with the +1 correction; 1 without data."""
    finite = replicates[np.isfinite(replicates)]
    tail = min(int((finite <= 0).sum()), int((finite >= 0).sum()))
    return float(min(1.0, 2 * (tail + 1) / (finite.size + 1)))


def nested_columns(values: NDArray[Any], images: Weights, seeds: Weights) -> NDArray[np.float64]:
    """Replicates [resample, column] of the mean of values [seed, image, column]; see `nested_means`."""
    total = np.zeros((len(images), values.shape[2]))
    scaled = images / images.sum(axis=1, keepdims=True)
    for at, table in enumerate(values):
        total += (scaled @ table.astype(np.float64)) * seeds[:, at : at + 1]
    return total


def halves_weights(n: int, n_draws: int, rng: np.random.Generator, *, resample: bool) -> tuple[Weights, Weights]:
    """Weights [draw, image] of two disjoint random halves, each summing to one; resampled inside each half if asked."""
    first, second = np.zeros((n_draws, n)), np.zeros((n_draws, n))
    for draw in range(n_draws):
        order = rng.permutation(n)
        for weights, rows in ((first[draw], order[: n // 2]), (second[draw], order[n // 2 :])):
            chosen = rng.choice(rows, rows.size) if resample else rows
            np.add.at(weights, chosen, 1.0 / rows.size)
    return first, second
