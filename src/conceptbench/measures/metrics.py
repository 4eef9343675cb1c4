"""metrics.json: the headline numbers of an experiment as flat, namespaced keys.

Every estimate `<key>` has its interval beside it as `<key>.low` and `<key>.high`. Values that do not exist (a share
without a gain, a half that a method cannot score) have no key: JSON has no NaN, and a missing key cannot be mistaken
for a number.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from conceptbench.measures.remapping_metrics import (
    claim_rows,
    concept_rows,
    plant_rows,
    remapping_rows,
    validity_rows,
)
from conceptbench.measures.resampling import ALL_SEEDS

Metrics = dict[str, float]

DICTIONARY_METRICS = ("fvu", "l0", "dead_share")
FALSE_DISCOVERY = 0.05
"""Share of false discoveries among the kinds that count as united."""
STABILITY_METRICS = ("mcc", "energy_mcc", "above_floor", "shared_decoder", "shared_both")
MONOSEMANTICITY_METRICS = ("mean_excess", "significant_share")


@dataclass(frozen=True)
class MainHook:
    """The backbone and block whose dictionaries are named plainly; others get `@<backbone>/block<B>`."""

    backbone: str
    block: int

    def name(self, row: Mapping[str, Any]) -> str:
        """Name of the dictionary of a table's row."""
        if row["backbone"] == self.backbone and int(row["block"]) == self.block:
            return str(row["dictionary"])
        return f"{row['dictionary']}@{row['backbone']}/block{int(row['block'])}"


def collect(tables: Mapping[str, pd.DataFrame], main: MainHook) -> Metrics:
    """Flat metrics from the tables that are there (key: the table's name); absent tables give no keys.

    Uses `backbones` and `kinds_text` (backbone, statistic, estimate, low, high), `dictionaries`
    (backbone, block, dictionary, seed, fvu, l0, dead_share), `stability`, `monosemanticity_summary`, `leaderboard`,
    `truth_summary`, `truth_comparison`, `kinds`, `accuracy`,
    `accuracy_difference`, `overlap`, `decomposition`, `concepts`, `remapping`, `plants`,
    `validity` and `claims`.
    """
    collectors: dict[str, Callable[[pd.DataFrame], Metrics]] = {
        "backbones": _backbones,
        "kinds_text": _backbones,
        "dictionaries": lambda table: _dictionaries(table, main),
        "stability": lambda table: _stability(table, main),
        "monosemanticity_summary": lambda table: _monosemanticity(table, main),
        "leaderboard": lambda table: _leaderboard(table, main),
        "truth_summary": lambda table: _truth(table, main),
        "truth_comparison": lambda table: _comparison(table, main),
        "kinds": _kinds,
        "accuracy": _accuracy,
        "accuracy_difference": _accuracy_difference,
        "overlap": _overlap,
        "decomposition": _decomposition,
        "recovery": _recovery,
        "concepts": lambda table: _keyed(concept_rows(table)),
        "remapping": lambda table: _keyed(remapping_rows(table)),
        "plants": lambda table: _keyed(plant_rows(table)),
        "validity": lambda table: _keyed(validity_rows(table)),
        "claims": lambda table: _keyed(claim_rows(table)),
    }
    out: Metrics = {}
    for name, collector in collectors.items():
        if name in tables and len(tables[name]):
            out |= collector(tables[name])
    return dict(sorted(out.items()))


def _put(out: Metrics, key: str, row: Mapping[str, Any]) -> None:
    """Set a key and its interval, as far as they are finite."""
    for suffix, column in (("", "estimate"), (".low", "low"), (".high", "high")):
        value = row.get(column)
        if value is not None and np.isfinite(value):
            out[key + suffix] = float(value)


def _keyed(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> Metrics:
    """Metrics of rows that already have their key."""
    out: Metrics = {}
    for key, row in rows:
        _put(out, key, row)
    return out


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(k): v for k, v in row.items()} for row in table.to_dict("records")]


def _pooled(table: pd.DataFrame) -> pd.DataFrame:
    return table[table["seed"].astype(str) == ALL_SEEDS]


def _backbones(table: pd.DataFrame) -> Metrics:
    out: Metrics = {}
    for row in _records(table):
        _put(out, f"backbones.{row['backbone']}.{row['statistic']}", row)
    return out


def _dictionaries(table: pd.DataFrame, main: MainHook) -> Metrics:
    out: Metrics = {}
    for _, part in table.groupby(["backbone", "block", "dictionary"], sort=False):
        for metric in DICTIONARY_METRICS:
            value = float(part[metric].mean())
            if np.isfinite(value):
                out[f"dictionaries.{main.name(_records(part.iloc[:1])[0])}.{metric}"] = value
    return out


