"""Is a dictionary learnt on the zero-shot model still one of the adapted model?

On the adapted activations of split B: the fraction of variance unexplained (sum of squared errors over the sum of
squared distances from the mean token), L0 and the share of dead latents, of the dictionary that the measures follow and
of the same method learnt on the adapted model; and, as the reference, of the followed one on the zero-shot activations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import NDArray

from conceptbench.dictionaries import Codes, Dictionary
from conceptbench.inference import Estimate
from conceptbench.measures.resampling import ALL_SEEDS, Bounds, Pooled, image_weights

MARGIN: Final = 0.05
"""A followed dictionary is flagged when its FVU exceeds that of one learnt on the adapted model by more than this."""

RANGE: Final[Bounds] = (0.0, np.inf)


@dataclass(frozen=True, eq=False)
class Fit:
    """Sums of one dictionary on some images, image by image."""

    error: Float[np.ndarray, " image"]
    spread: Float[np.ndarray, " image"]
    firing: Float[np.ndarray, " image"]
    """Latents that fire on a token, on average."""
    dead: float


def fit_of(dictionary: Dictionary, tokens: Float[np.ndarray, "image token feature"], codes: Codes) -> Fit:
    """Squared error and squared distance from the mean token, summed over the tokens of each image."""
    exact = tokens.astype(np.float64)
    error = np.square(exact - dictionary.decode(codes).reshape(tokens.shape)).sum(axis=(1, 2))
    spread = np.square(exact - exact.mean(axis=(0, 1))).sum(axis=(1, 2))
    firing = np.diff(codes.indptr).reshape(tokens.shape[:2]).mean(axis=1)
    dead = 1 - len(np.unique(codes.indices)) / dictionary.width
    return Fit(error, spread, firing.astype(np.float64), dead)


def validity_rows(
    of_seed: Mapping[str, Fit], targets: NDArray[np.int64], rng: np.random.Generator, n_resamples: int
) -> list[dict[str, Any]]:
    """FVU and L0 with intervals (images within classes, and seeds), and the dead share, per seed and for all."""
    weights = image_weights(len(targets), n_resamples, rng, targets)
    groups = [(seed, [fit]) for seed, fit in of_seed.items()] + [(ALL_SEEDS, list(of_seed.values()))]
    rows = []
    for seed, fits in groups:
        rows += [{"statistic": name, **e.row(seed)} for name, e in _estimates(fits, weights).items()]
    return rows


def _estimates(fits: list[Fit], weights: NDArray[Any]) -> dict[str, Estimate]:
    n = weights.shape[1]
    points = {
        "fvu": np.array([fit.error.sum() / fit.spread.sum() for fit in fits]),
        "l0": np.array([fit.firing.mean() for fit in fits]),
    }
    drawn = {
        "fvu": np.mean([(weights @ fit.error) / (weights @ fit.spread) for fit in fits], axis=0),
        "l0": np.mean([weights @ fit.firing / n for fit in fits], axis=0),
    }
    out = {
        name: Pooled(float(found.mean()), drawn[name], (found,)).estimate(n, RANGE) for name, found in points.items()
    }
    dead = float(np.mean([fit.dead for fit in fits]))
    return out | {"dead_share": Estimate(dead, np.nan, np.nan, n, "a count of latents")}


def flagged(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `valid`: false for a followed dictionary whose FVU exceeds the relearnt one's by `MARGIN`."""
    keys = ["task", "method", "half", "seed"]
    fvu = table[table["statistic"] == "fvu"].pivot(index=keys, columns="dictionary", values="estimate")
    worse = fvu["followed"] - fvu["adapted"] > MARGIN
    rows = [bool(worse[tuple(row[key] for key in keys)]) for _, row in table.iterrows()]
    return table.assign(valid=~(np.array(rows) & (table["dictionary"] == "followed").to_numpy()))
