"""Claims about what latents stand for: C16, interpretable and localised, and C17, clusters of their statistics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import xlogy
from sklearn.mixture import GaussianMixture

from conceptbench.inference import Estimate
from conceptbench.measures.claims.verdict import (
    POSITIVE,
    UNTESTED,
    About,
    CannotTest,
    Tables,
    Verdict,
    both,
    each_task,
    image_error,
    judge,
    rows_of,
    with_images,
)
from conceptbench.measures.intervals import group_interval, image_groups, seed_interval
from conceptbench.seeds import rng, torch_seed

SHUFFLES: Final = 20
GROUPS: Final = 20
"""Groups of images that the jackknife of the label entropy leaves out in turn."""
CONTROLS: Final = ("random", "raw")
"""Methods whose dictionaries are the controls of interpretability."""
MOST_COMPONENTS: Final = 3
FEWEST_LATENTS: Final = 30
BySeed = dict[str, NDArray[np.float64]]


def interpretable(tables: Tables, about: About) -> Iterator[Verdict]:
    """C16: label entropy against shuffled labels and IoU with factor masks, each less that of the controls."""
    controls = [name for method in CONTROLS for name in about.of_method(method)]
    part = "label entropy below that of shuffled labels"

    def judge_task(task: str) -> Iterator[Verdict]:
        """Judge one task."""
        if task not in set(tables["latents"]["dataset"]):
            raise CannotTest(f"measures.latents_on does not name {task}")
        setting = f"{about.place}, live and not dense latents on test images of {task}"
        mine = _entropy_gaps(tables, about, task, about.dictionary)
        for name in controls:
            other = _matching(mine, _entropy_gaps(tables, about, task, name))
            values = np.stack(list(mine.values()))
            n = rows_of(tables["exemplars"], dataset=task)["image"].nunique()
            found = [_grouped(of, n) for of in (values, values - other, other)]
            yield _against(part, found, name, "nats", task, setting)

    if not controls:
        raise CannotTest("no control: add a dictionary with method random to dictionaries.methods")
    yield from each_task(about.tasks, part, judge_task)
    yield from _localised(tables, about, controls)


def _matching(mine: BySeed, control: BySeed) -> NDArray[np.float64]:
    """The control's values for each seed of mine; its mean where it has no such seed (raw coordinates have one)."""
    mean: NDArray[np.float64] = np.mean(np.stack(list(control.values())), axis=0)
    return np.stack([control.get(seed, mean) for seed in mine])


def _grouped(values: NDArray[np.float64], n: int) -> Estimate:
    """Mean over seeds of values [seed, whole and without each group of images]; one seed gives no interval."""
    if len(values) < 2:
        return seed_interval(values[:, 0])
    return group_interval(values[:, 0], values[:, 1:], n)


def _against(part: str, found: Sequence[Estimate], name: str, unit: str, task: str, setting: str) -> Verdict:
    """Above 0, and above the control: `found` is ours, ours less the control, and the control."""
    ours, beyond, control = found
    above = judge(beyond, f"the part above {name}", at_least=POSITIVE)
    outcome, reason = both(judge(ours, part, at_least=POSITIVE), above)
    return Verdict(part, outcome, reason, task, ours, unit, f"dictionary {name}", control, unit, "", setting)


def _entropy_gaps(tables: Tables, about: About, task: str, dictionary: str) -> BySeed:
    """Mean over latents of the label entropy with shuffled labels less that with the true ones, by seed.

    Each seed's array holds the gap with all images, then without each of `GROUPS` groups of them, for a jackknife. All
    dictionaries have the same groups.
    """
    where = {"backbone": about.backbone, "block": about.block, "dictionary": dictionary, "dataset": task}
    statistics, exemplars = rows_of(tables["latents"], **where), rows_of(tables["exemplars"], **where)
    usable = statistics[~statistics["dense"] & (statistics["n_reference"] == statistics["n_reference"].max())]
    labels = exemplars.drop_duplicates("image").set_index("image")["label"].sort_index()
    images = np.unique(rows_of(tables["exemplars"], dataset=task)["image"])
    group_of = image_groups(len(images), GROUPS, rng(about.seed, "claims", "groups", task))
    out = {}
    for seed, part in usable.groupby("seed"):
        mine = exemplars[(exemplars["seed"] == seed) & exemplars["latent"].isin(part["latent"])]
        if mine.empty:
            continue
        groups = group_of[np.searchsorted(images, mine["image"])]
        stream = rng(about.seed, "claims", "entropy", task, dictionary, str(seed))
        true = _mean_entropies(mine, labels, groups)
        permuted = (pd.Series(stream.permutation(labels.to_numpy()), labels.index) for _ in range(SHUFFLES))
        out[str(seed)] = np.mean([_mean_entropies(mine, found, groups) for found in permuted], axis=0) - true
    if not out:
        raise CannotTest(f"dictionary {dictionary} has no latent with enough exemplars on {task}")
    return out


