"""All dictionaries of a hook point in one ranking, own and foreign methods alike, each score beside its best null."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import numpy as np
import pandas as pd

from conceptbench.errors import ConceptBenchError
from conceptbench.inference import Estimate
from conceptbench.measures.intervals import difference_interval, seed_interval
from conceptbench.measures.nulls import NULL_METHODS, WITHOUT_CHANCE
from conceptbench.measures.resampling import ALL_SEEDS, Bounds

IDS: Final = ("backbone", "block", "dictionary")
PRIMARY: Final = "recovered_above_null"
"""Share of factor values recovered at AUROC 0.90, less that of the best null of the hook point."""
SECONDARY: Final = "fvu_at_equal_l0"
"""Ranks where the world's truth is unknown."""
NEAR: Final = 1.25
"""Two values of L0 are comparable when neither is more than this many times the other."""
HIGHER_IS_BETTER: Final[Mapping[str, bool]] = {
    PRIMARY: True,
    "recovered_at_0.90": True,
    SECONDARY: False,
    "fvu": False,
    "l0": False,
    "stability_above_floor": True,
    "mean_excess": True,
    "dead_share": False,
}
"""Columns of the leaderboard in their order, and their better direction. For L0 it says what is sparser."""
CARDS: Final = ("fvu", "l0", "dead_share")
"""Columns from the cards, in which a null is no floor: errors at unequal L0, sparsity, which is chosen."""
RANGES: Final[Mapping[str, Bounds]] = {"dead_share": (0.0, 1.0)}
"""Ranges of columns from the cards; the others are above 0."""

_Key = tuple[str, int, str]
_Scores = dict[_Key, Estimate]


def measure_leaderboard(
    tables: Mapping[str, pd.DataFrame], methods: Mapping[str, str], configured: Mapping[str, str], reference: str
) -> pd.DataFrame:
    """Table ``leaderboard``: every column of every dictionary, the best null of the hook point, and the rank.

    Args:
        tables: ``dictionaries`` and, where the experiment has them, ``truth_summary``, ``stability``,
            ``monosemanticity_summary``. methods: dictionary -> method.
        configured: dictionary -> what it is called when its sparsity is left aside; dictionaries of one such name lie
            on one curve of error against sparsity. reference: the dictionary at whose mean L0 the FVU of the others is
            compared.

    Returns:
        backbone, block, dictionary, family, role (learned, null), rank (1 is best; by `PRIMARY`, or `SECONDARY` without
        truth; nulls are ranked along; 0 without the criterion), criterion, column (see `HIGHER_IS_BETTER`), estimate,
        low, high, n, seed ("all"), note, null_dictionary and null_estimate (the best null in this column; empty where
        a null is no floor), beats_null (the interval of the difference of a learned dictionary to that null lies on
        the better side of 0; an error of a null in which nothing is random needs no interval of its own).

    Raises:
        ConceptBenchError: when no table ``dictionaries`` is given.
    """
    if "dictionaries" not in tables:
        raise ConceptBenchError("The leaderboard needs the table dictionaries; run measure_dictionaries.")
    columns = _columns(tables, methods, configured, reference)
    keys = [tuple(key) for key in tables["dictionaries"][list(IDS)].drop_duplicates().itertuples(index=False)]
    criterion = PRIMARY if columns.get(PRIMARY) else SECONDARY
    ranks = _ranks(columns.get(criterion, {}), keys, HIGHER_IS_BETTER[criterion])
    rows = [
        _row(key, column, columns[column], methods) | {"rank": ranks[key], "criterion": criterion}
        for key in keys
        for column in HIGHER_IS_BETTER
        if key in columns.get(column, {})
    ]
    front = [*IDS, "family", "role", "rank", "criterion", "column"]
    table = pd.DataFrame(rows)
    return table[[*front, *(name for name in table.columns if name not in front)]]


def _columns(
    tables: Mapping[str, pd.DataFrame], methods: Mapping[str, str], configured: Mapping[str, str], reference: str
) -> dict[str, _Scores]:
    cards = tables["dictionaries"]
    columns = {name: _over_seeds(cards, name) for name in CARDS}
    columns[SECONDARY] = _at_equal_l0(cards, configured, reference)
    wanted = {
        "truth_summary": ("recovered_at_0.90", "recovered_at_0.90"),
        "stability": ("above_floor", "stability_above_floor"),
        "monosemanticity_summary": ("mean_excess", "mean_excess"),
    }
    for name, (statistic, column) in wanted.items():
        if name in tables:
            columns[column] = _pooled(tables[name], statistic)
    recovered = columns.get("recovered_at_0.90", {})
    columns[PRIMARY] = {
        key: difference_interval(score, recovered[null])
        for key, score in recovered.items()
        if (null := _best_null(recovered, key, methods, max)) is not None
    }
    return columns


