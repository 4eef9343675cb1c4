"""Whether two runs of the smoke experiment computed the same: every table, every learnt array, every stored token."""

from pathlib import Path

import numpy as np
import pandas as pd

TIMES = ("seconds", "tokens_per_s")
"""Columns, and rows of long tables, of measured time, which no two runs share."""
NUMBERS = ("tables/*.parquet", "figures/*.csv")
"""Compared by value: the last digits of a sum depend on where in memory its terms lie."""
BYTES = ("metrics.json", "**/*.safetensors", "**/store.zarr/**/c/*/0/0")
"""Files whose every byte follows from configuration and code."""
RELATIVE = 1e-9


def differing(one: Path, other: Path) -> list[str]:
    """Files of one run that the other lacks or has with other content."""
    left, right = computed(one), computed(other)
    assert {"metrics.json", "tables/accuracy.parquet"} <= left, "nothing to compare"
    return sorted(name for name in left | right if name not in left & right or not same(one / name, other / name))


def computed(results: Path) -> set[str]:
    """Files that two runs must share, by their paths below the results."""
    found = {path for pattern in NUMBERS + BYTES for path in results.glob(pattern) if ".work" not in path.parts}
    return {str(path.relative_to(results)) for path in found if path.is_file() and "runtime" not in path.stem}


def same(one: Path, other: Path) -> bool:
    """Whether two files hold the same: numbers but for their last digits, all else byte by byte."""
    if one.suffix not in (".parquet", ".csv"):
        return one.read_bytes() == other.read_bytes()
    left, right = untimed(one), untimed(other)
    if list(left.columns) != list(right.columns) or len(left) != len(right):
        return False
    return all(same_column(left[name], right[name]) for name in left)


def untimed(path: Path) -> pd.DataFrame:
    """A table without what was measured with a clock."""
    table = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    kept = table.drop(columns=[name for name in TIMES if name in table])
    return kept[~kept["column"].isin(TIMES)].reset_index(drop=True) if "column" in kept else kept


def same_column(left: pd.Series, right: pd.Series) -> bool:
    if pd.api.types.is_float_dtype(left) and pd.api.types.is_float_dtype(right):
        return bool(np.allclose(left, right, rtol=RELATIVE, atol=RELATIVE, equal_nan=True))
    return left.equals(right)
