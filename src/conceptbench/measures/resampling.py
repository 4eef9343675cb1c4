"""Bootstrap replicates over images, and intervals that count images and seeds.

A resample is a row of weights: how much each image counts (`inference.resample_weights`). Two measures given the
same weights are resampled together, so that their difference is paired. Few seeds cannot be resampled: percentiles over
draws of three seeds cover far less than they say. So images are resampled with the seeds as they are, the variance
between seeds over their number is added, and a t interval is laid around the mean over seeds (`Pooled`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from conceptbench.inference import ROUNDING, Estimate, constant, group, resample_weights

Weights = NDArray[np.float64]
Bounds = tuple[float, float]
"""Range of a statistic: where its interval is cut."""
UNBOUNDED: Final[Bounds] = (-np.inf, np.inf)
LEVEL: Final = 0.95
ALL_SEEDS = "all"
"""The value of the seed column in a row that pools the seeds."""
NO_VARIATION: Final = "no variation between images"
NOTHING_TO_DRAW: Final = "undefined on every resample, as where every class has one image"
COSTLY_DIVISOR: Final = 5
"""Measures whose resamples go over patches or rank all latents anew take the resamples of the others over this."""
MOST_SEARCHES: Final = 20
"""Permutations of a null that repeats the whole search over latents, at most: a mean and a quantile, no p-value."""


def costly_resamples(n_resamples: int) -> int:
    """Resamples of the measures that are costly for each resample (docs/method.md, section 1)."""
    return n_resamples // COSTLY_DIVISOR


def image_weights(n: int, n_resamples: int, rng: np.random.Generator, strata: NDArray[Any] | None = None) -> Weights:
    """Weights [resample, image] of rescaled bootstrap samples, within each stratum where given; a row sums to n.

    NaN, so that there is no interval, where every stratum (or all there is) has one image (`resample_weights`).
    """
    return np.concatenate(list(resample_weights(group(n, strata=strata), n_resamples, rng)))


def interval(point: float, replicates: NDArray[np.floating[Any]], n: int, level: float = LEVEL) -> Estimate:
    """Percentile interval from bootstrap replicates [resample]; the note says why there is none."""
    finite = replicates[np.isfinite(replicates)]
    lost = len(replicates) - len(finite)
    if np.isfinite(point) and not len(finite):
        return Estimate(float(point), np.nan, np.nan, n, "one image only" if n == 1 else NOTHING_TO_DRAW)
    if not np.isfinite(point) or len(finite) < max(2, len(replicates) / 2):
        return Estimate(float(point), np.nan, np.nan, n, "undefined on these images")
    if constant(finite):
        return Estimate(float(point), np.nan, np.nan, n, NO_VARIATION)
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(float(point), float(low), float(high), n, f"{lost} resamples undefined" if lost else "")


def note_lone_images(rows: list[dict[str, Any]], strata: NDArray[Any]) -> list[dict[str, Any]]:
    """Say in the note of every row with an interval how many strata (classes) of one image add no variance to it."""
    images_of = np.unique(strata, return_counts=True)[1]
    lone = int((images_of == 1).sum())
    if not lone:
        return rows
    note = f"{lone} of {len(images_of)} classes have one image and add no variance"
    return [
        row | {"note": "; ".join(filter(None, (row["note"], note)))} if np.isfinite(row["low"]) else row for row in rows
    ]


def two_sided_p(replicates: NDArray[np.floating[Any]]) -> float:
    """Bootstrap p-value of a difference of zero: twice the smaller tail, with the +1 correction; 1 without data."""
    finite = replicates[np.isfinite(replicates)]
    tail = min(int((finite <= ROUNDING).sum()), int((finite >= -ROUNDING).sum()))
    return float(min(1.0, 2 * (tail + 1) / (finite.size + 1)))


def joint_interval(
    point: float, parts: Sequence[tuple[float, float]], n: int, bounds: Bounds = UNBOUNDED, note: str = ""
) -> Estimate:
    """Point with a t interval whose variance is the sum of independent ones.

    Degrees of freedom of the sum after Satterthwaite (1946): (sum v)^2 / sum (v^2 / d).

    Args:
        parts: each variance of the point with its degrees of freedom. bounds: where the interval is cut.
    """
    variance, freedom = joint_variance(parts)
    error = float(np.sqrt(variance))
    half = float(stdtrit(freedom, (1 + LEVEL) / 2)) * error
    return Estimate(point, max(point - half, bounds[0]), min(point + half, bounds[1]), n, note, error, float(freedom))


def joint_variance(parts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Sum of independent variances, and its degrees of freedom (see `joint_interval`)."""
    total = sum(variance for variance, _ in parts)
    if total == 0:
        return 0.0, max(freedom for _, freedom in parts)
    return total, total**2 / sum(variance**2 / freedom for variance, freedom in parts)


