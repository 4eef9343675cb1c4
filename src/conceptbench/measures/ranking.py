"""Ranking scores of sparse latents: AUROC, average precision and F1, exact in ties, without ranking the zeros.

A latent's zeros form one tie group between its positive and its negative values. Only non-zeros are sorted; the
group at zero gets the positive and negative weight that is left. Labels may be soft: an item counts as positive with
weight `positive` and as negative with weight `negative` (for a patch: its covered and its uncovered share).

AUROC is P(score of a positive > score of a negative) + P(tie) / 2 (Mann and Whitney 1947). Average precision is
the sum over tie groups, from the top, of (gain in recall) x (precision at the end of the group).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import sparse

from conceptbench.measures.resampling import Weights

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Ranks:
    """Scores of every latent against every label: AUROC and average precision, both [latent, label]."""

    auroc: Floats
    average_precision: Floats


@dataclass(frozen=True)
class Curve:
    """Point values of the three scores of one latent against one label."""

    auroc: float
    average_precision: float
    f1: float


@dataclass(frozen=True)
class Replicates:
    """Bootstrap replicates [resample] of the three scores of one latent against one label."""

    auroc: Floats
    average_precision: Floats
    f1: Floats


def rank_all(scores: sparse.csc_array, positive: NDArray[Any], negative: NDArray[Any] | None = None) -> Ranks:
    """AUROC and average precision of every column of scores [item, latent] for labels [item, label].

    `negative` defaults to 1 - `positive`; items with both weights zero are left out of that label. A label without
    positives or without negatives gets NaN.
    """
    columns = scores if scores.has_sorted_indices else scores.sorted_indices()
    plus = np.ascontiguousarray(positive, dtype=np.float64)
    minus = 1.0 - plus if negative is None else np.ascontiguousarray(negative, dtype=np.float64)
    auroc, precision = _rank_all_kernel(
        columns.indptr.astype(np.int64), columns.indices.astype(np.int64), columns.data.astype(np.float64), plus, minus
    )
    return Ranks(auroc, precision)


def column(scores: sparse.csc_array, index: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Items and values of one column, from the largest value to the smallest."""
    first, last = int(scores.indptr[index]), int(scores.indptr[index + 1])
    items, values = scores.indices[first:last].astype(np.int64), scores.data[first:last].astype(np.float64)
    order = np.argsort(-values, kind="stable")
    return items[order], values[order]


def best_threshold(items: NDArray[np.int64], values: Floats, positive: Floats, negative: Floats) -> tuple[float, float]:
    """Threshold with the largest F1 of "score >= threshold", and that F1; zero is never a threshold.

    Returns (inf, 0) when the latent has no non-zero score.
    """
    if not values.size:
        return float("inf"), 0.0
    on_true, on_false = np.cumsum(positive[items]), np.cumsum(negative[items])
    total, rest_true, rest_false = positive.sum(), positive.sum() - on_true[-1], negative.sum() - on_false[-1]
    below = values < 0
    on_true, on_false = on_true + rest_true * below, on_false + rest_false * below
    f1 = 2 * on_true / np.maximum(on_true + on_false + total, 1e-300)
    f1[:-1][values[:-1] == values[1:]] = -1.0
    best = int(np.argmax(f1))
    return float(values[best]), float(f1[best])


def replicate(
    items: NDArray[np.int64],
    values: Floats,
    positive: Floats,
    negative: Floats,
    clusters: NDArray[np.int64],
    weights: Weights,
    threshold: float = float("inf"),
) -> Replicates:
    """Bootstrap replicates of AUROC, average precision and F1 of one latent (items sorted by falling value).

    `clusters` [item] is the position of each item's image among the columns of weights [resample, image].
    """
    n = weights.shape[1]
    totals = np.stack([np.bincount(clusters, w, n) for w in (positive, negative)])
    sums = np.ascontiguousarray(weights @ totals.T)
    parts = _replicate_kernel(
        values, positive[items], negative[items], clusters[items], np.ascontiguousarray(weights), sums, threshold
    )
    return Replicates(*parts)


def curve(
    items: NDArray[np.int64], values: Floats, positive: Floats, negative: Floats, threshold: float = float("inf")
) -> Curve:
    """Point values of AUROC, average precision and F1 (at `threshold`) of one latent."""
    clusters = np.zeros(positive.size, dtype=np.int64)
    once = replicate(items, values, positive, negative, clusters, np.ones((1, 1)), threshold)
    return Curve(float(once.auroc[0]), float(once.average_precision[0]), float(once.f1[0]))


