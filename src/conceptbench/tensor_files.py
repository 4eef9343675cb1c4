"""Arrays in one safetensors file: complete or absent, and the same bytes for the same content."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import numpy as np
from safetensors.numpy import save_file

from conceptbench.tables import atomic_write

_LENGTH: Final = 8
"""Bytes at the start of a safetensors file that say how long its header is (little-endian)."""


def write_tensors(tensors: Mapping[str, np.ndarray], path: Path | str, metadata: Mapping[str, str]) -> None:
    """Write arrays of any shape with text beside them, atomically.

    Raises:
        ConceptBenchError: when the disk refuses; an older file is then untouched.
    """
    contiguous = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    with atomic_write(path) as partial:
        save_file(contiguous, partial, metadata=dict(metadata))
        _order_metadata(partial)


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
