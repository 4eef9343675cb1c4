"""Bootstrap, permutation and false discovery: the statistics under every measure.

Rows of one image are not independent, so the bootstrap resamples images (`clusters`), within classes (`strata`) when
these are given, rescaled for small classes (`resample_weights`). Intervals of means are BCa (Efron 1987; acceleration
from the stratified jackknife of Davison and Hinkley 1997, section 5.3); any other statistic gets percentile intervals
unless `method="bca"` is asked for.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from conceptbench.errors import ConceptBenchError

Array = NDArray[Any]
Method = Literal["bca", "percentile"]

_CHUNK_ELEMENTS = 4_000_000
ROUNDING: Final = 1e-12
"""Replicates nearer than this to each other, or to the value they are compared with, are equal."""


@dataclass(frozen=True)
class Estimate:
    """A number with its interval; `n` counts the clusters (images), `note` says why an interval is missing.

    A t interval keeps its standard `error` and degrees of `freedom`, so that it can be laid anew at another level.
    """

    estimate: float
    low: float
    high: float
    n: int
    note: str = ""
    error: float | None = None
    freedom: float | None = None

    def row(self, seed: int | str = "all") -> dict[str, Any]:
        """Return the estimate as the columns of a tidy table (`tables.ESTIMATE_COLUMNS`)."""
        columns = {"estimate": self.estimate, "low": self.low, "high": self.high, "n": self.n}
        return {**columns, "seed": str(seed), "note": self.note}


@dataclass(frozen=True)
class Clusters:
    """Rows grouped by cluster: `code` [row] is each row's cluster number, `stratum` [cluster] its stratum number."""

    code: NDArray[np.int64]
    stratum: NDArray[np.int64]

    @property
    def n(self) -> int:
        """Number of clusters."""
        return len(self.stratum)

    def sums(self, values: Array) -> NDArray[np.float64]:
        """Sum `values` [row] or [row, column] over the rows of each cluster, in float64."""
        values = np.asarray(values, dtype=np.float64)
        if values.ndim == 1:
            return self._column(values)
        return np.stack([self._column(column) for column in values.T], axis=1)

    def _column(self, values: Array) -> NDArray[np.float64]:
        return np.asarray(np.bincount(self.code, weights=values, minlength=self.n), dtype=np.float64)

    def sizes(self) -> NDArray[np.float64]:
        """Number of rows of each cluster."""
        return np.bincount(self.code, minlength=self.n).astype(np.float64)


def group(n_rows: int, clusters: ArrayLike | None = None, strata: ArrayLike | None = None) -> Clusters:
    """Group rows by cluster and clusters by stratum.

    Args:
        n_rows: number of rows.
        clusters: [row] identity of the image of each row; every row by itself when None.
        strata: [row] class of each row, the same for all rows of a cluster; one stratum when None.

    Raises:
        ConceptBenchError: when lengths differ or one cluster lies in two strata.
    """
    if clusters is None:
        code = np.arange(n_rows, dtype=np.int64)
    else:
        code = np.unique(np.asarray(clusters), return_inverse=True)[1].astype(np.int64).reshape(-1)
    if len(code) != n_rows:
        raise ConceptBenchError(f"The bootstrap got {n_rows} rows but {len(code)} clusters; pass one for each row.")
    n_clusters = int(code.max()) + 1 if n_rows else 0
    if strata is None:
        return Clusters(code, np.zeros(n_clusters, dtype=np.int64))
    kinds = np.unique(np.asarray(strata), return_inverse=True)[1].astype(np.int64).reshape(-1)
    if len(kinds) != n_rows:
        raise ConceptBenchError(f"The bootstrap got {n_rows} rows but {len(kinds)} strata; pass one for each row.")
    stratum = np.zeros(n_clusters, dtype=np.int64)
    stratum[code] = kinds
    if not np.array_equal(stratum[code], kinds):
        raise ConceptBenchError("The bootstrap found one image in two strata; strata must be constant within an image.")
    return Clusters(code, stratum)