def mann_whitney_ranks(items: NDArray[np.int64], values: Floats, n: int) -> Floats:
    """Mid-ranks (1-based, ties averaged) of all n items of one latent, zeros included."""
    dense = np.zeros(n)
    dense[items] = values
    _, inverse, counts = np.unique(dense, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[inverse])


def _rank_all(indptr, indices, data, positive, negative):  # type: ignore[no-untyped-def]  # pragma: no cover
    n_latents, n_labels = indptr.size - 1, positive.shape[1]
    total_true, total_false = positive.sum(axis=0), negative.sum(axis=0)
    auroc = np.full((n_latents, n_labels), np.nan)
    precision = np.full((n_latents, n_labels), np.nan)
    for latent in range(n_latents):
        first, last = indptr[latent], indptr[latent + 1]
        values, rows = data[first:last], indices[first:last]
        order = np.argsort(-values)
        seen_true, seen_false = np.zeros(n_labels), np.zeros(n_labels)
        area, average = np.zeros(n_labels), np.zeros(n_labels)
        group_true, group_false = np.zeros(n_labels), np.zeros(n_labels)
        rest_true, rest_false = total_true.copy(), total_false.copy()
        for row in rows:
            for label in range(n_labels):
                rest_true[label] -= positive[row, label]
                rest_false[label] -= negative[row, label]
        zero_done = False
        at = 0
        while at < values.size or not zero_done:
            group_true[:] = 0.0
            group_false[:] = 0.0
            if not zero_done and (at == values.size or values[order[at]] < 0):
                group_true[:] = np.maximum(rest_true, 0.0)
                group_false[:] = np.maximum(rest_false, 0.0)
                zero_done = True
            else:
                value = values[order[at]]
                while at < values.size and values[order[at]] == value:
                    row = rows[order[at]]
                    for label in range(n_labels):
                        group_true[label] += positive[row, label]
                        group_false[label] += negative[row, label]
                    at += 1
            for label in range(n_labels):
                area[label] += group_false[label] * (seen_true[label] + group_true[label] / 2)
                seen_true[label] += group_true[label]
                seen_false[label] += group_false[label]
                if seen_true[label] > 0:
                    average[label] += group_true[label] * seen_true[label] / (seen_true[label] + seen_false[label])
        for label in range(n_labels):
            if total_true[label] > 0 and total_false[label] > 0:
                auroc[latent, label] = area[label] / (total_true[label] * total_false[label])
                precision[latent, label] = average[label] / total_true[label]
    return auroc, precision


def _replicate(values, positive, negative, clusters, weights, sums, threshold):  # type: ignore[no-untyped-def]  # pragma: no cover
    n_resamples = weights.shape[0]
    auroc, precision, f1 = np.full(n_resamples, np.nan), np.full(n_resamples, np.nan), np.full(n_resamples, np.nan)
    for resample in range(n_resamples):
        total_true, total_false = sums[resample, 0], sums[resample, 1]
        if total_true <= 0 or total_false <= 0:
            continue
        rest_true, rest_false = total_true, total_false
        for at in range(values.size):
            rest_true -= positive[at] * weights[resample, clusters[at]]
            rest_false -= negative[at] * weights[resample, clusters[at]]
        rest_true, rest_false = max(rest_true, 0.0), max(rest_false, 0.0)
        seen_true = seen_false = area = average = 0.0
        hit_true = hit_false = 0.0
        zero_done = False
        at = 0
        while at < values.size or not zero_done:
            group_true = group_false = 0.0
            value = 0.0
            if not zero_done and (at == values.size or values[at] < 0):
                group_true, group_false = rest_true, rest_false
                zero_done = True
            else:
                value = values[at]
                while at < values.size and values[at] == value:
                    weight = weights[resample, clusters[at]]
                    group_true += positive[at] * weight
                    group_false += negative[at] * weight
                    at += 1
            area += group_false * (seen_true + group_true / 2)
            seen_true += group_true
            seen_false += group_false
            if seen_true > 0:
                average += group_true * seen_true / (seen_true + seen_false)
            if value >= threshold:
                hit_true, hit_false = seen_true, seen_false
        auroc[resample] = area / (total_true * total_false)
        precision[resample] = average / total_true
        f1[resample] = 2 * hit_true / (hit_true + hit_false + total_true)
    return auroc, precision, f1


_rank_all_kernel = njit(cache=True)(_rank_all)
_replicate_kernel = njit(cache=True)(_replicate)