def _stability(table: pd.DataFrame, main: MainHook) -> Metrics:
    """Runs on the same images have the short keys; runs on disjoint halves have `halves.` before the statistic."""
    out: Metrics = {}
    for row in _records(_pooled(table[table["statistic"].isin(STABILITY_METRICS)])):
        runs = "" if row["runs"] == "seeds" else f"{row['runs']}."
        _put(out, f"stability.{main.name(row)}.{runs}{row['statistic']}", row)
    return out


def _monosemanticity(table: pd.DataFrame, main: MainHook) -> Metrics:
    out: Metrics = {}
    for row in _records(_pooled(table[table["statistic"].isin(MONOSEMANTICITY_METRICS)])):
        _put(out, f"monosemanticity.{main.name(row)}.{row['statistic']}", row)
    return out


def _leaderboard(table: pd.DataFrame, main: MainHook) -> Metrics:
    """What the dictionaries are ranked by; ranks themselves jump with the last digit."""
    out: Metrics = {}
    for row in _records(table[table["column"] == table["criterion"]]):
        _put(out, f"leaderboard.{main.name(row)}.{row['column']}", row)
    return out


def _truth(table: pd.DataFrame, main: MainHook) -> Metrics:
    out: Metrics = {}
    for row in _records(_pooled(table)):
        level = "" if row["level"] == "image" else f"{row['level']}."
        _put(out, f"truth.{main.name(row)}.{level}{row['statistic']}", row)
    return out


def _comparison(table: pd.DataFrame, main: MainHook) -> Metrics:
    out: Metrics = {}
    for row in _records(table):
        null = {"backbone": row["null_backbone"], "block": row["null_block"], "dictionary": row["null_dictionary"]}
        level = "" if row["level"] == "image" else f"{row['level']}."
        _put(out, f"truth_over_null.{main.name(null)}.{level}{row['statistic']}", row)
    return out


def _kinds(table: pd.DataFrame) -> Metrics:
    """United AUROC of every kind over all seeds, and how many kinds a latent unites beyond the null."""
    out: Metrics = {}
    for (backbone, dictionary), part in _pooled(table).groupby(["backbone", "dictionary"], sort=False):
        key = f"kinds.{backbone}.{dictionary}"
        for row in _records(part):
            _put(out, f"{key}.{row['kind']}.united_auroc", row)
        _put(out, f"{key}.null_high", {"estimate": part["null_high"].iloc[0]})
        out[f"{key}.n_beyond_null"] = float((part["q"] <= FALSE_DISCOVERY).sum())
    return out


def _accuracy(table: pd.DataFrame) -> Metrics:
    out: Metrics = {}
    for row in _records(_pooled(table)):
        _put(out, f"adaptation.{row['method']}.{row['task']}.{row['half']}", row)
    return out


def _accuracy_difference(table: pd.DataFrame) -> Metrics:
    out: Metrics = {}
    for row in _records(table):
        _put(out, f"adaptation.{row['method']}.{row['task']}.{row['half']}_over_zero_shot", row)
    return out


def _overlap(table: pd.DataFrame) -> Metrics:
    """Mean over classes of Jaccard@k and of its gap to the null."""
    out: Metrics = {}
    chosen = _pooled(table)
    chosen = chosen[(chosen["label"] == -1) & (chosen["statistic"] == "jaccard")]
    chosen = chosen[chosen["comparison"].isin(["adapted", "gap"])]
    for row in _records(chosen):
        name = "jaccard" if row["comparison"] == "adapted" else "jaccard_gap"
        _put(out, f"overlap.{row['method']}.{row['task']}.{row['half']}.{name}_at_{int(row['k'])}", row)
    return out


def _decomposition(table: pd.DataFrame) -> Metrics:
    """The two-way decomposition of accuracy with averaged prompt states; base classes have the short keys."""
    out: Metrics = {}
    chosen = _pooled(table)
    chosen = chosen[(chosen["variant"] == "averaged") & (chosen["outcome"] == "accuracy") & (chosen["players"] == 2)]
    for row in _records(chosen):
        half = "" if row["half"] in {"base", "all"} else f"{row['half']}."
        _put(out, f"remapping.{row['method']}.{row['task']}.{half}{row['part']}", row)
    return out


def _recovery(table: pd.DataFrame) -> Metrics:
    """Pooled scores on synthetic worlds; those of the first world have the plain key, others `@<world>`."""
    out: Metrics = {}
    first = table["world"].iloc[0]
    for row in _records(_pooled(table)):
        where = "" if row["world"] == first else f"@{row['world']}"
        _put(out, f"recovery.{row['dictionary']}{where}.{row['score']}", row)
    return out