@dataclass(frozen=True, eq=False)
class Pooled:
    """A statistic over the seeds: its value, its bootstrap over images, and what each seed contributes."""

    point: float
    replicates: NDArray[np.float64]
    """[resample]: images resampled, the seeds as they are."""
    seeds: tuple[NDArray[np.float64], ...]
    """Values [seed] whose variance over their number is the variance that seeds add: the statistic of each seed, or its
    linearisation. Several arrays when several independent sets of seeds enter."""

    @classmethod
    def mean(cls, values: NDArray[Any], images: Weights) -> Pooled:
        """Mean over seeds and images of values [seed, image], under weights [resample, image] of the images."""
        over_seeds = values.mean(axis=0, dtype=np.float64)
        of_seed = values.mean(axis=1, dtype=np.float64)
        return cls(float(of_seed.mean()), (images @ over_seeds) / images.sum(axis=1), (of_seed,))

    def estimate(self, n: int, bounds: Bounds = UNBOUNDED) -> Estimate:
        """The point with its interval: percentiles for one seed, else a t interval for images and seeds (docstring).

        Args:
            n: number of images. bounds: range of the statistic, at which a t interval is cut.
        """
        parts = self._variances()
        if not parts:
            return interval(self.point, self.replicates, n)
        lost = int((~np.isfinite(self.replicates)).sum())
        return joint_interval(self.point, parts, n, bounds, f"{lost} resamples undefined" if lost else "")

    def p(self) -> float:
        """Two-sided p-value of a statistic of zero: from the bootstrap for one seed, else from t as the interval."""
        parts = self._variances()
        if not parts:
            return two_sided_p(self.replicates)
        variance, freedom = joint_variance(parts)
        return float(2 * stdtr(freedom, -abs(self.point) / np.sqrt(variance)))

    def less(self, other: Pooled) -> Pooled:
        """This less another on the same resamples of the same images, whose seeds are independent of these."""
        return Pooled(self.point - other.point, self.replicates - other.replicates, self.seeds + other.seeds)

    def over(self, whole: Pooled) -> Pooled:
        """The ratio of two means over the same seeds; seeds enter by the linearised ratio (the delta method)."""
        (part,), (total,) = self.seeds, whole.seeds
        with np.errstate(divide="ignore", invalid="ignore"):
            share = float(np.float64(self.point) / whole.point)
            influence = share + (part - share * total) / whole.point
            return Pooled(share, self.replicates / whole.replicates, (influence,))

    def _variances(self) -> list[tuple[float, float]]:
        """Variance and degrees of freedom of images and of each set of seeds; none where a percentile interval stands.

        That is the case for one seed, without any variation, and where the statistic is undefined on the images.
        """
        drawn = self.replicates[np.isfinite(self.replicates)]
        several = [values for values in self.seeds if len(values) > 1]
        if not several or not np.isfinite(self.point) or len(drawn) < max(2, len(self.replicates) / 2):
            return []
        if all(constant(values) for values in (drawn, *several)):
            return []
        images = (float(drawn.var(ddof=1)), len(drawn) - 1)
        return [images, *((float(values.var(ddof=1)) / len(values), len(values) - 1) for values in several)]


def halves_weights(n: int, n_draws: int, rng: np.random.Generator, *, resample: bool) -> tuple[Weights, Weights]:
    """Weights [draw, image] of two disjoint random halves, each summing to one; resampled inside each half if asked.

    A half of m images is resampled by m - 1 of them (one by itself), as in `inference.resample_weights`.
    """
    first, second = np.zeros((n_draws, n)), np.zeros((n_draws, n))
    for draw in range(n_draws):
        order = rng.permutation(n)
        for weights, rows in ((first[draw], order[: n // 2]), (second[draw], order[n // 2 :])):
            chosen = rng.choice(rows, max(rows.size - 1, 1)) if resample else rows
            np.add.at(weights, chosen, 1.0 / chosen.size)
    return first, second
