"""Where a latent fires against where the factor is: average precision and IoU over patches, with soft masks.

A mask gives every patch the share m of its area that the factor value covers. Average precision counts the patch as
positive with weight m and negative with weight 1 - m. IoU of a thresholded latent b is sum min(b, m) / sum max(b, m),
pooled over all patches of split B. Both have a ceiling below one, what a latent equal to the mask would reach on this
patch grid, and a floor, what a latent that fires everywhere reaches. Latent and threshold are chosen on split A.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from conceptbench.errors import ConceptBenchError
from conceptbench.measures.comparison import pool_seeds
from conceptbench.measures.ranking import best_threshold, column, curve, rank_all, replicate
from conceptbench.measures.resampling import Pooled, Weights, image_weights, interval
from conceptbench.measures.sparse import SparseCodes, is_signed, patch_scores, split_sign

METRICS = ("average_precision", "iou")


@dataclass(frozen=True)
class PatchSpec:
    """Choices of the patch-level measure."""

    prefix_tokens: int = 1
    minimum_mass: float = 10.0
    """Values that cover less than this many patches in either split get no estimate, and a note."""
    n_resamples: int = 200


@dataclass(frozen=True)
class PatchRecovery:
    """Patch-level recovery of one dictionary: the table, and replicates [metric, value, resample] of METRICS."""

    table: pd.DataFrame
    replicates: NDArray[np.float32]
    scored: NDArray[np.bool_]
    selected: float
    n_images: int


@dataclass(frozen=True)
class _Masked:
    """Patch scores [image * patch, column] and masks [image * patch, value] of one split."""

    scores: sparse.csc_array
    masks: NDArray[np.float64]
    images: NDArray[np.int64]
    width: int


def recover_patches(
    codes_a: SparseCodes,
    masks_a: dict[tuple[str, str], NDArray[np.floating[Any]]],
    codes_b: SparseCodes,
    masks_b: dict[tuple[str, str], NDArray[np.floating[Any]]],
    rng: np.random.Generator,
    spec: PatchSpec | None = None,
) -> PatchRecovery:
    """Best latent of every factor value by average precision over the patches of A, scored over the patches of B.

    Args:
        masks_a, masks_b: (factor, value) -> covered share of every patch [image, patch], row-major.

    Returns:
        A `PatchRecovery` whose table has factor, value, metric (average_precision, iou), latent, sign, selected (on
        A), ceiling, floor, estimate, low, high, n (images), note.
    """
    spec = spec or PatchSpec()
    names = list(masks_a)
    signed = is_signed(codes_a) or is_signed(codes_b)
    a, b = _masked(codes_a, masks_a, names, signed, spec), _masked(codes_b, masks_b, names, signed, spec)
    scored = np.minimum(a.masks.sum(axis=0), b.masks.sum(axis=0)) >= spec.minimum_mass
    precision = rank_all(a.scores, a.masks).average_precision
    best = np.argmax(np.nan_to_num(precision, nan=-1.0), axis=0)
    weights = image_weights(codes_b.shape[0], spec.n_resamples, rng)
    replicates = np.full((len(METRICS), len(names), spec.n_resamples), np.nan, dtype=np.float32)
    rows: list[dict[str, Any]] = []
    for at, name in enumerate(names):
        base = {"factor": name[0], "value": name[1]}
        if not scored[at]:
            rows += [base | _unscored(metric, codes_b.shape[0], spec) for metric in METRICS]
            continue
        found, drawn = _score_value(a, b, int(best[at]), at, weights)
        replicates[:, at] = drawn
        rows += [base | row for row in found]
    mean = float(np.mean(precision[best[scored], np.flatnonzero(scored)])) if scored.any() else float("nan")
    return PatchRecovery(pd.DataFrame(rows), replicates, scored, mean, codes_b.shape[0])


def patch_summary(recoveries: Mapping[str, PatchRecovery]) -> tuple[pd.DataFrame, dict[str, Pooled]]:
    """Means over factor values (mean_average_precision, mean_iou) per seed and over seeds; see recovery_summary.

    Returns:
        level ("patch"), statistic, estimate, low, high, n, seed, note; and each statistic over the seeds.
    """
    per_seed = {}
    for seed, recovery in recoveries.items():
        drawn = recovery.replicates[:, recovery.scored].astype(np.float64)
        point = recovery.table.groupby("metric")["estimate"].mean()
        per_seed[seed] = {f"mean_{m}": (float(point[m]), np.nanmean(drawn[i], axis=0)) for i, m in enumerate(METRICS)}
    n = next(iter(recoveries.values())).n_images
    return pool_seeds(per_seed, level="patch", n=n)


def mask_ceiling(mask: NDArray[np.float64]) -> dict[str, float]:
    """What a latent equal to the mask reaches: average precision of the mask, and the best IoU of a binary patch map.

    A map that fires where m > t has IoU sum_{m > t} m / (#{m > t} + sum_{m <= t} m); the ceiling is its largest value.
    """
    order = np.argsort(-mask, kind="stable")
    ranked = mask[order]
    inside = np.cumsum(ranked)
    firing = np.arange(1, len(ranked) + 1)
    last_of_tie = np.append(ranked[1:] != ranked[:-1], True)
    iou = inside / (firing + inside[-1] - inside)
    items = order[ranked > 0]
    return {
        "iou": float(iou[last_of_tie].max()),
        "average_precision": curve(items, mask[items], mask, 1 - mask).average_precision,
    }


def _masked(
    codes: SparseCodes,
    masks: dict[tuple[str, str], NDArray[np.floating[Any]]],
    names: list[tuple[str, str]],
    signed: bool,
    spec: PatchSpec,
) -> _Masked:
    n_images, n_tokens, width = codes.shape
    n_patches = n_tokens - spec.prefix_tokens
    for name in names:
        if name not in masks or masks[name].shape != (n_images, n_patches):
            found = masks[name].shape if name in masks else "none"
            raise ConceptBenchError(
                f"The masks of {name[0]}={name[1]} have shape {found}; the codes need {(n_images, n_patches)}."
            )
    stacked = np.stack([masks[name].reshape(-1) for name in names], axis=1).astype(np.float64)
    scores = patch_scores(codes, prefix_tokens=spec.prefix_tokens, both_signs=signed)
    return _Masked(scores, stacked, np.repeat(np.arange(n_images), n_patches), width)


def _unscored(metric: str, n: int, spec: PatchSpec) -> dict[str, Any]:
    note = f"covers fewer than {spec.minimum_mass:g} patches on a split"
    empty = {"latent": -1, "sign": 1, "selected": np.nan, "ceiling": np.nan, "floor": np.nan}
    return {"metric": metric, **empty, "estimate": np.nan, "low": np.nan, "high": np.nan, "n": n, "note": note}


def _score_value(
    a: _Masked, b: _Masked, best: int, at: int, weights: Weights
) -> tuple[list[dict[str, Any]], NDArray[np.float64]]:
    n = weights.shape[1]
    items_a, values_a = column(a.scores, best)
    mask_a, mask = a.masks[:, at].copy(), b.masks[:, at].copy()
    threshold, _ = best_threshold(items_a, values_a, mask_a, 1 - mask_a)
    on_a = curve(items_a, values_a, mask_a, 1 - mask_a).average_precision
    items, values = column(b.scores, best)
    precision = curve(items, values, mask, 1 - mask).average_precision
    drawn = replicate(items, values, mask, 1 - mask, b.images, weights).average_precision
    overlap_a, overlap = _overlap(items_a, values_a, threshold, a, at), _overlap(items, values, threshold, b, at)
    iou = weights @ overlap[0] / np.maximum(weights @ overlap[1], 1e-12)
    points = {"average_precision": precision, "iou": float(overlap[0].sum() / overlap[1].sum())}
    selected = {"average_precision": on_a, "iou": float(overlap_a[0].sum() / overlap_a[1].sum())}
    latent, sign = split_sign(best, b.width)
    ceiling, rows = mask_ceiling(mask), []
    for metric, replicates in zip(METRICS, (drawn, iou), strict=True):
        ends = interval(points[metric], replicates, n).row()
        del ends["seed"]
        row = {"metric": metric, "latent": latent, "sign": sign, "selected": selected[metric]}
        rows.append(row | {"ceiling": ceiling[metric], "floor": float(mask.mean()), **ends})
    return rows, np.stack([drawn, iou])


def _overlap(
    items: NDArray[np.int64], values: NDArray[np.float64], threshold: float, masked: _Masked, at: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Intersection and union of the thresholded latent with the mask, summed in every image."""
    mask = masked.masks[:, at]
    fires = np.zeros(len(mask))
    fires[items[values >= threshold]] = 1.0
    if threshold < 0:
        silent = np.ones(len(mask), dtype=np.bool_)
        silent[items] = False
        fires[silent] = 1.0
    n = int(masked.images[-1]) + 1
    both = np.bincount(masked.images, np.minimum(fires, mask), n).astype(np.float64)
    either = np.bincount(masked.images, np.maximum(fires, mask), n).astype(np.float64)
    return both, either
