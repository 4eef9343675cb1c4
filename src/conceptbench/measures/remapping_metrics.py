"""Headline numbers of the remapping measures as flat keys (see `metrics`)."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from conceptbench.measures.resampling import ALL_SEEDS

Row = Mapping[str, Any]
SHARES = ("existing_share", "recruited_share", "beyond_share", "sufficient_share")

CLAIMS = ("recruitment", "remapping")
"""Claims that are made of an adaptation, scored on plants where nothing is recruited or remapped."""


def concept_rows(table: pd.DataFrame) -> Iterator[tuple[str, Row]]:
    """`remapping.<method>.<task>.<share>`: accuracy, sets of the image's own class, followed dictionary, main q."""
    main = table.loc[table["sets"] == "matched", "q"].unique()
    chosen = table[(table["seed"].astype(str) == ALL_SEEDS) & (table["outcome"] == "accuracy")]
    chosen = chosen[(chosen["dictionary"] == "followed") & (chosen["sets"] == "own") & chosen["q"].isin(main)]
    for row in _records(chosen[chosen["part"].isin(SHARES)]):
        yield f"remapping.{row['method']}.{row['task']}.{row['part']}", row


def remapping_rows(table: pd.DataFrame) -> Iterator[tuple[str, Row]]:
    """`remapping.<method>.<task>.association[_relearnt]`: mean over classes of what was remapped beyond resampling."""
    chosen = table[(table["seed"].astype(str) == ALL_SEEDS) & (table["label"] == -1)]
    for row in _records(chosen):
        suffix = "" if row["dictionary"] == "followed" else "_relearnt"
        yield f"remapping.{row['method']}.{row['task']}.association{suffix}", row


def plant_rows(table: pd.DataFrame) -> Iterator[tuple[str, Row]]:
    """`plants.<plant>.[pooled.]{coverage,worst_coverage,bias}` over the headline parts, false positives and power.

    `plants.<plant>.<part or claim>.[pooled.]false_positive_rate` is there where the truth is 0, in accuracy, `power`
    where it is above 0; `plants.<plant>.false_positive_rate` is the larger of the two claims. `pooled`: three planted
    models together, as a study pools its seeds.
    """
    several = {1: "", 3: "pooled."}
    for row in _records(table[table["part"] == "all"]):
        yield f"plants.{row['plant']}.{several[row['models']]}{row['statistic']}", row
    rates = table[table["statistic"].isin(["false_positive_rate", "power"]) & (table["outcome"] == "accuracy")]
    for row in _records(rates):
        yield f"plants.{row['plant']}.{row['part']}.{several[row['models']]}{row['statistic']}", row
    rates = rates[(rates["models"] == 1) & (rates["statistic"] == "false_positive_rate")]
    for plant, group in rates[rates["part"].isin(CLAIMS)].groupby("plant"):
        yield f"plants.{plant}.false_positive_rate", {"estimate": float(group["estimate"].max())}


def claim_rows(table: pd.DataFrame) -> Iterator[tuple[str, Row]]:
    """`claims.<id>.holds`: 1 or 0; claims that cannot be tested have no key."""
    for row in _records(table):
        if row["verdict"] in {"holds", "does not hold"}:
            yield f"claims.{row['claim']}.holds", {"estimate": float(row["verdict"] == "holds")}


def validity_rows(table: pd.DataFrame) -> Iterator[tuple[str, Row]]:
    """`validity.<method>.<task>.<statistic>.<dictionary>`: each dictionary on the adapted model."""
    for row in _records(table[table["seed"].astype(str) == ALL_SEEDS]):
        yield f"validity.{row['method']}.{row['task']}.{row['statistic']}.{row['dictionary']}", row


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
