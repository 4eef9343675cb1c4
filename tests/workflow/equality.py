"""Whether two runs of the smoke experiment computed the same: every table, every learnt array, every stored token."""

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd

TIMES = ("seconds", "tokens_per_s")
"""Columns, and rows of long tables, of measured time, which no two runs share."""
NUMBERS = ("tables/*.parquet", "figures/*.csv")
"""Compared by value: the last digits of a sum depend on where in memory its terms lie."""
BYTES = ("**/*.safetensors", "**/store.zarr/**/c/*/0/0")
"""Files whose every byte follows from configuration and code."""
METRICS = "metrics.json"
RELATIVE = 1e-9


def differing(one: Path, other: Path) -> list[str]:
    """Files of one run that the other lacks or has with other content, each with what differs."""
    return [f"{name}: {what}" for name, what in differences(one, other).items()]


def differences(one: Path, other: Path) -> dict[str, str]:
    """What differs between two runs, by the names of their files below the results."""
    left, right = computed(one), computed(other)
    assert {METRICS, "tables/accuracy.parquet"} <= left, "nothing to compare"
    found = {name: difference(one / name, other / name) for name in sorted(left | right)}
    return {name: what for name, what in found.items() if what}


def computed(results: Path) -> set[str]:
    """Files that two runs must share, by their paths below the results."""
    patterns = (METRICS, *NUMBERS, *BYTES)
    found = {path for pattern in patterns for path in results.glob(pattern) if ".work" not in path.parts}
    return {str(path.relative_to(results)) for path in found if path.is_file() and "runtime" not in path.stem}


def difference(one: Path, other: Path) -> str:
    """What two files do not share, nothing if they hold the same: numbers but for their last digits, else all bytes."""
    for path in (one, other):
        if not path.is_file():
            return f"{path} is missing"
    if one.name == METRICS:
        return different_metrics(json.loads(one.read_text()), json.loads(other.read_text()))
    if one.suffix in (".parquet", ".csv"):
        return different_tables(untimed(one), untimed(other))
    return "" if one.read_bytes() == other.read_bytes() else "its bytes differ"


def different_metrics(left: dict[str, float | None], right: dict[str, float | None]) -> str:
    """Metrics that one side lacks or has with another value."""
    names = sorted(left.keys() ^ right.keys())
    names += [name for name in sorted(left.keys() & right.keys()) if not close(left[name], right[name])]
    return ", ".join(f"{name} is {left.get(name)} and {right.get(name)}" for name in names)


def close(left: float | None, right: float | None) -> bool:
    """Whether two values are the same, or numbers that differ in their last digits only."""
    if isinstance(left, float) and isinstance(right, float):
        return math.isclose(left, right, rel_tol=RELATIVE, abs_tol=RELATIVE)
    return left == right


def different_tables(left: pd.DataFrame, right: pd.DataFrame) -> str:
    """Columns of two tables that differ, with the rows in which they do."""
    if list(left.columns) != list(right.columns):
        return f"its columns differ: {sorted(set(left.columns) ^ set(right.columns)) or 'in order'}"
    if len(left) != len(right):
        return f"it has {len(left)} and {len(right)} rows"
    changed = {name: unequal_rows(left[name], right[name]) for name in left}
    return ", ".join(f"column {name} differs in rows {rows[:5]}" for name, rows in changed.items() if rows)


def untimed(path: Path) -> pd.DataFrame:
    """A table without what was measured with a clock."""
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    kept = table.drop(columns=[name for name in TIMES if name in table])
    return kept[~kept["column"].isin(TIMES)].reset_index(drop=True) if "column" in kept else kept


def unequal_rows(left: pd.Series, right: pd.Series) -> list[int]:
    """Rows in which two columns of one length differ."""
    if pd.api.types.is_float_dtype(left) and pd.api.types.is_float_dtype(right):
        same = np.isclose(left, right, rtol=RELATIVE, atol=RELATIVE, equal_nan=True)
        return [int(row) for row in np.flatnonzero(~same)]
    if left.equals(right):
        return []
    pairs = enumerate(zip(left, right, strict=True))
    return [row for row, (a, b) in pairs if not (pd.isna(a) and pd.isna(b)) and not np.array_equal(a, b)] or [-1]
