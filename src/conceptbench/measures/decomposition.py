"""Where the gain of an adaptation comes from: Shapley shares of its parts.

Two players: perception (the activations at the hook point) and mapping (everything after it: blocks above the hook
point and text side). Three players: perception, blocks, text. The gain G = v(all) - v(none) is divided by the Shapley
value, so the parts add up to G. v is accuracy or the mean log-likelihood of the true class. Intervals draw images
within classes and add the variance between seeds (`resampling.Pooled`). Where the interval of G contains 0 shares are
not reported.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import factorial
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from conceptbench.errors import ConceptBenchError
from conceptbench.inference import ROUNDING, Estimate
from conceptbench.measures.resampling import (
    ALL_SEEDS,
    NO_VARIATION,
    UNBOUNDED,
    Bounds,
    Pooled,
    image_weights,
    note_lone_images,
)

Coalition = frozenset[str]
PERCEPTION, BLOCKS, TEXT, MAPPING = "perception", "blocks", "text", "mapping"
OUTCOMES = {"accuracy": "correct", "log_likelihood": "log_likelihood"}
RANGES: Final[dict[str, Bounds]] = {"accuracy": (-1.0, 1.0), "log_likelihood": UNBOUNDED}
"""Range of a part of the gain, by outcome."""
ADAPTED = "adapted"
NO_GAIN = "the gain is not distinguishable from 0"
_PART_COLUMN = {PERCEPTION: "source", BLOCKS: "blocks", TEXT: "text"}


def shapley(values: Mapping[Coalition, Any], players: Sequence[str]) -> dict[str, Any]:
    """Shapley value of every player from the value of every coalition (numbers or arrays of one shape).

    phi_p = sum over coalitions S without p of |S|! (n - |S| - 1)! / n! * (v(S + p) - v(S))   (Shapley 1953).
    """
    missing = [
        set(c) for size in range(len(players) + 1) for c in combinations(players, size) if frozenset(c) not in values
    ]
    if missing:
        raise ConceptBenchError(f"The decomposition lacks the value of the coalition(s) {missing}.")
    n = len(players)
    out: dict[str, Any] = {}
    for player in players:
        rest = [p for p in players if p != player]
        total: Any = 0.0
        for size in range(n):
            weight = factorial(size) * factorial(n - size - 1) / factorial(n)
            for members in combinations(rest, size):
                total = total + weight * (values[frozenset({*members, player})] - values[frozenset(members)])
        out[player] = total
    return out


def decompose(hybrids: pd.DataFrame, rng: np.random.Generator, n_resamples: int = 1000) -> pd.DataFrame:
    """Gain and its parts for every task, method, half, variant and outcome, per seed and over all seeds.

    Args:
        hybrids: one row an image, seed and coalition: task, method, seed, half, image, label, variant, source, blocks,
            text (each "zero-shot" or "adapted"), correct, log_likelihood.

    Returns:
        task, method, half, variant, outcome (accuracy, log_likelihood), players (2 or 3), part (gain, perception,
        mapping or blocks and text, and <part>_share), estimate, low, high, n (images), seed ("all" pools), note.
    """
    keys = ["task", "method", "half", "variant"]
    missing = {*keys, "seed", "image", "label", *_PART_COLUMN.values(), *OUTCOMES.values()} - set(hybrids.columns)
    if missing:
        raise ConceptBenchError(f"The table of hybrids lacks the column(s) {', '.join(sorted(missing))}.")
    rows: list[dict[str, Any]] = []
    for names, part in hybrids.groupby(keys, sort=False):
        identity = dict(zip(keys, names, strict=True))
        labels = part.drop_duplicates("image").sort_values("image")["label"].to_numpy()
        weights = image_weights(labels.size, n_resamples, rng, labels)
        for outcome, column in OUTCOMES.items():
            tables = coalition_tables(part, column)
            for players in (2, 3):
                named = identity | {"outcome": outcome, "players": players}
                found = note_lone_images(_decompose(tables, players, weights, RANGES[outcome]), labels)
                rows += [named | row for row in found]
    return pd.DataFrame(rows)


def coalition_tables(part: pd.DataFrame, column: str) -> dict[Coalition, pd.DataFrame]:
    """For every coalition of perception, blocks and text: a table [seed, image] of `column`."""
    out: dict[Coalition, pd.DataFrame] = {}
    shape = (part["seed"].nunique(), part["image"].nunique())
    for states, frame in part.groupby(list(_PART_COLUMN.values()), sort=False):
        coalition = frozenset(p for p, state in zip(_PART_COLUMN, states, strict=True) if state == ADAPTED)
        wide = frame.assign(seed=frame["seed"].astype(str)).pivot(index="seed", columns="image", values=column)
        if wide.shape != shape or wide.isna().to_numpy().any():
            raise ConceptBenchError(
                f"The hybrid of {sorted(coalition) or 'nothing'} adapted does not cover every image in every seed."
            )
        out[coalition] = wide.astype(np.float64)
    return out


def _decompose(
    tables: Mapping[Coalition, pd.DataFrame], players: int, weights: NDArray[np.float64], bounds: Bounds
) -> list[dict[str, Any]]:
    if players == 2:
        names: tuple[str, ...] = (PERCEPTION, MAPPING)
        whole = {MAPPING: {BLOCKS, TEXT}, PERCEPTION: {PERCEPTION}}
        pairs = [frozenset(c) for size in range(3) for c in combinations(names, size)]
        tables = {c: tables[frozenset().union(*(whole[p] for p in c))] for c in pairs}
    else:
        names = (PERCEPTION, BLOCKS, TEXT)
    seeds = list(next(iter(tables.values())).index)
    arrays = {coalition: table.to_numpy() for coalition, table in tables.items()}
    rows = []
    for at, seed in enumerate(seeds):
        rows += _parts({c: a[at : at + 1] for c, a in arrays.items()}, names, weights, bounds, str(seed))
    return rows + _parts(arrays, names, weights, bounds, ALL_SEEDS)


def _parts(
    arrays: Mapping[Coalition, NDArray[np.float64]],
    players: tuple[str, ...],
    weights: NDArray[np.float64],
    bounds: Bounds,
    seed: str,
) -> list[dict[str, Any]]:
    """Gain, parts and shares from the values [seed, image] of the coalitions."""
    gain = arrays[frozenset(players)] - arrays[frozenset()]
    values = {"gain": gain} | shapley(arrays, players)
    return part_and_share_rows(values, players, weights, bounds, seed)


def part_and_share_rows(
    values: Mapping[str, NDArray[np.float64]],
    shared: Sequence[str],
    weights: NDArray[np.float64],
    bounds: Bounds,
    seed: str,
) -> list[dict[str, Any]]:
    """Rows part, estimate, low, high, n, seed, note of each part, then of the shares of some.

    Args:
        values: `gain` first, then its parts: [seed, image]. shared: parts that are also given as shares of the gain,
            without an estimate where the interval of the gain contains 0 (a gain that is the same for every image has
            none and needs none). bounds: range of a part.
    """
    n = weights.shape[1]
    pooled = {name: Pooled.mean(array, weights) for name, array in values.items()}
    rows = [{"part": name, **found.estimate(n, bounds).row(seed)} for name, found in pooled.items()]
    certain = rows[0]["note"].startswith(NO_VARIATION) and abs(rows[0]["estimate"]) > ROUNDING
    clear = rows[0]["low"] > 0 or rows[0]["high"] < 0 or certain
    for name in shared:
        share = Estimate(np.nan, np.nan, np.nan, n, NO_GAIN)
        if clear:
            share = pooled[name].over(pooled["gain"]).estimate(n)
        rows.append({"part": f"{name}_share", **share.row(seed)})
    return rows
