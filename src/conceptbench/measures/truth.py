"""Factor recovery: is there a latent for every factor value of the rendered world, and how well does it locate it?

Every choice (latent, direction, threshold) is made on split A, every number is from split B. The nulls are other
dictionaries run through the same functions: random, raw, pca (raw coordinates and components come as two latents each,
their positive and their negative part), and dictionaries of control backbones. Codes of other origin that have negative
values (`ArrayCodes`) are tried in both directions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from conceptbench.errors import ConceptBenchError
from conceptbench.inference import benjamini_hochberg, permutation_p
from conceptbench.measures.comparison import pool_seeds
from conceptbench.measures.ranking import best_threshold, column, curve, mann_whitney_ranks, rank_all, replicate
from conceptbench.measures.resampling import Pooled, Weights, image_weights, interval
from conceptbench.measures.sparse import Reduce, SparseCodes, image_scores, is_signed, split_sign

METRICS = ("auroc", "average_precision", "f1")
THRESHOLDS = (0.90, 0.95)


@dataclass(frozen=True)
class FactorLabels:
    """Presence of every factor value in every image: present [image, value], named by (factor, value)."""

    present: NDArray[np.bool_]
    names: tuple[tuple[str, str], ...]

    def subset(self, images: NDArray[Any]) -> "FactorLabels":
        """The same labels for some images, by position."""
        return FactorLabels(self.present[images], self.names)


@dataclass(frozen=True)
class TruthSpec:
    """Choices of the factor-recovery measure."""

    score: Reduce = "max"
    """How an image's patch tokens become one score: their max (default) or mean."""
    prefix_tokens: int = 1
    minimum_positive: int = 10
    """Factor values with fewer images than this on either side of either split get no estimate, and a note."""
    n_resamples: int = 1000
    n_permutations: int = 1000


@dataclass(frozen=True)
class Side:
    """One split of one dictionary: scores [image, column] (two columns a latent when signed) and the labels."""

    scores: sparse.csc_array
    labels: FactorLabels
    width: int


@dataclass(frozen=True)
class Recovery:
    """Factor recovery of one dictionary with its bootstrap replicates, so that two can be compared pairwise.

    `replicates` has shape [metric, value, resample] in the order of METRICS and of `names`; `scored` marks the values
    with enough images. `selected` is the mean AUROC of the chosen latents on split A.
    """

    table: pd.DataFrame
    replicates: NDArray[np.float32]
    scored: NDArray[np.bool_]
    names: tuple[tuple[str, str], ...]
    columns: NDArray[np.int64]
    thresholds: NDArray[np.float64]
    selected: float
    n_images: int


def factor_labels(
    factors: pd.DataFrame, images: Sequence[int] | NDArray[Any], names: Sequence[tuple[str, str]] | None = None
) -> FactorLabels:
    """Presence of every factor value from a long table [image, factor, value]; several values an image are allowed.

    Args:
        factors: columns image, factor, value. images: image numbers, in the order of the codes.
        names: (factor, value) pairs to use, in order; all that occur, sorted, when None.
    """
    missing = {"image", "factor", "value"} - set(factors.columns)
    if missing:
        raise ConceptBenchError(f"The factor table lacks the column(s) {', '.join(sorted(missing))}.")
    position = {int(image): at for at, image in enumerate(images)}
    rows = factors[factors["image"].isin(position)]
    pairs = list(zip(rows["factor"].astype(str), rows["value"].astype(str), strict=True))
    chosen = tuple(names) if names is not None else tuple(sorted(set(pairs)))
    index = {name: at for at, name in enumerate(chosen)}
    present = np.zeros((len(position), len(chosen)), dtype=np.bool_)
    for image, pair in zip(rows["image"], pairs, strict=True):
        if pair in index:
            present[position[int(image)], index[pair]] = True
    return FactorLabels(present, chosen)


def side(codes: SparseCodes, labels: FactorLabels, spec: TruthSpec, both_signs: bool) -> Side:
    """Image-level scores of one split beside its labels."""
    if codes.shape[0] != len(labels.present):
        raise ConceptBenchError(
            f"Factor recovery got {codes.shape[0]} coded images and labels for {len(labels.present)}."
        )
    scores = image_scores(codes, reduce=spec.score, prefix_tokens=spec.prefix_tokens, both_signs=both_signs)
    return Side(scores, labels, codes.shape[2])


def sides(
    codes_a: SparseCodes, labels_a: FactorLabels, codes_b: SparseCodes, labels_b: FactorLabels, spec: TruthSpec
) -> tuple[Side, Side]:
    """Both splits of one dictionary; both directions are tried when either split has negative values."""
    if labels_a.names != labels_b.names:
        raise ConceptBenchError("Factor recovery needs the same factor values, in the same order, on both splits.")
    signed = is_signed(codes_a) or is_signed(codes_b)
    return side(codes_a, labels_a, spec, signed), side(codes_b, labels_b, spec, signed)


