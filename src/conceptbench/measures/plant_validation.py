"""Estimators of remapping scored on planted adaptations: estimates and claims beside the truth.

A plant is grown for every seed (affected classes, atoms, and the sets E_c of split A vary). A repetition draws images
of each class from the population with replacement, as an experiment would, estimates with an interval, and is compared
with the population's value under the known truth. Estimates are those of the measures, function for function: of one
planted model, and of three pooled as a study pools its seeds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from jaxtyping import Int64
from numpy.typing import NDArray

from conceptbench.measures.association import Effects, remapping
from conceptbench.measures.concepts import OUTCOMES, Scores
from conceptbench.measures.decomposition import RANGES, part_and_share_rows
from conceptbench.measures.plant_harvest import Harvest
from conceptbench.measures.resampling import ALL_SEEDS, image_weights

ESTIMANDS: Final = ("gain", "perception", "mapping", "existing", "recruited", "beyond", "as_coded")
"""Parts that are estimated; each but the gain also as a share of it. `as_coded` is `beyond` without the refit."""
POOLED: Final = 3
"""Planted models that are pooled, as studies pool the seeds of an adaptation."""
DRAWS: Final = 300
"""Bootstrap samples of an interval in a repetition."""
REMAPPING: Final = "remapping"


def repetitions(
    field: Harvest, resamples: int, images: int, rng: np.random.Generator, draws: int = DRAWS
) -> list[dict[str, Any]]:
    """Estimates of samples of the population beside the truth, of one planted model.

    Returns:
        rows with plant, models (1), seed, repetition, outcome, part, truth, estimate, low, high. A share is missing
        where the interval of the gain of that sample contains 0; an interval is missing where all images agree.
    """
    rows = []
    for repetition in range(resamples):
        chosen, weights = _drawn(field.targets, images, draws, rng)
        head = {"plant": field.plant, "models": 1, "seed": field.seed, "repetition": repetition}
        rows += [head | row for row in _estimates([field], chosen, weights)]
    return rows


def pooled_repetitions(
    fields: Sequence[Harvest], samples: int, images: int, rng: np.random.Generator, draws: int = DRAWS
) -> list[dict[str, Any]]:
    """Estimates of three planted models pooled by the t interval of studies (`resampling.Pooled`).

    A sample of images is common to all models; their seeds are dealt anew into as many threes as there are.

    Args:
        fields: one plant for every seed, on one population; fewer than three give no rows.

    Returns:
        rows as of `repetitions`, with models 3, the number of the three as seed, that of the sample as repetition,
        `truth` the mean of the three, and `truth_of_all` that of all seeds, to which an interval that counts seeds
        generalises.
    """
    threes = len(fields) // POOLED
    rows: list[dict[str, Any]] = []
    for sample in range(samples if threes else 0):
        chosen, weights = _drawn(fields[0].targets, images, draws, rng)
        dealt = rng.permutation(len(fields))[: threes * POOLED].reshape(threes, POOLED)
        for at, members in enumerate(dealt):
            head = {"plant": fields[0].plant, "models": POOLED, "seed": at, "repetition": sample}
            rows += [head | row for row in _estimates([fields[m] for m in members], chosen, weights, fields)]
    return rows


def sample_within(targets: Int64[np.ndarray, " image"], images: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """So many images of each class, drawn with replacement."""
    return np.concatenate([rng.choice(np.flatnonzero(targets == c), images) for c in np.unique(targets)])


def _drawn(
    targets: NDArray[np.int64], images: int, draws: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """A sample of the population, and the weights [draw, image] of its bootstrap."""
    chosen = sample_within(targets, images, rng)
    return chosen, image_weights(len(chosen), draws, rng, targets[chosen])


def _estimates(
    members: Sequence[Harvest],
    chosen: NDArray[np.int64],
    weights: NDArray[np.float64],
    everything: Sequence[Harvest] = (),
) -> Iterator[dict[str, Any]]:
    """Rows of both outcomes for these models on the chosen images; shares that are not reported are left out."""
    estimated = [field.estimated() for field in members]
    for at, outcome in enumerate(OUTCOMES):
        truth, of_all = _truth(members, at), _truth(everything, at) if everything else {}
        values = {name: np.stack([parts[name][at][chosen] for parts in estimated]) for name in ESTIMANDS}
        for row in part_and_share_rows(values, ESTIMANDS[1:], weights, RANGES[outcome], ALL_SEEDS):
            if np.isfinite(row["estimate"]):
                part = row["part"]
                known = {"truth": truth[part], "truth_of_all": of_all.get(part, np.nan)}
                yield {"outcome": outcome, "part": part, **known, **{k: row[k] for k in ("estimate", "low", "high")}}


def _truth(fields: Sequence[Harvest], at: int) -> dict[str, float]:
    """Parts and shares of the population under the known truth, as a mean over models."""
    true: list[dict[str, Scores]] = [field.true() for field in fields]
    means = {name: float(np.mean([parts[name][at].mean() for parts in true])) for name in ESTIMANDS}
    gain = means["gain"] or np.nan
    return means | {f"{name}_share": means[name] / gain for name in ESTIMANDS[1:]}


def remapping_claims(
    field: Harvest,
    zero_shot: Effects,
    adapted: Effects,
    resamples: int,
    images: int,
    halvings: int,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """The claim of remapping, that the mean over classes is above 0, by the statistic and interval of `remapping`.

    Models share a sample of images, as in a study. Under the null plant they would be equal number for number, so there
    each sees a sample of its own, which is the harder test.

    Args:
        zero_shot, adapted: first-order effects on the population. field: the plant; only its name and classes count.

    Returns:
        rows with plant, seed, repetition, claim, estimate, low, high, claimed.
    """
    rows = []
    for repetition in range(resamples):
        one = sample_within(field.targets, images, rng)
        other = sample_within(field.targets, images, rng) if zero_shot is adapted else one
        head = {"plant": field.plant, "seed": field.seed, "repetition": repetition, "claim": REMAPPING}
        _, found = remapping(_of_images(zero_shot, one), _of_images(adapted, other), halvings, DRAWS // 3, rng)
        rows.append(head | {"estimate": found.estimate, "low": found.low, "high": found.high, "claimed": found.low > 0})
    return rows


def _of_images(effects: Effects, rows: NDArray[np.int64]) -> Effects:
    return Effects(effects.latents, effects.fires[rows], effects.effect[rows])
