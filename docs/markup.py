"""Estimates, their intervals and tables as Markdown, shared by the pages of finished experiments."""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from conceptbench.tables import natural_order

Metrics = Mapping[str, float]


@dataclass(frozen=True)
class Grid:
    """A table of metrics: one row for each `row`, one column for each title."""

    rows: Sequence[tuple[str, ...]]
    heads: tuple[str, ...]
    """Titles of the cells that name a row."""
    columns: Mapping[str, str]
    """Keys of metrics.json by title; `{0}`, `{1}`, ... stand for the cells that name the row."""
    why: Callable[[tuple[str, ...], str], str] = lambda _row, _key: ""
    """What stands in the cell of a metric that does not exist, from the row and the key of its column."""


def grid(metrics: Metrics, table: Grid) -> str:
    """A table in Markdown; the cell of a metric that does not exist says why, where `table.why` knows it."""
    lines = [
        [*row, *(interval(metrics, key.format(*row)) or table.why(row, key) for key in table.columns.values())]
        for row in sorted(table.rows, key=lambda row: [natural_order(part) for part in row])
    ]
    return markdown(pd.DataFrame(lines, columns=[*table.heads, *table.columns]))


def interval(metrics: Metrics, key: str) -> str:
    """An estimate with its interval, where there is one."""
    if key not in metrics:
        return ""
    return bracket(metrics[key], metrics.get(f"{key}.low", math.nan), metrics.get(f"{key}.high", math.nan))


def bracket(estimate: float, low: float, high: float) -> str:
    """An estimate with its interval in brackets, where it has one."""
    around = f" ({low:.3f} to {high:.3f})" if math.isfinite(low) and math.isfinite(high) else ""
    return f"{estimate:.3f}{around}"


def cell(row: "pd.Series[Any] | None", absent: str = "not measured") -> str:
    """The estimate of a table's row, or else its note; `absent` when there is no such row."""
    if row is None:
        return absent
    if math.isfinite(row["estimate"]):
        return bracket(row["estimate"], row["low"], row["high"])
    return f"none: {row['note']}" if row["note"] else "none"


def pick(table: pd.DataFrame, **where: object) -> "pd.Series[Any] | None":
    """The only row with these values, or None."""
    found = rows_of(table, **where)
    return None if found.empty else found.iloc[0]


def rows_of(table: pd.DataFrame, **where: object) -> pd.DataFrame:
    """The rows with these values."""
    for column, value in where.items():
        table = table[table[column] == value]
    return table


def matching(metrics: Metrics, pattern: str) -> list[re.Match[str]]:
    """Matches of a pattern with the beginning of every key."""
    return [found for key in metrics if (found := re.match(pattern, key))]


def named(metrics: Metrics, pattern: str) -> list[str]:
    """What the first group of a pattern stands for, each once, in order."""
    return list(dict.fromkeys(match[1] for match in matching(metrics, pattern) if "@" not in match[1]))


def metric_rows(metrics: Metrics) -> pd.DataFrame:
    """One row a key of metrics.json, its interval in the same row."""
    keys = [key for key in metrics if not key.endswith((".low", ".high"))]
    rows = []
    for key in keys:
        low, high = metrics.get(f"{key}.low"), metrics.get(f"{key}.high")
        around = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
        rows.append({"key": f"`{key}`", "estimate": f"{metrics[key]:.3f}", "95 % interval": around})
    return pd.DataFrame(rows)


def markdown(table: pd.DataFrame) -> str:
    """A data frame as a table in Markdown."""
    return "\n".join(f"| {line} |" for line in _lines(table.columns, table.to_numpy().tolist()))


def _lines(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> list[str]:
    heads = list(columns)
    return [" | ".join(heads), " | ".join("---" for _ in heads), *(" | ".join(map(str, row)) for row in rows)]
