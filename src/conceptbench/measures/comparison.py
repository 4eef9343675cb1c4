"""The best dictionary against every null: differences that keep the pairing of images and of resamples."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from conceptbench.errors import ConceptBenchError
from conceptbench.inference import holm
from conceptbench.measures.resampling import ALL_SEEDS, Bounds, Pooled, interval

Statistics = Mapping[str, tuple[float, NDArray[np.float64]]]
"""Statistic -> (point value, bootstrap replicates [resample])."""
RANGE: Final[Bounds] = (0.0, 1.0)
RANGE_OF_DIFFERENCES: Final[Bounds] = (-1.0, 1.0)


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
    pooled: Mapping[str, Pooled]
    """Each statistic over the seeds."""


def pool_seeds(per_seed: Mapping[str, Statistics], *, level: str, n: int) -> tuple[pd.DataFrame, dict[str, Pooled]]:
    """Rows for every seed and for all seeds together, of statistics in [0, 1].

    Returns:
        A table with level, statistic, estimate, low, high, n, seed, note; and each statistic over the seeds.
    """
    seeds = list(per_seed)
    rows, pooled = [], {}
    for statistic in next(iter(per_seed.values())):
        points = np.array([per_seed[seed][statistic][0] for seed in seeds])
        drawn = np.stack([per_seed[seed][statistic][1] for seed in seeds], axis=1)
        pooled[statistic] = Pooled(float(points.mean()), drawn.mean(axis=1), (points,))
        for seed, point, replicates in zip(seeds, points, drawn.T, strict=True):
            rows.append({"level": level, "statistic": statistic, **interval(point, replicates, n).row(seed)})
        joint = pooled[statistic].estimate(n, RANGE)
        rows.append({"level": level, "statistic": statistic, **joint.row(ALL_SEEDS)})
    return pd.DataFrame(rows), pooled


def compare_with_nulls(contenders: list[Contender], n: int, level: str = "image") -> pd.DataFrame:
    """Paired difference of the best learned dictionary and every null, for every statistic.

    The best is the learned dictionary with the largest `selected` (split A). All replicates must come from the same
    resamples of the same images; the seeds of two dictionaries are independent.

    Returns:
        level, statistic, backbone, block, dictionary (the best), null_backbone, null_block, null_dictionary,
        null_kind, best_estimate, null_estimate, p (two-sided, of the same variance), q (Holm
        over the nulls of a statistic), estimate (best - null), low, high, n, seed, note.
    """
    learned = [contender for contender in contenders if contender.kind == "learned"]
    if not learned:
        raise ConceptBenchError("The comparison with nulls got no learned dictionary; measure at least one.")
    best = max(learned, key=lambda contender: contender.selected)
    rows = []
    for null in contenders:
        if null.kind == "learned":
            continue
        for statistic, mine in best.pooled.items():
            other = null.pooled[statistic]
            difference = mine.less(other)
            names = {"level": level, "statistic": statistic, "backbone": best.backbone, "block": best.block}
            names |= {"dictionary": best.dictionary, "null_backbone": null.backbone, "null_block": null.block}
            names |= {"null_dictionary": null.dictionary, "null_kind": null.kind}
            values = {"best_estimate": mine.point, "null_estimate": other.point, "p": difference.p()}
            rows.append({**names, **values, **difference.estimate(n, RANGE_OF_DIFFERENCES).row(ALL_SEEDS)})
    table = pd.DataFrame(rows)
    if len(table):
        table["q"] = table.groupby("statistic")["p"].transform(lambda p: holm(p.to_numpy()))
    return table