def recover_factors(a: Side, b: Side, rng: np.random.Generator, spec: TruthSpec | None = None) -> Recovery:
    """Best latent of every factor value, chosen on split A by AUROC and scored on split B.

    Give every dictionary a generator in the same state: they then share the resampled images and can be compared.

    Returns:
        A `Recovery` whose table has, for every value and metric (auroc, average_precision, f1): factor, value, metric,
        latent, sign, score, selected (the metric on A), threshold (for F1, from A), n_positive (on B), base_rate, p
        and q (one-sided permutation of the images of B, auroc only), estimate, low, high, n, note.
    """
    spec = spec or TruthSpec()
    n = len(b.labels.present)
    weights = image_weights(n, spec.n_resamples, rng)
    permutations = np.argsort(rng.random((spec.n_permutations, n)), axis=1)
    auroc = rank_all(a.scores, a.labels.present).auroc
    scored = _enough(a.labels, spec) & _enough(b.labels, spec)
    best = np.argmax(np.nan_to_num(auroc, nan=-1.0), axis=0)
    replicates = np.full((len(METRICS), len(best), spec.n_resamples), np.nan, dtype=np.float32)
    thresholds, rows = np.full(len(best), np.inf), []
    for at, name in enumerate(b.labels.names):
        if not scored[at]:
            rows += _unscored(name, b, at, spec)
            continue
        thresholds[at], selected, point, drawn = _score_one(a, b, int(best[at]), at, weights)
        replicates[:, at] = drawn
        p = _permutation_p(b, int(best[at]), at, permutations)
        rows += _scored(name, b, at, int(best[at]), spec, thresholds[at], selected, point, drawn, p)
    table = pd.DataFrame(rows)
    _add_q(table)
    mean = float(np.mean(auroc[best[scored], np.flatnonzero(scored)])) if scored.any() else float("nan")
    return Recovery(table, replicates, scored, b.labels.names, best, thresholds, mean, n)


def recovery_summary(recoveries: Mapping[str, Recovery]) -> tuple[pd.DataFrame, dict[str, Pooled]]:
    """Means over factor values and shares recovered, for every seed of one dictionary and over all seeds.

    Args:
        recoveries: the recovery of each seed (key: the seed as text); all with the same images and resamples.

    Returns:
        A table with level ("image"), statistic (mean_auroc, mean_average_precision, mean_f1, recovered_at_0.90,
        recovered_at_0.95), estimate, low, high, n, seed ("all" pools the seeds), note; and each statistic over
        the seeds. Values without enough images are left out of means and shares.
    """
    per_seed = {seed: _statistics(recovery) for seed, recovery in recoveries.items()}
    n = next(iter(recoveries.values())).n_images
    return pool_seeds(per_seed, level="image", n=n)


def permutation_null(
    a: Side, b: Side, rng: np.random.Generator, n_permutations: int = 200, spec: TruthSpec | None = None
) -> pd.DataFrame:
    """What selection alone yields: the whole procedure with the images' labels permuted, on A and on B.

    Returns:
        factor, value, selected_null (mean over permutations of the largest AUROC on A: the optimism of choosing among
        all latents), held_out_null (mean AUROC of that latent on B, near 0.5), held_out_null_high (95 % quantile), n
        (permutations), note.
    """
    spec = spec or TruthSpec()
    scored = _enough(a.labels, spec) & _enough(b.labels, spec)
    chosen, held_out = np.empty((n_permutations, len(scored))), np.empty((n_permutations, len(scored)))
    for draw in range(n_permutations):
        in_a = rank_all(a.scores, a.labels.present[rng.permutation(len(a.labels.present))]).auroc
        best = np.argmax(np.nan_to_num(in_a, nan=-1.0), axis=0)
        permuted = b.labels.present[rng.permutation(len(b.labels.present))].astype(np.float64)
        chosen[draw] = in_a[best, np.arange(len(best))]
        for at in np.flatnonzero(scored):
            items, values = column(b.scores, int(best[at]))
            held_out[draw, at] = curve(items, values, permuted[:, at], 1 - permuted[:, at]).auroc
    chosen[:, ~scored] = held_out[:, ~scored] = np.nan
    frame = pd.DataFrame(b.labels.names, columns=["factor", "value"])
    frame["selected_null"] = chosen.mean(axis=0)
    frame["held_out_null"] = held_out.mean(axis=0)
    frame["held_out_null_high"] = np.quantile(held_out, 0.95, axis=0)
    return frame.assign(n=n_permutations, note=np.where(scored, "", _too_few(spec)))