def _row(key: _Key, column: str, scores: _Scores, methods: Mapping[str, str]) -> dict[str, Any]:
    """One cell: the estimate, and the best null of the column on the same hook point."""
    family, score = methods[key[2]], scores[key]
    role = "null" if family in NULL_METHODS else "learned"
    better = HIGHER_IS_BETTER[column]
    null = None if column in CARDS else _best_null(scores, key, methods, max if better else min)
    floor = np.nan if null is None else scores[null].estimate
    beats = False
    if role == "learned" and null is not None:
        # errors have intervals over seeds; the primary score is a difference to its null already
        known = column == SECONDARY and methods[null[2]] in WITHOUT_CHANCE
        other = _exact(scores[null]) if known else scores[null]
        gain = score if column == PRIMARY else difference_interval(score, other)
        beats = bool(gain.low > 0 if better else gain.high < 0)
    ids = dict(zip(IDS, key, strict=True))
    beside = {"null_dictionary": "" if null is None else null[2], "null_estimate": floor, "beats_null": beats}
    return {**ids, "family": family, "role": role, "column": column, **score.row(ALL_SEEDS), **beside}


def _exact(score: Estimate) -> Estimate:
    """A score without an interval as one of width zero; any other as it is."""
    if np.isfinite(score.low) and np.isfinite(score.high):
        return score
    return replace(score, low=score.estimate, high=score.estimate)


def _best_null(scores: _Scores, key: _Key, methods: Mapping[str, str], best: Callable[..., _Key]) -> _Key | None:
    """The null of the same hook point with the best estimate; chosen by the score itself, which favours the null."""
    nulls = [other for other in scores if other[:2] == key[:2] and methods[other[2]] in NULL_METHODS]
    finite = [other for other in nulls if np.isfinite(scores[other].estimate)]
    return best(finite, key=lambda other: scores[other].estimate) if finite else None


def _ranks(scores: _Scores, keys: list[_Key], higher: bool) -> dict[_Key, int]:
    """Rank within the hook point; equal estimates share the better rank."""
    ranks = dict.fromkeys(keys, 0)
    for key in keys:
        mine = scores[key].estimate if key in scores else np.nan
        if np.isfinite(mine):
            others = [score.estimate for other, score in scores.items() if other[:2] == key[:2]]
            ranks[key] = 1 + sum(other > mine if higher else other < mine for other in others)
    return ranks


def _over_seeds(cards: pd.DataFrame, name: str) -> _Scores:
    if name not in cards:
        return {}
    return {
        _key(names): seed_interval(part[name].to_numpy(dtype=np.float64), RANGES.get(name, (0.0, np.inf)))
        for names, part in cards.groupby(list(IDS), sort=False)
    }


def _pooled(table: pd.DataFrame, statistic: str) -> _Scores:
    """Rows over all seeds; of image-level truth, and of runs on the same images."""
    chosen = table[(table["statistic"] == statistic) & (table["seed"].astype(str) == ALL_SEEDS)]
    for column, value in (("level", "image"), ("runs", "seeds")):
        chosen = chosen[chosen[column] == value] if column in chosen else chosen
    return {
        _key([row[name] for name in IDS]): Estimate(
            float(row["estimate"]), float(row["low"]), float(row["high"]), int(row["n"]), str(row["note"])
        )
        for row in chosen.to_dict("records")
    }


def _key(names: Any) -> _Key:
    backbone, block, dictionary = names
    return str(backbone), int(block), str(dictionary)


def _at_equal_l0(cards: pd.DataFrame, configured: Mapping[str, str], reference: str) -> _Scores:
    """FVU at the mean L0 of the reference dictionary of the same hook point.

    A dictionary near that L0 has its own FVU. One that is not gets that of its curve (dictionaries that differ from it
    in their sparsity alone), interpolated seed by seed over log L0 between the two nearest around it; without such a
    pair, or where two of the curve have the same L0, there is no value.
    """
    out: _Scores = {}
    for _, hook in cards.groupby(["backbone", "block"], sort=False):
        wanted = float(hook.loc[hook["dictionary"] == reference, "l0"].mean())
        for names, part in hook.groupby(list(IDS), sort=False):
            key = _key(names)
            if not wanted > 0:
                out[key] = Estimate(np.nan, np.nan, np.nan, 0, f"no L0 of {reference} to compare at")
            elif max(float(part["l0"].mean()) / wanted, wanted / max(float(part["l0"].mean()), 1e-9)) <= NEAR:
                out[key] = seed_interval(part["fvu"].to_numpy(dtype=np.float64))
            else:
                curve = hook[hook["dictionary"].map(configured) == configured[key[2]]]
                out[key] = _interpolated(curve, wanted)
    return out


def _interpolated(curve: pd.DataFrame, wanted: float) -> Estimate:
    values = []
    for _, part in curve.groupby("seed", sort=False):
        ordered = part.sort_values("l0")
        sparsity = ordered["l0"].to_numpy(dtype=np.float64)
        if (np.diff(sparsity) == 0).any():  # which of the two errors would count?
            return Estimate(np.nan, np.nan, np.nan, 0, "two dictionaries of this curve have the same L0")
        if sparsity[0] > 0 and sparsity[0] <= wanted <= sparsity[-1]:
            errors = ordered["fvu"].to_numpy(dtype=np.float64)
            values.append(float(np.interp(np.log(wanted), np.log(sparsity), errors)))
    if not values:
        return Estimate(np.nan, np.nan, np.nan, 0, f"no dictionary of this curve near L0 {wanted:.3g}")
    return seed_interval(np.array(values))
