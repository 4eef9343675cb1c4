"""Intervals that need no resampling: t intervals over seeds, and jackknives over groups of images and over seeds."""

import numpy as np
from jaxtyping import Float64, Int64

from conceptbench.inference import Estimate
from conceptbench.measures.resampling import UNBOUNDED, Bounds, joint_interval


def seed_interval(values: Float64[np.ndarray, "seed"], bounds: Bounds = UNBOUNDED) -> Estimate:
    """Mean over seeds with its t interval (n - 1 degrees of freedom), cut at the statistic's range.

    Values that are not finite are left out; one value gives no interval, equal ones an interval of width zero.
    """
    found = np.asarray(values, dtype=np.float64)
    found = found[np.isfinite(found)]
    n = len(found)
    if n < 2:
        point = float(found[0]) if n else np.nan
        return Estimate(point, np.nan, np.nan, n, "one seed only" if n else "undefined for every seed")
    note = "no variation between seeds" if np.ptp(found) == 0 else ""
    return joint_interval(float(found.mean()), [(float(found.var(ddof=1)) / n, n - 1)], n, bounds, note)


def pair_interval(values: Float64[np.ndarray, "seed seed"], bounds: Bounds = UNBOUNDED) -> Estimate:
    """Mean over pairs of seeds with the interval of a jackknife that leaves out one seed with all its pairs.

    Pairs that share a seed are not independent, so they must not be counted as so many observations; the mean over
    pairs is a U-statistic, whose jackknife variance is (n - 1) / n * sum (theta_-s - mean)^2 (Arvesen 1969).

    Args:
        values: a symmetric table; its diagonal is not read. bounds: the statistic's range.
    """
    n = len(values)
    off = ~np.eye(n, dtype=bool)
    if n < 2:
        return Estimate(np.nan, np.nan, np.nan, n, "one seed only")
    point = float(values[off].mean())
    if n < 3:
        return Estimate(point, np.nan, np.nan, n, "one pair of seeds only")
    left_out = np.array([_without(values, off, seed) for seed in range(n)])
    variance = (n - 1) / n * float(np.square(left_out - left_out.mean()).sum())
    return joint_interval(point, [(variance, n - 1)], n, bounds)


def image_groups(n_images: int, n_groups: int, rng: np.random.Generator) -> Int64[np.ndarray, "image"]:
    """A random group number for every image; group sizes differ by one at most."""
    return (rng.permutation(n_images) % n_groups).astype(np.int64)


def group_interval(
    points: Float64[np.ndarray, "seed"],
    left_out: Float64[np.ndarray, "seed group"],
    n_images: int,
    bounds: Bounds = UNBOUNDED,
) -> Estimate:
    """Mean over seeds whose interval counts images and seeds: a delete-a-group jackknife and the spread of the seeds.

    All seeds are scored on the same images, so the jackknife (Shao and Wu 1989) runs over the mean of the seeds, and
    the variance between seeds, over their number, is added (`joint_interval`).

    Args:
        points: the statistic of each seed. left_out: the same without the images of one group.
        n_images: number of images, for the estimate's `n`.
    """
    n_seeds, n_groups = left_out.shape
    replicates = left_out.mean(axis=0)
    if not (np.isfinite(points).all() and np.isfinite(replicates).all()):
        return Estimate(float(np.mean(points)), np.nan, np.nan, n_images, "undefined on some of the images")
    images = (n_groups - 1) / n_groups * float(np.square(replicates - replicates.mean()).sum())
    seeds = float(np.var(points, ddof=1)) / n_seeds if n_seeds > 1 else 0.0
    if images + seeds == 0:
        point = float(points.mean())
        return Estimate(point, point, point, n_images, "no variation between images")
    parts = [(images, n_groups - 1)] + ([(seeds, n_seeds - 1)] if n_seeds > 1 else [])
    return joint_interval(float(points.mean()), parts, n_images, bounds)


def difference_interval(first: Estimate, second: Estimate) -> Estimate:
    """First less second from their intervals alone (MOVER; Zou and Donner 2008), as if they were independent.

    For two scores on the same images, which go up and down together, the interval is too wide rather than too narrow.
    """
    point = first.estimate - second.estimate
    ends = np.array([first.low, first.high, second.low, second.high])
    if not np.isfinite(ends).all():
        return Estimate(point, np.nan, np.nan, first.n, first.note or second.note or "an interval is missing")
    low = point - np.hypot(first.estimate - first.low, second.high - second.estimate)
    high = point + np.hypot(first.high - first.estimate, second.estimate - second.low)
    return Estimate(point, float(low), float(high), first.n)


def _without(values: Float64[np.ndarray, "seed seed"], off: np.ndarray, seed: int) -> float:
    kept = np.delete(np.delete(values, seed, axis=0), seed, axis=1)
    return float(kept[np.delete(np.delete(off, seed, axis=0), seed, axis=1)].mean())
