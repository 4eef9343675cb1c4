"""Is a dictionary learnt on the zero-shot model still one of the adapted model?

On the adapted activations of split B: the fraction of variance unexplained (sum of squared errors over the sum of
squared distances from the mean token), L0 and the share of dead latents, of the dictionary that the measures follow
and, where there is one, of the same method learnt on the adapted model; and, as the reference, of the followed one on
the zero-shot activations. Two differences of FVU are held against a margin: the rise over the zero-shot activations,
and the excess over the dictionary learnt on the adapted model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import NDArray

from conceptbench.dictionaries import Codes, Dictionary
from conceptbench.inference import Estimate
from conceptbench.measures.resampling import ALL_SEEDS, Bounds, Pooled, image_weights, note_lone_images

MARGIN: Final = 0.05
"""A followed dictionary is flagged when its FVU rises, or exceeds that of one learnt on the adapted model, by more."""
FOLLOWED, RELEARNT, REFERENCE = "followed", "adapted", "followed-on-zero-shot"
DIFFERENCES: Final = {"fvu_rise": REFERENCE, "fvu_excess": RELEARNT}
"""Statistics of the followed dictionary on the adapted model: its FVU less that of another pair."""

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
    found: Mapping[str, Mapping[str, Fit]], targets: NDArray[np.int64], rng: np.random.Generator, n_resamples: int
) -> list[dict[str, Any]]:
    """FVU, L0 and their differences with intervals (images within classes, and seeds), and dead shares.

    Args:
        found: `FOLLOWED`, `REFERENCE` and, where there is one, `RELEARNT` -> seed -> fit, all of the same images.

    Returns:
        dictionary, statistic (fvu, l0, dead_share; of the followed one also fvu_rise and fvu_excess), estimate, low,
        high, n, seed, note, margin and exceeds (of the two differences: what they may be, and whether they are more).
    """
    weights = image_weights(len(targets), n_resamples, rng, targets)
    rows: list[dict[str, Any]] = []
    for name, of_seed in found.items():
        for seed in (*of_seed, ALL_SEEDS):
            of = {key: list(fits.values()) if seed == ALL_SEEDS else [fits[seed]] for key, fits in found.items()}
            estimates = _estimates(of[name], weights)
            if name == FOLLOWED:
                estimates |= {
                    key: _difference(of[name], of[other], weights) for key, other in DIFFERENCES.items() if other in of
                }
            rows += [{"dictionary": name, "statistic": key, **e.row(seed)} for key, e in estimates.items()]
    for row in rows:
        held = row["statistic"] in DIFFERENCES
        row.update({"margin": MARGIN if held else np.nan, "exceeds": bool(held and row["estimate"] > MARGIN)})
    return note_lone_images(rows, targets)


def _fvu(fits: Sequence[Fit], weights: NDArray[Any]) -> Pooled:
    found = np.array([fit.error.sum() / fit.spread.sum() for fit in fits])
    drawn = np.mean([(weights @ fit.error) / (weights @ fit.spread) for fit in fits], axis=0)
    return Pooled(float(found.mean()), drawn, (found,))


def _difference(fits: Sequence[Fit], others: Sequence[Fit], weights: NDArray[Any]) -> Estimate:
    """FVU less that of the other pair of the same seed, on the same images."""
    one, other = _fvu(fits, weights), _fvu(others, weights)
    apart = Pooled(one.point - other.point, one.replicates - other.replicates, (one.seeds[0] - other.seeds[0],))
    return apart.estimate(weights.shape[1])


def _estimates(fits: Sequence[Fit], weights: NDArray[Any]) -> dict[str, Estimate]:
    n = weights.shape[1]
    firing = np.array([fit.firing.mean() for fit in fits])
    drawn = np.mean([weights @ fit.firing / n for fit in fits], axis=0)
    l0 = Pooled(float(firing.mean()), drawn, (firing,))
    out = {name: found.estimate(n, RANGE) for name, found in (("fvu", _fvu(fits, weights)), ("l0", l0))}
    dead = float(np.mean([fit.dead for fit in fits]))
    return out | {"dead_share": Estimate(dead, np.nan, np.nan, n, "a count of latents")}


def flagged(table: pd.DataFrame) -> pd.DataFrame:
    """The table with `valid`: false for a followed dictionary whose difference exceeds `MARGIN`.

    The difference is the excess over the relearnt dictionary, and where none was learnt the rise over zero-shot.
    """
    keys = ["task", "method", "half", "seed"]
    held = table[table["statistic"].isin(DIFFERENCES)].pivot(index=keys, columns="statistic", values="exceeds")
    held = held.reindex(columns=list(DIFFERENCES))
    worse = held["fvu_excess"].where(held["fvu_excess"].notna(), held["fvu_rise"]).astype(bool)
    rows = worse.reindex(pd.MultiIndex.from_frame(table[keys])).to_numpy(dtype=bool)
    return table.assign(valid=~(rows & (table["dictionary"] == FOLLOWED).to_numpy()))
