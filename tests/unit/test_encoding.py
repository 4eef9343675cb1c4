"""Files of codes of one job: those of a killed attempt are kept while they are whole and belong to the same inputs."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from script_tools import loaded

from conceptbench.dictionaries import Codes


@pytest.fixture(scope="module")
def module() -> ModuleType:
    return loaded("_encoding")


class Counted:
    """A dictionary of two latents that counts the batches which it has encoded."""

    def __init__(self) -> None:
        self.batches = 0

    def encode(self, tokens: np.ndarray, device: str) -> Codes:
        self.batches += 1
        firing = np.ones(len(tokens))
        indptr, indices = np.arange(len(tokens) + 1), np.zeros(len(tokens))
        shape = (len(tokens), 1, 2)
        return Codes(indptr.astype(np.int64), indices.astype(np.int32), firing.astype(np.float32), shape, "digest")


def batches() -> Iterator[tuple[Any, np.ndarray]]:
    yield from ((None, np.zeros((3, 1, 4))) for _ in range(2))


def test_files_of_a_killed_attempt_are_encoded_once(module: ModuleType, tmp_path: Path) -> None:
    given, notes, path = tmp_path / "manifest.json", tmp_path / "notes", tmp_path / "codes.safetensors"
    given.write_text(json.dumps({"k": 1}))
    dictionary = Counted()

    def attempt() -> int:
        """Begin the job anew; returns how many batches have been encoded since the beginning of the test."""
        encoding = module.Encoding(notes, [str(given)], "cpu")
        encoding.write("4.topk.0", path, dictionary, batches())
        return dictionary.batches

    assert attempt() == 2
    whole = path.read_bytes()
    assert attempt() == 2
    path.write_bytes(whole[:-1])
    assert attempt() == 4 and path.read_bytes() == whole
    path.unlink()
    assert attempt() == 6
    given.write_text(json.dumps({"k": 2}))
    assert attempt() == 8
    module.Encoding(notes, [str(given)], "cpu").close()
    assert not notes.exists()
    assert attempt() == 10


def test_nothing_is_noted_of_a_file_that_failed(module: ModuleType, tmp_path: Path) -> None:
    encoding = module.Encoding(tmp_path / "notes", [], "cpu")

    def broken(tokens: np.ndarray, device: str) -> Codes:
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        encoding.write("a", tmp_path / "codes.safetensors", SimpleNamespace(encode=broken), batches())
    assert list(tmp_path.rglob("*.*")) == []
