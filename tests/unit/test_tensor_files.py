"""Safetensors files are the same bytes for the same content, and read by the library itself."""

from pathlib import Path

import numpy as np
import pytest
from safetensors import SafetensorError, safe_open

from conceptbench.tensor_files import map_tensors, write_tensors

NOTES = {"zebra": "1", "format": "x-1", "digest": "ab", "text": 'quoted "é" and a\nline', "shape": "[1, 2]"}
"""Five keys: the library alone would write them in the order below once in 120 files."""


def test_content_decides_every_byte(tmp_path: Path) -> None:
    tensors = {"b": np.arange(6, dtype=np.float32).reshape(2, 3), "a": np.ones(3, np.int64)}
    files = [tmp_path / f"{i}.safetensors" for i in range(8)]
    for i, path in enumerate(files):
        order = sorted(NOTES, reverse=bool(i % 2))
        write_tensors(tensors, path, {name: NOTES[name] for name in order})
    assert len({path.read_bytes() for path in files}) == 1


def test_the_library_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    transposed = np.arange(6, dtype=np.float32).reshape(2, 3).T
    write_tensors({"b": transposed, "a": np.float64(2.5)}, path, NOTES)
    with safe_open(path, "np") as stored:
        assert stored.metadata() == NOTES
        np.testing.assert_array_equal(stored.get_tensor("b"), transposed)
        assert stored.get_tensor("a") == 2.5


def test_mapped_arrays_are_those_of_the_file_which_nothing_changes(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    tensors = {
        **{"long": np.arange(5), "short": np.arange(3, dtype=np.int32), "none": np.zeros(0, np.float32)},
        **{"real": np.linspace(0, 1, 7, dtype=np.float32), "table": np.ones((2, 3), np.float32)},
        "double": np.ones(2),
    }
    write_tensors(tensors, path, NOTES)
    before = path.read_bytes()
    mapped, notes = map_tensors(path)
    assert notes == NOTES and set(mapped) == set(tensors)
    for name, array in tensors.items():
        assert mapped[name].dtype == array.dtype
        np.testing.assert_array_equal(mapped[name], array)
    mapped["real"] *= 2
    assert path.read_bytes() == before
    path.write_bytes(before[:-1])
    with pytest.raises(SafetensorError):
        map_tensors(path)
