"""Outputs of a backbone on disk: what is written comes back, in any order, and nothing else does."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from conceptbench.activations.outputs import BATCH, read_outputs, record_outputs
from conceptbench.errors import ConceptBenchError


class Model:
    """Embeds an image as (its number, 1), without normalising."""

    name = "model"

    def __init__(self, bad: float | None = None) -> None:
        self.bad = bad

    def preprocess(self, images: np.ndarray) -> Tensor:
        return torch.from_numpy(images)

    def embed_images(self, pixels: Tensor) -> Tensor:
        values = pixels.float()
        if self.bad is not None:
            values[0] = self.bad
        return torch.stack([values, torch.ones_like(values)], dim=1)


class Images:
    """Image number i is the number i."""

    def images(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(rows)


ROWS = np.arange(BATCH + 7) * 3


def record(path: Path) -> Path:
    record_outputs(Model(), Images(), ROWS, path, progress=False)  # type: ignore[arg-type]
    return path


def test_embeddings_come_back_in_the_order_asked_for(tmp_path: Path) -> None:
    path, wanted = record(tmp_path / "outputs.safetensors"), ROWS[::-5]
    found = read_outputs(path, wanted)
    np.testing.assert_array_equal(found, np.stack([wanted, np.ones(len(wanted))], axis=1))
    assert found.dtype == np.float32


def test_an_image_that_was_not_recorded_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConceptBenchError, match="lacks image 4 "):
        read_outputs(record(tmp_path / "outputs.safetensors"), np.array([3, 4]))


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = record(tmp_path / "outputs.safetensors")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ConceptBenchError, match="missing or damaged"):
        read_outputs(path, ROWS)


def test_nothing_is_written_when_an_embedding_is_not_finite(tmp_path: Path) -> None:
    path = tmp_path / "outputs.safetensors"
    with pytest.raises(ConceptBenchError, match="NaN or infinity"):
        record_outputs(Model(float("nan")), Images(), ROWS, path, progress=False)  # type: ignore[arg-type]
    assert not path.exists()