def _enough(labels: FactorLabels, spec: TruthSpec) -> NDArray[np.bool_]:
    positive = labels.present.sum(axis=0)
    return np.asarray(np.minimum(positive, len(labels.present) - positive) >= spec.minimum_positive)


def _too_few(spec: TruthSpec) -> str:
    return f"fewer than {spec.minimum_positive} images with or without it on a split"


def _score_one(
    a: Side, b: Side, best: int, at: int, weights: Weights
) -> tuple[float, tuple[float, ...], tuple[float, ...], NDArray[np.float64]]:
    """Threshold from A, the three metrics on A and on B, and the replicates [metric, resample] on B."""
    plus_a, plus_b = a.labels.present[:, at].astype(np.float64), b.labels.present[:, at].astype(np.float64)
    items_a, values_a = column(a.scores, best)
    threshold, f1_a = best_threshold(items_a, values_a, plus_a, 1 - plus_a)
    on_a = curve(items_a, values_a, plus_a, 1 - plus_a)
    items, values = column(b.scores, best)
    on_b = curve(items, values, plus_b, 1 - plus_b, threshold)
    drawn = replicate(items, values, plus_b, 1 - plus_b, np.arange(len(plus_b)), weights, threshold)
    stacked = np.stack([drawn.auroc, drawn.average_precision, drawn.f1])
    selected = (on_a.auroc, on_a.average_precision, f1_a)
    return threshold, selected, (on_b.auroc, on_b.average_precision, on_b.f1), stacked


def _permutation_p(b: Side, best: int, at: int, permutations: NDArray[np.int64]) -> float:
    """One-sided p of the chosen latent's AUROC on B: the labels of B are permuted (rank sums are equivalent)."""
    items, values = column(b.scores, best)
    ranks = mann_whitney_ranks(items, values, len(b.labels.present))
    positive = np.flatnonzero(b.labels.present[:, at])
    null = ranks[permutations[:, : positive.size]].sum(axis=1)
    return float(permutation_p(ranks[positive].sum(), null))


def _row(name: tuple[str, str], metric: str, b: Side, at: int, spec: TruthSpec) -> dict[str, Any]:
    positive = int(b.labels.present[:, at].sum())
    base = {"factor": name[0], "value": name[1], "metric": metric, "score": spec.score}
    return {**base, "n_positive": positive, "base_rate": positive / len(b.labels.present)}


def _unscored(name: tuple[str, str], b: Side, at: int, spec: TruthSpec) -> list[dict[str, Any]]:
    empty = {"latent": -1, "sign": 1, "selected": np.nan, "threshold": np.nan, "p": np.nan}
    ends = {"estimate": np.nan, "low": np.nan, "high": np.nan, "n": len(b.labels.present), "note": _too_few(spec)}
    return [{**_row(name, metric, b, at, spec), **empty, **ends} for metric in METRICS]


def _scored(
    name: tuple[str, str],
    b: Side,
    at: int,
    best: int,
    spec: TruthSpec,
    threshold: float,
    selected: tuple[float, ...],
    point: tuple[float, ...],
    drawn: NDArray[np.float64],
    p: float,
) -> list[dict[str, Any]]:
    latent, sign = split_sign(best, b.width)
    rows = []
    for metric, on_a, on_b, replicates in zip(METRICS, selected, point, drawn, strict=True):
        estimate = interval(on_b, replicates, len(b.labels.present))
        row = _row(name, metric, b, at, spec) | {"latent": latent, "sign": sign, "selected": on_a}
        row |= {"threshold": threshold if metric == "f1" else np.nan, "p": p if metric == "auroc" else np.nan}
        rows.append(row | {k: v for k, v in estimate.row().items() if k != "seed"})
    return rows


def _add_q(table: pd.DataFrame) -> None:
    table["q"] = np.nan
    tested = table["p"].notna()
    if tested.any():
        table.loc[tested, "q"] = benjamini_hochberg(table.loc[tested, "p"].to_numpy())


def _statistics(recovery: Recovery) -> dict[str, tuple[float, NDArray[np.float64]]]:
    """Point value and replicates of every summary statistic of one seed."""
    point = recovery.table.pivot_table(index=["factor", "value"], columns="metric", values="estimate", dropna=False)
    values = point.reindex(pd.MultiIndex.from_tuples(recovery.names))[recovery.scored]
    drawn = recovery.replicates[:, recovery.scored].astype(np.float64)
    out = {
        f"mean_{metric}": (float(values[metric].mean()), np.nanmean(drawn[at], axis=0))
        for at, metric in enumerate(METRICS)
    }
    for threshold in THRESHOLDS:
        share = float((values["auroc"] >= threshold).mean())
        out[f"recovered_at_{threshold:.2f}"] = (share, (drawn[0] >= threshold).mean(axis=0))
    return out
