"""Which latents are on top for a class, before and after adaptation: overlap of the top k, beside its nulls.

A class's value for a latent is the mean over its images of the number of tokens above tau (definition B of the latent
statistics, prefix tokens counted as in the paper, an adapted model's prompt tokens not). Latents with value 0 are never
in a top k; ties go to the lower latent number.

Comparisons: `adapted`, zero-shot against adapted on all images; `adapted_halves`, zero-shot on one random half of the
images against adapted on the other; `null_halves`, zero-shot on both halves: what resampling alone does; `gap`,
null_halves - adapted_halves: zero when adaptation changes no more than resampling; `null_class`, zero-shot of the class
against zero-shot of another class.

Intervals of a class are estimate +- 1.96 bootstrap standard deviations over its images (a percentile interval of an
overlap is biased, because resampling lowers overlap by itself); those of the mean over classes are bootstraps over
classes, and with several seeds the variance between them is added (`resampling.Pooled`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from conceptbench.errors import ConceptBenchError
from conceptbench.inference import Estimate
from conceptbench.measures.latents import PAPER_TAU
from conceptbench.measures.resampling import (
    ALL_SEEDS,
    UNBOUNDED,
    Bounds,
    Pooled,
    halves_weights,
    image_weights,
    interval,
)
from conceptbench.measures.sparse import SparseCodes, image_scores

Values = NDArray[np.float64]
Key = tuple[str, int]
"""Statistic and k (0 where there is no k)."""

REGIONS = ("high", "high_to_low", "low_to_high", "between")
_IMAGE_COMPARISONS = ("adapted", "adapted_halves", "null_halves", "gap")


@dataclass(frozen=True)
class OverlapSpec:
    """Choices of the overlap measure; the ranks are the paper's, read as ranks in the larger of the two values."""

    ks: tuple[int, ...] = (10, 25, 50, 100)
    tau: float = PAPER_TAU
    upper_rank: int = 50
    lower_rank: int = 100
    n_splits: int = 20
    """Random halvings averaged in the point estimates."""
    n_resamples: int = 200


@dataclass(frozen=True)
class ClassInfo:
    """A class by its label: its name and the half it belongs to."""

    label: int
    name: str
    half: str


