"""Claims about the top latents of a class before and after adaptation: C10 to C12."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    scaled,
)
from conceptbench.measures.resampling import ALL_SEEDS, Pooled, image_weights, interval
from conceptbench.seeds import rng

HIGH, OFF_DIAGONAL = "high", ("high_to_low", "low_to_high")
SHARE_HIGH: Final = 0.95
SAME: Final = 0.05
"""What a share or an overlap may lose beyond resampling and still be called the same."""
SHARES: Final = (0.0, 1.0)
BEYOND: Final = "change beyond resampling, on halves of the images"
"""Zero-shot against adapted on two halves, less zero-shot against itself on the same halves."""
JACCARD_K: Final = 50
FEWEST_CLASSES: Final = 8
FEWEST_NEW: Final = 5
"""Classes with a new latent that a correlation over classes needs."""
MOST_RELATED: Final = 0.5
"""A rank correlation nearer to 0 explains less than a quarter of the variance of ranks."""
LEVEL: Final = 0.05


def same_latents(tables: Tables, about: About) -> Iterator[Verdict]:
    """C10: the share of latents high before and after, and Jaccard@50, which counts what lies between the bounds."""
    regions, overlap = tables["overlap_regions"], tables["overlap"]
    exceptional = set(about.exceptions()) if len(about.tasks) > 1 else set()

    def judge_task(task: str) -> Iterator[Verdict]:
        """Judge one task."""
        others = [other for other in about.tasks if other != task] if task in exceptional else []
        for half in rows_of(regions, task=task, method=about.after)["half"].unique():
            yield _high(regions, task, half, others, about)
            yield _jaccard(overlap, task, half, others, about)

    yield from each_task(about.tasks, "share high in both", judge_task)


def _high(regions: pd.DataFrame, task: str, half: str, others: Sequence[str], about: About) -> Verdict:
    """The share high in both, and how far resampled halves are above it; an exception is held against `others`."""
    share, n = _share_high(regions, "adapted", task, half, about)
    found = share.estimate(n, SHARES)
    null, halves = (_share_high(regions, name, task, half, about)[0] for name in ("null_halves", "adapted_halves"))
    below = null.less(halves).estimate(n, (-1.0, 1.0))
    part = f"share high in both, {half}"
    if others:
        part = f"{part} (the exception: lowest)"
        rulings = [_above(regions, found, other, half, about) for other in others]
    else:
        rulings = [
            judge(found, "the share", at_least=SHARE_HIGH),
            judge(below, "the loss beyond resampling", at_most=SAME),
        ]
    outcome, reason = both(*rulings)
    setting = f"{about.place}, {about.after}, mean over {n} classes of {task}"
    return Verdict(part, outcome, reason, task, found, "", BEYOND, below, "", "", setting)


def _above(regions: pd.DataFrame, share: Estimate, other: str, half: str, about: About) -> Ruling:
    """The share of another task against that of the exception."""
    theirs, n = _share_high(regions, "adapted", other, half, about)
    return judge(difference(theirs.estimate(n, SHARES), share), f"the share of {other} less this one", POSITIVE)


def _share_high(regions: pd.DataFrame, comparison: str, task: str, half: str, about: About) -> tuple[Pooled, int]:
    """High / (high + off the diagonal), summed over classes, and the number of classes.

    Classes and seeds are what its interval counts; all comparisons of a half share the resampled classes.
    """
    mine = rows_of(regions, comparison=comparison, task=task, method=about.after, half=half)
    mine = mine[(mine["label"] >= 0) & (mine["seed"].astype(str) != ALL_SEEDS)]
    if mine.empty:
        raise CannotTest(f"overlap_regions has no classes of {about.after} ({comparison})")
    names = (HIGH, *OFF_DIAGONAL)
    wide = mine.pivot_table(index="seed", columns=["region", "label"], values="estimate", sort=True)
    counts = np.stack([wide[name].to_numpy() for name in names], axis=2)
    n = counts.shape[1]
    weights = image_weights(n, about.resamples, rng(about.seed, "claims", "share", task, half))
    high, all_of_them = (Pooled.mean(values, weights) for values in (counts[:, :, 0], counts.sum(axis=2)))
    return high.over(all_of_them), n


def _jaccard(overlap: pd.DataFrame, task: str, half: str, others: Sequence[str], about: About) -> Verdict:
    """Overlap of the top k before and after: above that of two classes, and as high as resampling leaves it.

    An exception must be above two classes too, and lose more beyond resampling than every other task.
    """
    mine = rows_of(overlap, method=about.after, half=half, statistic="jaccard", label=-1)
    ks = sorted(int(k) for k in rows_of(mine, task=task)["k"].unique())
    k = JACCARD_K if JACCARD_K in ks else ks[-1]

    def at_k(comparison: str, where: str = task) -> Estimate:
        return find(mine, f"overlap lacks {comparison}", task=where, k=k, comparison=comparison)

    adapted, null, gap = (at_k(name) for name in ("adapted", "null_class", "gap"))
    rulings = [judge(difference(adapted, null), "the overlap beyond that of two classes", at_least=POSITIVE)]
    part = f"Jaccard@{k}, {half}"
    if others:
        part = f"{part} (the exception: lowest)"
        more = {other: difference(gap, at_k("gap", other)) for other in others}
        rulings += [judge(found, f"the loss less that of {other}", POSITIVE) for other, found in more.items()]
    else:
        rulings.append(judge(gap, "the loss beyond resampling", at_most=SAME))
    outcome, reason = both(*rulings)
    detail, control = f"{BEYOND} {_shown(gap)}", "two different classes"
    setting = f"{about.place}, {about.after}, mean over {adapted.n} classes of {task}"
    return Verdict(part, outcome, reason, task, adapted, "", control, null, "", detail, setting)


def gain_and_new_latents(tables: Tables, about: About) -> Iterator[Verdict]:
    """C11: over the classes of a task, does the gain go with the latents that became active?"""
    part = "rank correlation of gain and new latents"
    judged = [task for task in about.tasks if task not in about.exceptions()]
    if not judged:
        raise CannotTest("every task is like EuroSAT, which the claim leaves out: name another in adaptations.tasks")

    def judge_task(task: str) -> Iterator[Verdict]:
        """Judge one task."""
        half = _trained(rows_of(tables["hybrids"], task=task))
        gain = _class_gains(rows_of(tables["hybrids"], half=half), task, about.after)
        where = {"task": task, "method": about.after, "half": half, "region": "low_to_high", "comparison": "adapted"}
        regions = rows_of(tables["overlap_regions"], **where)
        new = regions[regions["label"] >= 0].groupby("label")["estimate"].mean().reindex(gain.index)
        if len(gain) < FEWEST_CLASSES or new.isna().any():
            raise CannotTest(f"{task} has {len(gain)} classes with a gain; a correlation needs {FEWEST_CLASSES}")
        with_new = int((new > 0).sum())
        if with_new < FEWEST_NEW:
            raise CannotTest(
                f"{with_new} of {len(gain)} {half} classes have a new latent; a correlation needs {FEWEST_NEW} of them"
            )
        setting = f"{about.place}, {about.after}; {half} classes of {task} in place of data sets"
        detail = f"{with_new} of {len(gain)} classes have a new latent"
        stream = rng(about.seed, "claims", "gain", task)
        rho, p = _correlation(gain.to_numpy(), new.to_numpy(), stream, about.resamples)
        outcome, reason = both(
            _contains_zero(rho),
            judge(rho, "the correlation", -MOST_RELATED, MOST_RELATED),
            judge(p, "the permutation p-value", at_least=LEVEL),
        )
        yield Verdict(part, outcome, reason, task, rho, "", "permutation p-value", p, "", detail, setting)

    yield from each_task(judged, part, judge_task)


def _contains_zero(rho: Estimate) -> Ruling:
    """The paper's rule for no correlation; any interval that is wide enough meets it, so it does not suffice."""
    if not np.isfinite(rho.low):
        return UNTESTED, f"the correlation has no interval: {rho.note}"
    return (HOLDS, "") if rho.low <= 0 <= rho.high else (FAILS, "the interval of the correlation does not contain 0")


