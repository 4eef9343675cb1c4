"""The best dictionary against every null: differences that keep the pairing of images and of resamples."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from conceptbench.errors import ConceptBenchError
from conceptbench.inference import holm
from conceptbench.measures.resampling import ALL_SEEDS, interval, seed_weights, two_sided_p

Statistics = Mapping[str, tuple[float, NDArray[np.float64]]]
"""Statistic -> (point value, bootstrap replicates [resample])."""


@dataclass(frozen=True)
class Contender:
    """One dictionary over all its seeds, for the comparison of the best with the nulls."""

    backbone: str
    block: int
    dictionary: str
    kind: str
    """"learned" for candidates of the best; otherwise what the null controls for (random, raw, pca, backbone, ...)."""
    selected: float
    """Mean AUROC of its chosen latents on split A: the best is chosen by this, never by split B."""
    points: Mapping[str, float]
    replicates: Mapping[str, NDArray[np.float64]]


def pool_seeds(
    per_seed: Mapping[str, Statistics], *, level: str, n: int, rng: np.random.Generator
) -> tuple[pd.DataFrame, dict[str, NDArray[np.float64]]]:
    """Rows for every seed and for all seeds together; seeds are drawn with replacement as the outer level.

    Returns:
        A table with level, statistic, estimate, low, high, n, seed, note and the pooled replicates [resample].
    """
    seeds = list(per_seed)
    rows, pooled = [], {}
    n_resamples = len(next(iter(next(iter(per_seed.values())).values()))[1])
    shares = seed_weights(len(seeds), n_resamples, rng)
    for statistic in next(iter(per_seed.values())):
        points = np.array([per_seed[seed][statistic][0] for seed in seeds])
        drawn = np.stack([per_seed[seed][statistic][1] for seed in seeds], axis=1)
        pooled[statistic] = (drawn * shares).sum(axis=1)
        for seed, point, replicates in zip(seeds, points, drawn.T, strict=True):
            rows.append({"level": level, "statistic": statistic, **interval(point, replicates, n).row(seed)})
        joint = interval(float(points.mean()), pooled[statistic], n)
        rows.append({"level": level, "statistic": statistic, **joint.row(ALL_SEEDS)})
    return pd.DataFrame(rows), pooled


def compare_with_nulls(contenders: list[Contender], n: int, level: str = "image") -> pd.DataFrame:
    """Paired difference of the best learned dictionary and every null, for every statistic.

    The best is the learned dictionary with the largest `selected` (split A). All replicates must come from the same
    resamples of the same images.

    Returns:
        level, statistic, backbone, block, dictionary (the best), null_backbone, null_block, null_dictionary,
        null_kind, best_estimate, null_estimate, p (bootstrap, two-sided), q (Holm over the nulls of a statistic),
        estimate (best - null), low, high, n, seed, note.
    """
    learned = [contender for contender in contenders if contender.kind == "learned"]
    if not learned:
        raise ConceptBenchError("The comparison with nulls got no learned dictionary; measure at least one.")
    best = max(learned, key=lambda contender: contender.selected)
    rows = []
    for null in contenders:
        if null.kind == "learned":
            continue
        for statistic, point in best.points.items():
            difference = best.replicates[statistic] - null.replicates[statistic]
            estimate = interval(point - null.points[statistic], difference, n)
            names = {"level": level, "statistic": statistic, "backbone": best.backbone, "block": best.block}
            names |= {"dictionary": best.dictionary, "null_backbone": null.backbone, "null_block": null.block}
            names |= {"null_dictionary": null.dictionary, "null_kind": null.kind}
            values = {"best_estimate": point, "null_estimate": null.points[statistic], "p": two_sided_p(difference)}
            rows.append({**names, **values, **estimate.row(ALL_SEEDS)})
    table = pd.DataFrame(rows)
    if len(table):
        table["q"] = table.groupby("statistic")["p"].transform(lambda p: holm(p.to_numpy()))
    return table
