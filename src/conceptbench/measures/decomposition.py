"""Where the gain of an adaptation comes from: Shapley shares of its parts.

Two players: perception (the activations at the hook point) and mapping (everything after it: blocks above the hook
point and text side). Three players: perception, blocks, text. The gain G = v(all) - v(none) is divided by the Shapley
value, so the parts add up to G. v is accuracy or the mean log-likelihood of the true class. Intervals draw images
within classes, seeds first. Where the interval of G contains 0 shares are not reported.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from math import factorial
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from conceptbench.errors import ConceptBenchError
from conceptbench.measures.resampling import ALL_SEEDS, image_weights, interval, nested_means, seed_weights

Coalition = frozenset[str]
PERCEPTION, BLOCKS, TEXT, MAPPING = "perception", "blocks", "text", "mapping"
OUTCOMES = {"accuracy": "correct", "log_likelihood": "log_likelihood"}
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
        shares = seed_weights(part["seed"].nunique(), n_resamples, rng)
        for outcome, column in OUTCOMES.items():
            tables = coalition_tables(part, column)
            for players in (2, 3):
                named = identity | {"outcome": outcome, "players": players}
                rows += [named | row for row in _decompose(tables, players, weights, shares)]
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
    tables: Mapping[Coalition, pd.DataFrame], players: int, weights: NDArray[np.float64], shares: NDArray[np.float64]
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
    one = np.ones((len(weights), 1))
    rows = []
    for at, seed in enumerate(seeds):
        rows += _parts({c: a[at : at + 1] for c, a in arrays.items()}, names, weights, one, str(seed))
    return rows + _parts(arrays, names, weights, shares, ALL_SEEDS)


def _parts(
    arrays: Mapping[Coalition, NDArray[np.float64]],
    players: tuple[str, ...],
    weights: NDArray[np.float64],
    shares: NDArray[np.float64],
    seed: str,
) -> list[dict[str, Any]]:
    n = weights.shape[1]
    points = {c: float(a.mean()) for c, a in arrays.items()}
    drawn = {c: nested_means(a, weights, shares) for c, a in arrays.items()}
    everyone, nobody = frozenset(players), frozenset[str]()
    gain, gain_drawn = points[everyone] - points[nobody], drawn[everyone] - drawn[nobody]
    part, part_drawn = shapley(points, players), shapley(drawn, players)
    total = interval(gain, gain_drawn, n)
    rows = [{"part": "gain", **total.row(seed)}]
    rows += [{"part": p, **interval(float(part[p]), part_drawn[p], n).row(seed)} for p in players]
    clear = bool(total.low > 0 or total.high < 0)
    for player in players:
        if clear:
            with np.errstate(divide="ignore", invalid="ignore"):
                share = interval(float(part[player] / gain), part_drawn[player] / gain_drawn, n).row(seed)
        else:
            share = {"estimate": np.nan, "low": np.nan, "high": np.nan, "n": n, "seed": seed, "note": NO_GAIN}
        rows.append({"part": f"{player}_share", **share})
    return rows