def overlap_tables(
    zero_shot: SparseCodes,
    adapted: Mapping[str, SparseCodes],
    labels: NDArray[np.integer[Any]],
    classes: Sequence[ClassInfo],
    rng: np.random.Generator,
    spec: OverlapSpec | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Overlap of a class's top latents between the zero-shot and the adapted model.

    Args:
        zero_shot: codes of the zero-shot model; adapted: codes of each seed (key: seed as text) on the same images.
        labels: class of each image. classes: the classes to compare.

    Returns:
        `overlap`: half, label (-1 is the mean over the half's classes), class_name, k (0 for rank_correlation),
        statistic (jaccard, rank_correlation), comparison, estimate, low, high, n, seed, note.
        `overlap_regions`: half, label, class_name, region, comparison (all but null_class), upper_rank, lower_rank,
        upper_bound, lower_bound (of `adapted`; NaN for the mean), estimate (number of latents), low, high, n, seed,
        note. `high`: both at or above the upper bound; `high_to_low`: zero-shot at or above it and adapted below the
        lower bound; `low_to_high`: the reverse; `between`: at or above the upper bound in one model and between the
        bounds in the other. Bounds are the values at the upper and the lower rank of the larger of the two values.
        `overlap_points`: label, class_name, latent, zero_shot, adapted, region, seed, for the latents in either top
        `lower_rank`.
    """
    spec = spec or OverlapSpec()
    before = _class_counts(zero_shot, labels, classes, spec.tau)
    rows: list[dict[str, Any]] = []
    points: list[pd.DataFrame] = []
    for seed, codes in adapted.items():
        if codes.shape != zero_shot.shape:
            raise ConceptBenchError(
                f"The adapted codes of seed {seed} have shape {codes.shape}, the zero-shot codes {zero_shot.shape}; "
                "encode the same images with the same dictionary and cut off the prompt tokens."
            )
        after = _class_counts(codes, labels, classes, spec.tau)
        for at, info in enumerate(classes):
            others = [before[i] for i, o in enumerate(classes) if i != at and o.half == info.half]
            bounds = _bounds(before[at].mean(axis=0), after[at].mean(axis=0), spec)
            named = _class_rows(before[at], after[at], others, rng, spec)
            rows += [_identity(info, bounds) | {"seed": seed} | row for row in named]
            points.append(_points(before[at], after[at], bounds, spec).assign(**_name(info), seed=seed))
    frame = pd.DataFrame(rows)
    frame = pd.concat([frame, _class_means(frame, rng, spec)], ignore_index=True)
    regions = frame["statistic"].isin(REGIONS)
    return (
        frame[~regions].drop(columns=["upper_bound", "lower_bound"]).reset_index(drop=True),
        _region_table(frame[regions], spec),
        pd.concat(points, ignore_index=True)[
            ["label", "class_name", "latent", "zero_shot", "adapted", "region", "seed"]
        ],
    )


def overlap_statistics(one: Values, other: Values, spec: OverlapSpec) -> dict[Key, Values]:
    """Statistics of values [sample, latent] of two models: Jaccard@k, Spearman correlation and region counts.

    The correlation is over latents that are positive in either; it is NaN with fewer than three of them.
    """
    ranks = [_ranks(values) for values in (one, other)]
    out: dict[Key, Values] = {}
    for k in spec.ks:
        a, b = (ranks[0] < k) & (one > 0), (ranks[1] < k) & (other > 0)
        either = (a | b).sum(axis=1)
        out["jaccard", k] = np.where(either > 0, (a & b).sum(axis=1) / np.maximum(either, 1), np.nan)
    out["rank_correlation", 0] = _spearman(one, other)
    for name, count in _regions(one, other, spec).items():
        out[name, 0] = count.sum(axis=1).astype(np.float64)
    return out


def _ranks(values: Values) -> NDArray[np.int64]:
    """Rank of every latent from 0, the largest; ties go to the lower number."""
    order = np.argsort(-values, axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.broadcast_to(np.arange(values.shape[1]), values.shape), axis=1)
    return ranks


def _class_counts(
    codes: SparseCodes, labels: NDArray[Any], classes: Sequence[ClassInfo], tau: float
) -> list[NDArray[np.float64]]:
    counts = image_scores(codes, reduce="count", threshold=tau).tocsr()
    out = []
    for info in classes:
        rows = np.flatnonzero(labels == info.label)
        if rows.size < 2:
            raise ConceptBenchError(f"Class {info.name!r} has {rows.size} images here; the overlap needs at least two.")
        out.append(counts[rows].toarray().astype(np.float64))
    return out


def _identity(info: ClassInfo, bounds: tuple[float, float]) -> dict[str, Any]:
    return {"half": info.half, **_name(info), "upper_bound": bounds[0], "lower_bound": bounds[1]}


def _name(info: ClassInfo) -> dict[str, Any]:
    return {"label": info.label, "class_name": info.name}


def _bounds(one: Values, other: Values, spec: OverlapSpec) -> tuple[float, float]:
    ranked = -np.sort(-np.maximum(one, other))
    return tuple(float(_at_rank(ranked[None], rank)[0]) for rank in (spec.upper_rank, spec.lower_rank))  # type: ignore[return-value]


def _at_rank(ranked: Values, rank: int) -> Values:
    """Value at a rank (from 1) of rows in falling order; the smallest positive value when fewer are positive."""
    positive = np.maximum((ranked > 0).sum(axis=1), 1)
    column = np.minimum(rank, positive) - 1
    return np.asarray(ranked[np.arange(len(ranked)), column])


def _regions(one: Values, other: Values, spec: OverlapSpec) -> dict[str, NDArray[np.bool_]]:
    ranked = -np.sort(-np.maximum(one, other), axis=1)
    upper, lower = _at_rank(ranked, spec.upper_rank)[:, None], _at_rank(ranked, spec.lower_rank)[:, None]
    on, up = (one >= upper) & (one > 0), (other >= upper) & (other > 0)
    down_to, up_from = on & ~up & (other < lower), up & ~on & (one < lower)
    return {
        "high": on & up,
        "high_to_low": down_to,
        "low_to_high": up_from,
        "between": (on ^ up) & ~down_to & ~up_from,
    }


def _spearman(one: Values, other: Values) -> Values:
    out = np.full(len(one), np.nan)
    for row, (a, b) in enumerate(zip(one, other, strict=True)):
        active = (a > 0) | (b > 0)
        if active.sum() >= 3:
            x, y = rankdata(a[active]), rankdata(b[active])
            x, y = x - x.mean(), y - y.mean()
            scale = np.sqrt((x @ x) * (y @ y))
            out[row] = float(x @ y / scale) if scale > 0 else np.nan
    return out


def _class_rows(
    before: Values, after: Values, others: Sequence[Values], rng: np.random.Generator, spec: OverlapSpec
) -> list[dict[str, Any]]:
    """All comparisons of one class and one seed."""
    active = (before.sum(axis=0) > 0) | (after.sum(axis=0) > 0)
    z, a = before[:, active], after[:, active]
    n = len(z)
    point = {"adapted": overlap_statistics(z.mean(axis=0)[None], a.mean(axis=0)[None], spec)}
    first, second = halves_weights(n, spec.n_splits, rng, resample=False)
    point["adapted_halves"] = overlap_statistics(first @ z, second @ a, spec)
    point["null_halves"] = overlap_statistics(first @ z, second @ z, spec)
    whole = image_weights(n, spec.n_resamples, rng) / n
    drawn = {"adapted": overlap_statistics(whole @ z, whole @ a, spec)}
    first, second = halves_weights(n, spec.n_resamples, rng, resample=True)
    drawn["adapted_halves"] = overlap_statistics(first @ z, second @ a, spec)
    drawn["null_halves"] = overlap_statistics(first @ z, second @ z, spec)
    rows = []
    for key in point["adapted"]:
        for both in (point, drawn):
            both.setdefault("gap", {})[key] = both["null_halves"][key] - both["adapted_halves"][key]
        for comparison in _IMAGE_COMPARISONS:
            values = point[comparison][key]
            mean = float(np.mean(values)) if np.isfinite(values).all() else float("nan")
            rows.append(_row(key, comparison, _spread(mean, drawn[comparison][key], n, key, comparison)))
    return rows + _other_class_rows(before, others, rng, spec)


def _row(key: Key, comparison: str, estimate: Estimate) -> dict[str, Any]:
    columns = estimate.row()
    del columns["seed"]
    return {"statistic": key[0], "k": key[1], "comparison": comparison, **columns}


def _spread(point: float, drawn: Values, n: int, key: Key, comparison: str) -> Estimate:
    """Point +- 1.96 bootstrap standard deviations, inside the range of the statistic."""
    finite = drawn[np.isfinite(drawn)]
    if not np.isfinite(point) or finite.size < len(drawn) / 2:
        return Estimate(point, np.nan, np.nan, n, "too few active latents")
    half_width = 1.96 * float(finite.std(ddof=1))
    if half_width == 0:
        return Estimate(point, np.nan, np.nan, n, "no variation between images")
    floor, ceiling = _range(key[0], comparison)
    return Estimate(point, max(point - half_width, floor), min(point + half_width, ceiling), n)


def _range(statistic: str, comparison: str) -> Bounds:
    if comparison == "gap":
        return UNBOUNDED
    return (-1.0 if statistic == "rank_correlation" else 0.0, np.inf if statistic in REGIONS else 1.0)


def _other_class_rows(
    before: Values, others: Sequence[Values], rng: np.random.Generator, spec: OverlapSpec
) -> list[dict[str, Any]]:
    if not others:
        return []
    mine = np.repeat(before.mean(axis=0)[None], len(others), axis=0)
    found = overlap_statistics(mine, np.stack([other.mean(axis=0) for other in others]), spec)
    weights = image_weights(len(others), spec.n_resamples, rng)
    rows = []
    for key, values in found.items():
        if key[0] not in REGIONS:
            estimate = interval(float(values.mean()), weights @ values / len(others), len(others))
            rows.append(_row(key, "null_class", estimate))
    return rows


def _class_means(frame: pd.DataFrame, rng: np.random.Generator, spec: OverlapSpec) -> pd.DataFrame:
    """Mean over the classes of each half, for every seed and for all seeds together."""
    rows = []
    for (half, statistic, k, comparison), part in frame.groupby(["half", "statistic", "k", "comparison"], sort=False):
        wide = part.pivot(index="seed", columns="label", values="estimate")
        wide = wide.loc[:, wide.notna().all()]
        name = {"half": half, "label": -1, "class_name": "all", "statistic": statistic, "k": k}
        name |= {"comparison": comparison, "upper_bound": np.nan, "lower_bound": np.nan}
        if wide.shape[1] == 0:
            continue
        values = wide.to_numpy()
        weights = image_weights(values.shape[1], spec.n_resamples, rng)
        for seed, row in zip(wide.index, values, strict=True):
            drawn = weights @ row / len(row)
            rows.append(name | interval(float(row.mean()), drawn, len(row)).row(seed))
        pooled = Pooled.mean(values, weights).estimate(values.shape[1], _range(str(statistic), str(comparison)))
        rows.append(name | pooled.row(ALL_SEEDS))
    return pd.DataFrame(rows)


def _region_table(frame: pd.DataFrame, spec: OverlapSpec) -> pd.DataFrame:
    table = frame.rename(columns={"statistic": "region"}).drop(columns="k")
    table = table.assign(upper_rank=spec.upper_rank, lower_rank=spec.lower_rank)
    table.loc[table["comparison"] != "adapted", ["upper_bound", "lower_bound"]] = np.nan
    return table.reset_index(drop=True)


def _points(before: Values, after: Values, bounds: tuple[float, float], spec: OverlapSpec) -> pd.DataFrame:
    """Values of the latents in either top `lower_rank`, with the region each lies in."""
    z, a = before.mean(axis=0), after.mean(axis=0)
    shown = np.flatnonzero(np.maximum(z, a) >= max(bounds[1], np.finfo(np.float64).tiny))
    region = np.full(z.size, "", dtype=object)
    for name, inside in _regions(z[None], a[None], spec).items():
        region[inside[0]] = name
    return pd.DataFrame({"latent": shown, "zero_shot": z[shown], "adapted": a[shown], "region": region[shown]})
