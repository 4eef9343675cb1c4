"""Arrays in one safetensors file: complete or absent, and the same bytes for the same content."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save_file

from conceptbench.tables import atomic_write

_LENGTH: Final = 8
"""Bytes at the start of a safetensors file that say how long its header is (little-endian)."""
_KINDS: Final[dict["np.dtype[Any]", str]] = {np.dtype("<i8"): "I64", np.dtype("<f4"): "F32", np.dtype("<i4"): "I32"}
"""safetensors' names of number formats, in the order in which it stores arrays; arrays of one format go by name."""


def write_tensors(tensors: Mapping[str, np.ndarray], path: Path | str, metadata: Mapping[str, str]) -> None:
    """Write arrays of any shape with text beside them, atomically.

    Raises:
        ConceptBenchError: when the disk refuses; an older file is then untouched.
    """
    contiguous = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    with atomic_write(path) as partial:
        save_file(contiguous, partial, metadata=dict(metadata))
        _order_metadata(partial)


def join_tensors(
    values: Mapping[str, tuple["np.dtype[Any]", Path]], path: Path | str, metadata: Mapping[str, str]
) -> None:
    """Write one-dimensional arrays whose values lie in files of their own, without holding them in memory.

    The bytes are those of `write_tensors` for the same arrays.

    Args:
        values: by name the number format (int64, int32 or float32) and the file with its little-endian values.
        path, metadata: as in `write_tensors`.

    Raises:
        ConceptBenchError: when the disk refuses; an older file is then untouched.
    """
    ranks = list(_KINDS)
    names = sorted(values, key=lambda name: (ranks.index(values[name][0]), name))
    header: dict[str, Any] = {"__metadata__": dict(sorted(metadata.items()))}
    end = 0
    for name in names:
        dtype, source = values[name]
        start, end = end, end + source.stat().st_size
        shape = [(end - start) // dtype.itemsize]
        header[name] = {"dtype": _KINDS[dtype], "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text = text.ljust(-(-len(text) // _LENGTH) * _LENGTH)
    with atomic_write(path) as partial, partial.open("wb") as file:
        file.write(len(text).to_bytes(_LENGTH, "little") + text)
        for name in names:
            with values[name][1].open("rb") as source_file:
                shutil.copyfileobj(source_file, file, 1 << 20)


def map_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return the arrays of a file as copy-on-write maps of it, and the text beside them.

    Only arrays of the formats of `join_tensors`, in one dimension, can be mapped; all others are read.

    Raises:
        SafetensorError, OSError: when the file is no whole safetensors file.
    """
    with safe_open(path, framework="numpy") as file:
        metadata: dict[str, str] = file.metadata() or {}
        with path.open("rb") as raw:
            length = int.from_bytes(raw.read(_LENGTH), "little")
            header = json.loads(raw.read(length))
        kinds = {name: dtype for dtype, name in _KINDS.items()}
        tensors: dict[str, np.ndarray] = {}
        for name in file.keys():  # noqa: SIM118
            entry = header[name]
            dtype, (start, end) = kinds.get(entry["dtype"]), entry["data_offsets"]
            if dtype is None or len(entry["shape"]) != 1 or start == end:
                tensors[name] = file.get_tensor(name)
                continue
            place = _LENGTH + length + start
            tensors[name] = np.asarray(np.memmap(path, dtype, "c", place, tuple(entry["shape"])))
    return tensors, metadata


def _order_metadata(path: Path) -> None:
    """Sort the metadata of a header in place: the library writes them in an order of chance, file by file."""
    with path.open("r+b") as file:
        length = int.from_bytes(file.read(_LENGTH), "little")
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > length:
            raise AssertionError(f"The header of {path} grew from {length} to {len(text)} bytes when it was sorted.")
        file.seek(_LENGTH)
        file.write(text.ljust(length))