def resample_weights(groups: Clusters, n_resamples: int, rng: np.random.Generator) -> Iterator[NDArray[np.float64]]:
    """Yield the weights [resample, cluster] of rescaled bootstrap samples in chunks, clusters drawn within strata.

    Of the n clusters of a stratum n - 1 are drawn with replacement and their counts scaled by n / (n - 1) (Rao and Wu
    1988, "Resampling inference with complex survey data"): drawing n of n gives (n - 1) / n of the variance of a mean,
    half of it where a class has two images. The weights of a stratum sum to n. A stratum of one cluster keeps it
    with weight 1 and adds no variance; where every stratum is one, nothing can be resampled and all weights are NaN.
    """
    size = np.bincount(groups.stratum)[groups.stratum] if groups.n else np.zeros(0)
    if groups.n and (size == 1).all():
        yield np.full((n_resamples, groups.n), np.nan)
        return
    scale = size / np.maximum(size - 1, 1)
    for counts in _draws(groups, n_resamples, rng):
        yield counts * scale


def _draws(groups: Clusters, n_resamples: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """Multinomial counts [resample, cluster] in chunks: one draw less than a stratum has clusters, at least one."""
    n = groups.n
    members = [np.flatnonzero(groups.stratum == value) for value in np.unique(groups.stratum)]
    chunk = max(1, _CHUNK_ELEMENTS // max(n, 1))
    for start in range(0, n_resamples, chunk):
        size = min(chunk, n_resamples - start)
        offset = (np.arange(size, dtype=np.int64) * n)[:, None]
        counts = np.zeros(size * n, dtype=np.int64)
        for rows in members:
            drawn = rows[rng.integers(0, len(rows), size=(size, max(len(rows) - 1, 1)))]
            counts += np.bincount((drawn + offset).ravel(), minlength=size * n)
        yield counts.reshape(size, n)


def constant(values: ArrayLike) -> bool:
    """Whether values differ by no more than rounding: weights of resamples are fractions, whose sums are not exact."""
    found = np.asarray(values, dtype=np.float64)
    return bool(np.ptp(found) <= ROUNDING * max(1.0, float(np.abs(found).max())))


def bootstrap_means(
    values: ArrayLike,
    *,
    clusters: ArrayLike | None = None,
    strata: ArrayLike | None = None,
    n_resamples: int = 2000,
    level: float = 0.95,
    rng: np.random.Generator,
    method: Method = "bca",
) -> list[Estimate]:
    """Estimate the mean over rows of every column of `values` [row, column], with intervals clustered by image.

    All columns share the resamples, so differences between columns keep their pairing. A single cluster or no rows
    give no interval but a note; a column without variation between clusters gives one of width zero and a note.

    Raises:
        ConceptBenchError: when values are not finite or the grouping is inconsistent.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.ndim != 2:
        raise ConceptBenchError(f"bootstrap_means needs values of shape [row, column], not {table.shape}.")
    if not np.isfinite(table).all():
        raise ConceptBenchError("The bootstrap got values that are not finite; drop those rows and note it.")
    if len(table) == 0:
        return [Estimate(np.nan, np.nan, np.nan, 0, "no rows")] * table.shape[1]
    groups = group(len(table), clusters, strata)
    sums, sizes = groups.sums(table), groups.sizes()
    point = sums.sum(axis=0) / sizes.sum()
    if groups.n == 1:
        return [Estimate(float(value), np.nan, np.nan, 1, "one image only") for value in point]
    chunks = [(w @ sums) / (w @ sizes)[:, None] for w in resample_weights(groups, n_resamples, rng)]
    resampled = np.concatenate(chunks)
    jackknife = None
    if method == "bca":
        jackknife = (sums.sum(axis=0) - sums) / (sizes.sum() - sizes)[:, None]
    return [
        _interval(float(point[i]), resampled[:, i], level, groups, jackknife[:, i] if jackknife is not None else None)
        for i in range(table.shape[1])
    ]


def bootstrap_mean(
    values: ArrayLike,
    clusters: ArrayLike | None = None,
    strata: ArrayLike | None = None,
    *,
    n_resamples: int = 2000,
    level: float = 0.95,
    rng: np.random.Generator,
    method: Method = "bca",
) -> Estimate:
    """Estimate the mean of `values` [row] with an interval clustered by image (BCa by default); see bootstrap_means."""
    column = np.asarray(values, dtype=np.float64).reshape(-1, 1)
    options: dict[str, Any] = {"n_resamples": n_resamples, "level": level, "rng": rng, "method": method}
    return bootstrap_means(column, clusters=clusters, strata=strata, **options)[0]


def paired_difference(
    after: ArrayLike,
    before: ArrayLike,
    clusters: ArrayLike | None = None,
    strata: ArrayLike | None = None,
    *,
    n_resamples: int = 2000,
    level: float = 0.95,
    rng: np.random.Generator,
) -> Estimate:
    """Estimate the mean of `after - before` [row], rows being the same images measured twice."""
    first, second = np.asarray(after, dtype=np.float64), np.asarray(before, dtype=np.float64)
    if first.shape != second.shape:
        raise ConceptBenchError(f"A paired difference needs equal shapes, not {first.shape} and {second.shape}.")
    return bootstrap_mean(first - second, clusters, strata, n_resamples=n_resamples, level=level, rng=rng)


def bootstrap(
    statistic: Callable[..., float],
    *arrays: Array,
    clusters: ArrayLike | None = None,
    n_resamples: int = 2000,
    level: float = 0.95,
    rng: np.random.Generator,
    method: Method = "percentile",
) -> Estimate:
    """Estimate any statistic of rows with an interval clustered by image.

    A resample is n - 1 of the n images (see `resample_weights`), so the statistic must not depend on their number, as
    a mean or a median does not. Strata would need weights: `bootstrap_weighted`.

    Args:
        statistic: called with the arrays restricted to the resampled rows; returns a number.
        arrays: arrays with equal first axis [row, ...].
        clusters: [row] image of each row.
        n_resamples: number of bootstrap samples. level: coverage of the interval.
        rng: source of randomness. method: percentile, or bca (adds one call for each cluster).

    Resamples whose statistic is not finite are left out; the note says how many when there are any.
    """
    n_rows = len(arrays[0])
    if any(len(array) != n_rows for array in arrays):
        raise ConceptBenchError("The bootstrap needs arrays with the same number of rows.")
    if n_rows == 0:
        return Estimate(np.nan, np.nan, np.nan, 0, "no rows")
    groups = group(n_rows, clusters)
    point = float(statistic(*arrays))
    if groups.n == 1:
        return Estimate(point, np.nan, np.nan, 1, "one image only")
    order = np.argsort(groups.code, kind="stable")
    starts = np.concatenate([[0], np.cumsum(np.bincount(groups.code, minlength=groups.n))])
    rows_of = [order[starts[i] : starts[i + 1]] for i in range(groups.n)]

    def evaluate(counts: NDArray[np.int64]) -> float:
        rows = np.concatenate([rows_of[i] for i in np.repeat(np.arange(groups.n), counts)])
        return float(statistic(*(array[rows] for array in arrays)))

    resampled = np.array([evaluate(counts) for chunk in _draws(groups, n_resamples, rng) for counts in chunk])
    jackknife = None
    if method == "bca":
        ones = np.ones(groups.n, dtype=np.int64)
        jackknife = np.array([evaluate(ones - (np.arange(groups.n) == i)) for i in range(groups.n)])
    return _interval(point, resampled, level, groups, jackknife)


def bootstrap_weighted(
    statistic: Callable[[NDArray[np.float64]], Array],
    groups: Clusters,
    *,
    n_resamples: int = 2000,
    level: float = 0.95,
    rng: np.random.Generator,
) -> Estimate:
    """Percentile interval of a statistic that takes weights [resample, cluster] and returns [resample] at once."""
    point = float(statistic(np.ones((1, groups.n)))[0])
    if groups.n == 1:
        return Estimate(point, np.nan, np.nan, 1, "one image only")
    resampled = np.concatenate([statistic(weights) for weights in resample_weights(groups, n_resamples, rng)])
    return _interval(point, resampled, level, groups, None)


def _interval(point: float, resampled: Array, level: float, groups: Clusters, jackknife: Array | None) -> Estimate:
    finite = resampled[np.isfinite(resampled)]
    lost = len(resampled) - len(finite)
    note = f"{lost} of {len(resampled)} resamples undefined" if lost else ""
    if not np.isfinite(point) or len(finite) < len(resampled) // 2:
        return Estimate(point, np.nan, np.nan, groups.n, note or "undefined")
    if constant(finite):
        return Estimate(point, point, point, groups.n, note or "no variation between images")
    tails = np.array([(1 - level) / 2, (1 + level) / 2])
    if jackknife is not None and np.isfinite(jackknife).all():
        tails = _bca_tails(point, finite, tails, groups, jackknife)
    low, high = np.quantile(finite, tails)
    return Estimate(point, float(low), float(high), groups.n, note)


def _bca_tails(point: float, resampled: Array, tails: Array, groups: Clusters, jackknife: Array) -> Array:
    """Shift the tail probabilities by bias (ties counted half) and by acceleration (stratified jackknife)."""
    count = len(resampled)
    tied = np.abs(resampled - point) <= ROUNDING * max(1.0, abs(point))
    below = (np.sum((resampled < point) & ~tied) + 0.5 * np.sum(tied)) / count
    bias = ndtri(np.clip(below, 0.5 / count, 1 - 0.5 / count))
    members = np.bincount(groups.stratum).astype(np.float64)
    centre = np.bincount(groups.stratum, weights=jackknife) / members
    size = members[groups.stratum]
    influence = (size - 1) / size * (centre[groups.stratum] - jackknife)
    spread = np.sum(influence**2) ** 1.5
    acceleration = np.sum(influence**3) / (6 * spread) if spread > 0 else 0.0
    shifted = bias + ndtri(tails)
    return np.asarray(ndtr(bias + shifted / (1 - acceleration * shifted)))


def permutation_p(
    observed: ArrayLike, null: ArrayLike, alternative: Literal["greater", "less", "two-sided"] = "greater"
) -> Array:
    """Return permutation p-values (1 + #) / (1 + P) (Phipson and Smyth 2010), never zero.

    Args:
        observed: number or [m]. null: [P] or [P, m] statistics of permuted data.
        alternative: two-sided doubles the smaller tail.
    """
    value, draws = np.asarray(observed, dtype=np.float64), np.asarray(null, dtype=np.float64)
    if not (np.isfinite(value).all() and np.isfinite(draws).all()):
        raise ConceptBenchError("A permutation test got values that are not finite; drop them and say so in the table.")
    total = draws.shape[0] + 1
    greater = (1 + np.sum(draws >= value, axis=0)) / total
    less = (1 + np.sum(draws <= value, axis=0)) / total
    if alternative == "greater":
        return np.asarray(greater)
    if alternative == "less":
        return np.asarray(less)
    return np.asarray(np.minimum(1.0, 2 * np.minimum(greater, less)))


def sign_flip_p(
    differences: ArrayLike, clusters: ArrayLike | None = None, *, n_permutations: int = 2000, rng: np.random.Generator
) -> float:
    """Two-sided p-value of a zero mean of paired differences [row], the signs of whole clusters flipped at random."""
    values = np.asarray(differences, dtype=np.float64)
    sums = group(len(values), clusters).sums(values)
    signs = rng.choice(np.array([-1.0, 1.0]), size=(n_permutations, len(sums)))
    tolerance = 1e-12 * np.abs(sums).sum()
    return float(permutation_p(abs(sums.sum()), np.abs(signs @ sums) + tolerance))


def _checked_p(p: ArrayLike) -> Array:
    values = np.asarray(p, dtype=np.float64)
    if not np.all((values >= 0) & (values <= 1)):
        raise ConceptBenchError("A correction for many tests got p-values outside 0..1.")
    return values


def benjamini_hochberg(p: ArrayLike) -> Array:
    """Return the adjusted p-values (q) [m] that control the false discovery rate (Benjamini and Hochberg 1995)."""
    values = _checked_p(p)
    order = np.argsort(values)[::-1]
    scaled = values[order] * len(values) / np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.minimum.accumulate(scaled))
    return adjusted


def holm(p: ArrayLike) -> Array:
    """Return the adjusted p-values [m] that control the family-wise error (Holm 1979)."""
    values = _checked_p(p)
    order = np.argsort(values)
    scaled = values[order] * np.arange(len(values), 0, -1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(scaled))
    return adjusted
