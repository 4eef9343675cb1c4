"""Files that are written whole or not at all: tidy tables, JSON, and the digests that identify them."""

import hashlib
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from safetensors import SafetensorError

from conceptbench.errors import ConceptBenchError

ESTIMATE_COLUMNS: Final = ("estimate", "low", "high", "n", "seed", "note")
"""The columns of an estimate; `note` says why an interval is missing, and is empty otherwise."""


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success move it into place, on failure remove it.

    The content is flushed to the disk before the move, so that a file of the final name is always complete. A full
    disk shows as OSError, or as SafetensorError when safetensors writes the temporary file.

    Raises:
        ConceptBenchError: when the disk refuses.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.partial{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ConceptBenchError(f"Cannot write {path}: {reason}; free or repair the disk and run again.") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_table(frame: pd.DataFrame, stem: Path | str) -> None:
    """Write `frame` as `<stem>.parquet` and `<stem>.csv`, each complete or absent.

    Raises:
        ConceptBenchError: when column names are not unique text, or the disk refuses.
    """
    stem = Path(stem)
    names = list(frame.columns)
    if not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise ConceptBenchError(f"Table {stem} needs unique column names that are text; it has {names}.")
    frame = frame.reset_index(drop=True)
    with atomic_write(stem.parent / f"{stem.name}.parquet") as path:
        frame.to_parquet(path, index=False)
    with atomic_write(stem.parent / f"{stem.name}.csv") as path:
        frame.to_csv(path, index=False, lineterminator="\n")


def read_table(path: Path | str, columns: Iterable[str] = ()) -> pd.DataFrame:
    """Read a table by its stem, its `.parquet` or its `.csv` name (parquet wins for a stem).

    Args:
        path: the stem or the file.
        columns: names that must be present.

    Raises:
        ConceptBenchError: when the file is missing, unreadable, or lacks a column.
    """
    path = Path(path)
    if path.suffix not in {".parquet", ".csv"}:
        path = path.parent / f"{path.name}.parquet"
    if not path.is_file():
        raise ConceptBenchError(f"Table {path} does not exist; run the rule that writes it.")
    try:
        frame = pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)
    except (OSError, ValueError) as error:
        raise ConceptBenchError(f"Table {path} is unreadable ({error}); delete it and run again.") from error
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise ConceptBenchError(f"Table {path} lacks the column(s) {', '.join(missing)}; delete it and run again.")
    return frame


def _plain(value: Any) -> Any:
    """Turn NumPy values, paths, tuples and sets into what JSON knows."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, set | frozenset):
        return sorted(_plain(item) for item in value)
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, Path):
        return value.as_posix()
    return value


def _refuse_non_finite(value: Any, key: str, where: str) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ConceptBenchError(f"{where}: the value of '{key or 'the document'}' is {value}; write null and say why.")
    if isinstance(value, dict):
        for name, item in value.items():
            _refuse_non_finite(item, f"{key}.{name}".lstrip("."), where)
    if isinstance(value, list):
        for index, item in enumerate(value):
            _refuse_non_finite(item, f"{key}[{index}]", where)


def write_json(obj: Any, path: Path | str) -> None:
    """Write `obj` as JSON with sorted keys and a final newline, complete or absent.

    Raises:
        ConceptBenchError: when a value is NaN or infinite (the key is named), or the disk refuses.
    """
    path = Path(path)
    plain = _plain(obj)
    _refuse_non_finite(plain, "", str(path))
    text = json.dumps(plain, indent=2, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(path: Path | str) -> Any:
    """Read a JSON file.

    Raises:
        ConceptBenchError: when the file is missing or is not JSON.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConceptBenchError(f"File {path} does not exist; run the rule that writes it.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ConceptBenchError(f"File {path} is not valid JSON ({error}); delete it and run again.") from error
    except OSError as error:
        raise ConceptBenchError(f"File {path} cannot be read ({error.strerror}); check its permissions.") from error


def sha256_file(path: Path | str) -> str:
    """Return the hexadecimal SHA-256 of a file's bytes.

    Raises:
        ConceptBenchError: when the file cannot be read.
    """
    try:
        with Path(path).open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise ConceptBenchError(f"File {path} cannot be read ({error.strerror}); restore it and run again.") from error


def digest(obj: Any) -> str:
    """Return the hexadecimal SHA-256 of an object's canonical JSON (sorted keys, no spaces).

    Raises:
        ConceptBenchError: when a value is NaN or infinite.
    """
    plain = _plain(obj)
    _refuse_non_finite(plain, "", "Digest")
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def natural_order(name: str) -> tuple[str | int, ...]:
    """Return the sort key of a name with numbers in it: topk-k4 before topk-k16; odd places of the key are numbers."""
    return tuple(int(part) if at % 2 else part for at, part in enumerate(re.split(r"(\d+)", name)))