def _mean_entropies(exemplars: pd.DataFrame, labels: pd.Series, groups: NDArray[np.int64]) -> NDArray[np.float64]:
    """Mean over latents of the entropy in nats of the labels of their exemplars, weighted by score.

    Args:
        groups: of each exemplar the group of its image.

    Returns:
        With all exemplars, then without each group; a latent without exemplars left is left out.
    """
    latent = np.unique(exemplars["latent"].to_numpy(), return_inverse=True)[1]
    label = np.unique(labels.loc[exemplars["image"]].to_numpy(), return_inverse=True)[1]
    pairs, pair = np.unique(latent * (label.max() + 1) + label, return_inverse=True)
    owner = pairs // (label.max() + 1)
    score = exemplars["score"].to_numpy(dtype=np.float64)
    found = []
    for left_out in range(-1, GROUPS):
        mass = np.bincount(pair, np.where(groups == left_out, 0, score), len(pairs))
        total = np.bincount(owner, mass)
        share = mass / np.where(total > 0, total, 1)[owner]
        found.append(float(-np.bincount(owner, xlogy(share, share))[total > 0].mean()))
    return np.array(found)


def _localised(tables: Tables, about: About, controls: list[str]) -> Iterator[Verdict]:
    """Mean IoU over factor values of the best latent, above that of a latent that fires everywhere."""
    part = "IoU with the masks of factors above the floor"
    if "truth_patches" not in tables:
        yield Verdict(part, UNTESTED, "no masks are known here: name a rendered data set in measures.truth_on")
        return
    setting = f"{about.place}, mean over factor values"
    mine, error, n = _ious(tables["truth_patches"], about, about.dictionary)
    values = np.stack(list(mine.values()))
    for name in controls:
        of_name, its_error, _ = _ious(tables["truth_patches"], about, name)
        other = _matching(mine, of_name)
        errors = (error, float(np.hypot(error, its_error)), its_error)
        found = [with_images(of, e, n) for of, e in zip((values, values - other, other), errors, strict=True)]
        yield _against(part, found, name, "", "", setting)


def _ious(patches: pd.DataFrame, about: About, dictionary: str) -> tuple[BySeed, float, int]:
    """Mean over factor values by seed, with its standard error over images and their number."""
    where = {"backbone": about.backbone, "block": about.block, "dictionary": dictionary, "metric": "iou"}
    mine = rows_of(patches, **where)
    mine = mine[mine["estimate"].notna() & (mine["seed"].astype(str) != "all")]
    gaps = (mine["estimate"] - mine["floor"]).groupby(mine["seed"].astype(str)).mean()
    return {str(seed): np.asarray(value) for seed, value in gaps.items()}, image_error(mine), int(mine["n"].max())


def clusters(tables: Tables, about: About) -> Iterator[Verdict]:
    """C17: by how much the criterion prefers several Gaussians to one, for latents and for one Gaussian like them.

    The interval counts seeds only: no table holds what other images would make of the statistics of a latent.
    """
    part = "BIC of one Gaussian less the best of two and three"

    def judge_task(task: str) -> Iterator[Verdict]:
        """Judge one task."""
        mine = rows_of(
            tables["latents"], backbone=about.backbone, block=about.block, dictionary=about.dictionary, dataset=task
        )
        if mine.empty:
            raise CannotTest(f"measures.latents_on does not name {task}")
        gains, nulls = [], []
        for seed, of_seed in mine[~mine["dead"]].groupby("seed"):
            points = np.log(of_seed[["frequency_image", "mean_activation"]].to_numpy(dtype=np.float64))
            if len(points) < FEWEST_LATENTS:
                raise CannotTest(f"fewer than {FEWEST_LATENTS} latents are live on {task}")
            names = ("claims", "clusters", task, str(seed))
            stream = rng(about.seed, *names)
            like = stream.multivariate_normal(points.mean(axis=0), np.cov(points.T), len(points))
            state = torch_seed(about.seed, *names) % 2**32
            gains.append(_preference(points, state))
            nulls.append(_preference(like, state))
        ours, null = seed_interval(np.array(gains)), seed_interval(np.array(nulls))
        several = judge(ours, "the preference for several Gaussians", at_least=POSITIVE)
        outcome, reason = both(several, judge(null, "the preference on one Gaussian", at_most=0))
        setting = (
            f"{about.place}, live latents on these test images of {task}, {ours.n} seeds and no resampling of images"
        )
        yield Verdict(part, outcome, reason, task, ours, "", "points of one Gaussian", null, setting=setting)

    yield from each_task(about.tasks, part, judge_task)


def _preference(points: NDArray[np.float64], state: int) -> float:
    """Criterion of one Gaussian less the smallest of two and three, on standardised points."""
    spread = points.std(axis=0)
    scaled = (points - points.mean(axis=0)) / np.where(spread > 0, spread, 1)
    found = [
        float(GaussianMixture(n, n_init=1, random_state=state).fit(scaled).bic(scaled))
        for n in range(1, MOST_COMPONENTS + 1)
    ]
    return found[0] - min(found[1:])
