"""Claims about the top latents of a class before and after adaptation: C10 to C12."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import rankdata

from conceptbench.inference import Estimate, permutation_p
from conceptbench.measures.claims.verdict import (
    FAILS,
    HOLDS,
    POSITIVE,
    UNTESTED,
    About,
    CannotTest,
    Ruling,
    Tables,
    Verdict,
    both,
    difference,
    each_task,
    ends,
    exact,
    find,
    judge,
    rows_of,
)
from conceptbench.measures.resampling import ALL_SEEDS, Pooled, image_weights, interval
from conceptbench.seeds import rng

HIGH, OFF_DIAGONAL = "high", ("high_to_low", "low_to_high")
SHARE_HIGH: Final = 0.95
JACCARD_K: Final = 50
FEWEST_CLASSES: Final = 8
LEVEL: Final = 0.05


def same_latents(tables: Tables, about: About) -> Iterator[Verdict]:
    """C10: the share of latents high before and after, and Jaccard@50, which counts what lies between the bounds."""
    regions, overlap = tables["overlap_regions"], tables["overlap"]
    exceptional = set(about.exceptions()) if len(about.tasks) > 1 else set()

    def judge_task(task: str) -> Iterator[Verdict]:
        """Judge one task."""
        mine = rows_of(regions, task=task, method=about.after)
        for half in mine["half"].unique():
            share = _share_high(mine[mine["half"] == half], "adapted", about, task)
            null = _share_high(mine[mine["half"] == half], "null_halves", about, task)
            ruling = judge(share, "the share", at_least=SHARE_HIGH)
            part = f"share high in both, {half}"
            if task in exceptional:
                part = f"share high in both, {half} (the exception: lowest)"
                ruling = both(*(_lower(regions, share, other, half, about) for other in about.tasks if other != task))
            outcome, reason = ruling
            setting = f"{about.place}, {about.after}, mean over {share.n} classes of {task}"
            control = "the same between two halves of the images"
            yield Verdict(part, outcome, reason, task, share, "", control, null, "", "", setting)
            yield _jaccard(overlap, task, half, about, setting)

    yield from each_task(about.tasks, "share high in both", judge_task)


def _share_high(regions: pd.DataFrame, comparison: str, about: About, task: str) -> Estimate:
    """High / (high + off the diagonal), summed over classes; the interval counts classes and seeds."""
    mine = rows_of(regions, comparison=comparison)
    mine = mine[(mine["label"] >= 0) & (mine["seed"].astype(str) != ALL_SEEDS)]
    if mine.empty:
        raise CannotTest(f"overlap_regions has no classes of {about.after}")
    names = (HIGH, *OFF_DIAGONAL)
    wide = mine.pivot_table(index="seed", columns=["region", "label"], values="estimate", sort=True)
    counts = np.stack([wide[name].to_numpy() for name in names], axis=2)
    n_classes = counts.shape[1]
    half = str(mine["half"].iloc[0])
    stream = rng(about.seed, "claims", "share", task, half, comparison)
    weights = image_weights(n_classes, about.resamples, stream)
    high, all_of_them = (Pooled.mean(values, weights) for values in (counts[:, :, 0], counts.sum(axis=2)))
    return high.over(all_of_them).estimate(n_classes, (0.0, 1.0))


def _lower(regions: pd.DataFrame, share: Estimate, other: str, half: str, about: About) -> Ruling:
    """The share of the exception against that of another task."""
    theirs = rows_of(regions, task=other, method=about.after, half=half)
    beyond = difference(_share_high(theirs, "adapted", about, other), share)
    return judge(beyond, f"the share of {other} less this one", at_least=POSITIVE)


def _jaccard(overlap: pd.DataFrame, task: str, half: str, about: About, setting: str) -> Verdict:
    """Overlap of the top k before and after, against that of two different classes."""
    mine = rows_of(overlap, task=task, method=about.after, half=half, statistic="jaccard", label=-1)
    ks = sorted(int(k) for k in mine["k"].unique())
    k = JACCARD_K if JACCARD_K in ks else ks[-1]
    found = {
        name: find(mine, f"overlap lacks {name}", k=k, comparison=name) for name in ("adapted", "null_class", "gap")
    }
    beyond = difference(found["adapted"], found["null_class"])
    outcome, reason = judge(beyond, "the overlap beyond that of two classes", at_least=POSITIVE)
    detail = f"{found['gap'].estimate:.3f} below that of two halves of one model's images"
    part, control = f"Jaccard@{k}, {half}", "two different classes"
    return Verdict(part, outcome, reason, task, found["adapted"], "", control, found["null_class"], "", detail, setting)


def gain_and_new_latents(tables: Tables, about: About) -> Iterator[Verdict]:
    """C11: over the classes of a task, does the gain go with the latents that became active?"""
    part = "rank correlation of gain and new latents"
    judged = [task for task in about.tasks if task not in about.exceptions()]
    if not judged:
        raise CannotTest("every task is like EuroSAT, which the claim leaves out: name another in adaptations.tasks")

    def judge_task(task: str) -> Iterator[Verdict]:
        """Judge one task."""
        gain = _class_gains(tables["hybrids"], task, about.after)
        regions = rows_of(
            tables["overlap_regions"], task=task, method=about.after, region="low_to_high", comparison="adapted"
        )
        new = regions[regions["label"] >= 0].groupby("label")["estimate"].mean().reindex(gain.index)
        if len(gain) < FEWEST_CLASSES or new.isna().any():
            raise CannotTest(f"{task} has {len(gain)} classes with a gain; a correlation needs {FEWEST_CLASSES}")
        setting = f"{about.place}, {about.after}; classes of {task} in place of data sets"
        if np.ptp(new.to_numpy()) == 0:
            count = exact(float(new.iloc[0]), len(gain), "the same for every class")
            detail = f"the same for every class, while the mean gain is {100 * gain.mean():.1f} points"
            yield Verdict(part, HOLDS, "", task, count, "new latents", detail=detail, setting=setting)
            return
        stream = rng(about.seed, "claims", "gain", task)
        rho, p = _correlation(gain.to_numpy(), new.to_numpy(), stream, about.resamples)
        outcome, reason = both(_contains_zero(rho), judge(p, "the permutation p-value", at_least=LEVEL))
        yield Verdict(part, outcome, reason, task, rho, "", "permutation p-value", p, setting=setting)

    yield from each_task(judged, part, judge_task)


def _contains_zero(rho: Estimate) -> Ruling:
    """The paper's rule for no correlation; with few classes it is met easily, which the size of the interval shows."""
    if not np.isfinite(rho.low):
        return UNTESTED, f"the correlation has no interval: {rho.note}"
    return (HOLDS, "") if rho.low <= 0 <= rho.high else (FAILS, "the interval of the correlation does not contain 0")


