"""A small model and a small dataset with the interface that `record` needs, and ways to hurt a store."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from conceptbench.activations import record
from conceptbench.activations.layout import STORE, shard_path

IMAGES = 40


class StandInDataset:
    """Rendered images that carry their row in the first pixel."""

    name = "dots"
    digest = "d" * 8

    def __init__(self, n: int = IMAGES) -> None:
        self.manifest = pd.DataFrame({"image": range(n), "path": [""] * n})

    def images(self, rows: Sequence[int]) -> np.ndarray:
        images = np.zeros((len(rows), 4, 4, 3), np.uint8)
        images[:, 0, 0, 0] = np.asarray(rows) % 256
        return images

    def pil(self, row: int) -> object:
        raise AssertionError("rendered images come as arrays")


class StandInBackbone:
    """Token t of image i at block b is (100 b + i, t, 1)."""

    name = "counter"
    digest = "b" * 8
    n_blocks = 6
    n_prefix = 1
    grid = (2, 2)
    width = 3
    image_size = 4
    device = "cpu"
    preprocess_config: Mapping[str, object] = MappingProxyType({"size": 4})

    def __init__(self, delay: float = 0.0) -> None:
        self.delay = delay
        self.prompts = 0
        self.passes = 0
        self.planted: dict[tuple[int, int], float] = {}

    def preprocess(self, images: np.ndarray) -> Tensor:
        return torch.from_numpy(np.asarray(images, np.float32)).permute(0, 3, 1, 2)

    def tokens(self, pixels: Tensor, blocks: Sequence[int]) -> dict[int, Tensor]:
        time.sleep(self.delay)
        self.passes += 1
        row = pixels[:, 0, 0, 0]
        found = {}
        for block in blocks:
            tokens = torch.ones(len(pixels), 5 + self.prompts, 3)
            tokens[:, :, 0] = row[:, None] + 100 * block
            tokens[:, :, 1] = torch.arange(5 + self.prompts)
            for (image, at), value in self.planted.items():
                if at == block:
                    tokens[row == image, 2, 2] = value
            found[block] = tokens
        return found

    @contextmanager
    def with_prompts(self) -> Iterator[None]:
        self.prompts = 2
        try:
            yield
        finally:
            self.prompts = 0


def expected(rows: Sequence[int], block: int) -> np.ndarray:
    tokens = np.ones((len(rows), 5, 3), np.float32)
    tokens[:, :, 0] = np.asarray(rows)[:, None] + 100 * block
    tokens[:, :, 1] = np.arange(5)
    return tokens


def record_small(folder: Path, n: int = IMAGES, **changes: object) -> Path:
    """Record blocks 1 and 4 of `n` images in shards of at most 16 images."""
    options = {"work": folder / "work", "batch_size": 5, "shard_images": 16, "progress": False, **changes}
    record(StandInBackbone(), StandInDataset(n), [1, 4], folder / "out", **options)
    return folder / "out"


def a_shard(out: Path, block: int = 4, shard: int = 1) -> Path:
    return shard_path(out / STORE, block, shard)