def _trained(table: pd.DataFrame) -> str:
    """The half whose classes the adaptation was trained on."""
    return "base" if "base" in set(table["half"]) else "all"


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
    drawn = stream.integers(0, size, (n, size - 1))  # one less, as in `inference.resample_weights`
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
        half = _trained(tables["overlap"])
        setting = f"{about.place}, {after}; {task} stands for EuroSAT"
        regions, hint = rows_of(tables["overlap_regions"], method=after, half=half, label=-1), f"no table of {after}"
        of = {name: find(regions, hint, task=name, region="low_to_high", comparison="adapted") for name in about.tasks}
        beyond = scaled(find(regions, hint, task=task, region="low_to_high", comparison="gap"), -1)
        more = [judge(difference(of[task], of[other]), f"the count less that of {other}", POSITIVE) for other in others]
        outcome, reason = both(*more, judge(beyond, "the count beyond resampling", POSITIVE))
        part, unit = "latents from low to high", "latents"
        yield Verdict(part, outcome, reason, task, of[task], unit, BEYOND, beyond, unit, _values(of, others), setting)
        ranks = rows_of(tables["overlap"], method=after, half=half, label=-1, statistic="rank_correlation")
        of = {name: find(ranks, hint, task=name, comparison="adapted") for name in about.tasks}
        below = find(ranks, hint, task=task, comparison="gap")
        less = [judge(difference(of[other], of[task]), f"{other} less this", POSITIVE) for other in others]
        outcome, reason = both(*less, judge(below, "the loss beyond resampling", POSITIVE))
        part = "rank correlation of all latents"
        yield Verdict(part, outcome, reason, task, of[task], "", BEYOND, below, "", _values(of, others), setting)

    yield from each_task(exceptional, "the exception", judge_task)


def _values(of: Mapping[str, Estimate], names: Iterable[str]) -> str:
    """What the other tasks have, with intervals."""
    return ", ".join(f"{name} {_shown(of[name])}" for name in names)


def _shown(found: Estimate) -> str:
    low, high = ends(found)
    return f"{found.estimate:.2f} [{low:.2f}, {high:.2f}]"