def _class_gains(hybrids: pd.DataFrame, task: str, method: str) -> pd.Series:
    """Accuracy of the adapted model less that of zero-shot by class, mean over seeds."""
    mine = rows_of(hybrids, task=task, method=method, variant="averaged")
    states = {name: rows_of(mine, source=name, blocks=name, text=name) for name in ("adapted", "zero-shot")}
    accuracy = {name: rows.groupby("label")["correct"].mean() for name, rows in states.items()}
    return accuracy["adapted"] - accuracy["zero-shot"]


def _correlation(
    one: NDArray[np.float64], other: NDArray[np.float64], stream: np.random.Generator, n: int
) -> tuple[Estimate, Estimate]:
    """Spearman's correlation with a bootstrap over pairs, and the two-sided p-value of permuting one side."""
    size = len(one)
    drawn = stream.integers(0, size, (n, size))
    point = float(_spearman(one[None], other[None])[0])
    rho = interval(point, _spearman(one[drawn], other[drawn]), size)
    shuffled = stream.permuted(np.tile(other, (n, 1)), axis=1)
    p = permutation_p(abs(point), np.abs(_spearman(np.broadcast_to(one, shuffled.shape), shuffled)))
    return rho, exact(float(p), size, "a p-value")


def _spearman(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlation of ranks of each row, ties averaged; NaN where a row does not vary."""
    ranks = [rankdata(values, axis=1) for values in (one, other)]
    x, y = (values - values.mean(axis=1, keepdims=True) for values in ranks)
    scale = np.sqrt((x**2).sum(axis=1) * (y**2).sum(axis=1))
    return np.asarray(np.where(scale > 0, (x * y).sum(axis=1) / np.where(scale > 0, scale, 1), np.nan))


def the_exception(tables: Tables, about: About) -> Iterator[Verdict]:
    """C12: on the task like EuroSAT more latents become high than on any other, and ranks change most."""
    exceptional, after = about.exceptions(), about.after
    others = [task for task in about.tasks if task not in exceptional]
    if not exceptional or not others:
        raise CannotTest("adaptations.tasks needs a task like EuroSAT (eurosat, terra) and one unlike it")

    def judge_task(task: str) -> Iterator[Verdict]:
        """Judge one task."""
        half = "base" if "base" in set(tables["overlap"]["half"]) else "all"
        setting = f"{about.place}, {after}; {task} stands for EuroSAT"
        regions, hint = rows_of(tables["overlap_regions"], method=after, half=half, label=-1), f"no table of {after}"
        of = {name: find(regions, hint, task=name, region="low_to_high", comparison="adapted") for name in about.tasks}
        null = find(regions, hint, task=task, region="low_to_high", comparison="null_halves")
        more = [judge(difference(of[task], of[other]), f"the count less that of {other}", POSITIVE) for other in others]
        outcome, reason = both(*more, judge(difference(of[task], null), "the count beyond resampling", POSITIVE))
        control = "between two halves of the images"
        part, unit = "latents from low to high", "latents"
        yield Verdict(part, outcome, reason, task, of[task], unit, control, null, unit, _values(of, others), setting)
        ranks = rows_of(tables["overlap"], method=after, half=half, label=-1, statistic="rank_correlation")
        of = {name: find(ranks, hint, task=name, comparison="adapted") for name in about.tasks}
        null = find(ranks, hint, task=task, comparison="null_halves")
        less = [judge(difference(of[other], of[task]), f"{other} less this", POSITIVE) for other in others]
        outcome, reason = both(*less)
        part, unit = "rank correlation of all latents", ""
        yield Verdict(part, outcome, reason, task, of[task], unit, control, null, unit, _values(of, others), setting)

    yield from each_task(exceptional, "the exception", judge_task)


def _values(of: Mapping[str, Estimate], names: Iterable[str]) -> str:
    """What the other tasks have, with intervals."""
    shown = {name: (of[name].estimate, *ends(of[name])) for name in names}
    return ", ".join(f"{name} {value:.2f} [{low:.2f}, {high:.2f}]" for name, (value, low, high) in shown.items())
