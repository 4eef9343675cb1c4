"""Claims about what latents stand for: C16, interpretable and localised, and C17, clusters of their statistics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.mixture import GaussianMixture

from conceptbench.measures.claims.verdict import (
    POSITIVE,
    UNTESTED,
    About,
    CannotTest,
    Tables,
    Verdict,
    both,
    each_task,
    judge,
    rows_of,
)
from conceptbench.measures.intervals import seed_interval
from conceptbench.seeds import rng, torch_seed

SHUFFLES: Final = 20
CONTROLS: Final = ("random", "raw")
"""Methods whose dictionaries are the controls of interpretability."""
MOST_COMPONENTS: Final = 3
FEWEST_LATENTS: Final = 30
BySeed = dict[str, float]


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
            yield _against(part, mine, _entropy_gaps(tables, about, task, name), name, "nats", task, setting)

    if not controls:
        raise CannotTest("no control: add a dictionary with method random to dictionaries.methods")
    yield from each_task(about.tasks, part, judge_task)
    yield from _localised(tables, about, controls)


def _against(part: str, mine: BySeed, control: BySeed, name: str, unit: str, task: str, setting: str) -> Verdict:
    """Above 0, and above the control: seed by seed, or above its mean where it has one seed only."""
    values = np.array(list(mine.values()))
    other = np.array([control.get(seed, np.mean(list(control.values()))) for seed in mine])
    ours = seed_interval(values)
    above = judge(seed_interval(values - other), f"the part above {name}", at_least=POSITIVE)
    outcome, reason = both(judge(ours, part, at_least=POSITIVE), above)
    return Verdict(
        part, outcome, reason, task, ours, unit, f"dictionary {name}", seed_interval(other), unit, "", setting
    )


def _entropy_gaps(tables: Tables, about: About, task: str, dictionary: str) -> BySeed:
    """Mean over latents of the label entropy with shuffled labels less that with the true ones, by seed."""
    where = {"backbone": about.backbone, "block": about.block, "dictionary": dictionary, "dataset": task}
    statistics, exemplars = rows_of(tables["latents"], **where), rows_of(tables["exemplars"], **where)
    usable = statistics[~statistics["dense"] & (statistics["n_reference"] == statistics["n_reference"].max())]
    labels = exemplars.drop_duplicates("image").set_index("image")["label"].sort_index()
    out = {}
    for seed, part in usable.groupby("seed"):
        mine = exemplars[(exemplars["seed"] == seed) & exemplars["latent"].isin(part["latent"])]
        if mine.empty:
            continue
        stream = rng(about.seed, "claims", "entropy", task, dictionary, str(seed))
        true = _mean_entropy(mine, labels)
        shuffled = [
            _mean_entropy(mine, pd.Series(stream.permutation(labels.to_numpy()), labels.index)) for _ in range(SHUFFLES)
        ]
        out[str(seed)] = float(np.mean(shuffled)) - true
    if not out:
        raise CannotTest(f"dictionary {dictionary} has no latent with enough exemplars on {task}")
    return out


def _mean_entropy(exemplars: pd.DataFrame, labels: pd.Series) -> float:
    """Mean over latents of the entropy in nats of the labels of their exemplars, weighted by score."""
    latent = np.unique(exemplars["latent"].to_numpy(), return_inverse=True)[1]
    label = np.unique(labels.loc[exemplars["image"]].to_numpy(), return_inverse=True)[1]
    mass = np.zeros((latent.max() + 1, label.max() + 1))
    np.add.at(mass, (latent, label), exemplars["score"].to_numpy(dtype=np.float64))
    share = mass / mass.sum(axis=1, keepdims=True)
    return float(-(share * np.log(np.where(share > 0, share, 1))).sum(axis=1).mean())


def _localised(tables: Tables, about: About, controls: list[str]) -> Iterator[Verdict]:
    """Mean IoU over factor values of the best latent, above that of a latent that fires everywhere."""
    part = "IoU with the masks of factors above the floor"
    if "truth_patches" not in tables:
        yield Verdict(part, UNTESTED, "no masks are known here: name a rendered data set in measures.truth_on")
        return
    setting = f"{about.place}, mean over factor values"
    mine = _ious(tables["truth_patches"], about, about.dictionary)
    for name in controls:
        yield _against(part, mine, _ious(tables["truth_patches"], about, name), name, "", "", setting)


def _ious(patches: pd.DataFrame, about: About, dictionary: str) -> BySeed:
    where = {"backbone": about.backbone, "block": about.block, "dictionary": dictionary, "metric": "iou"}
    mine = rows_of(patches, **where)
    mine = mine[mine["estimate"].notna() & (mine["seed"].astype(str) != "all")]
    gaps = (mine["estimate"] - mine["floor"]).groupby(mine["seed"].astype(str)).mean()
    return {str(seed): float(value) for seed, value in gaps.items()}


def clusters(tables: Tables, about: About) -> Iterator[Verdict]:
    """C17: by how much the criterion prefers several Gaussians to one, for latents and for one Gaussian like them."""
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
        setting = f"{about.place}, live latents on test images of {task}, {ours.n} seeds"
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
