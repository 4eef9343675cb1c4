"""The output of a backbone: one L2-normalised embedding an image, small enough for one file."""

from pathlib import Path
from typing import Final, Protocol

import numpy as np
import torch
from jaxtyping import Float32, Int64
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from conceptbench.activations.request import ImageSource
from conceptbench.errors import ConceptBenchError
from conceptbench.tables import atomic_write

BATCH: Final = 512
_KEYS: Final = {"embeddings", "rows"}


class EmbeddingModel(Protocol):
    """What is asked of a backbone."""

    @property
    def name(self) -> str:
        """Name in messages."""

    def preprocess(self, images: np.ndarray) -> Tensor:
        """Pixels of uint8 images."""

    def embed_images(self, pixels: Tensor) -> Tensor:
        """L2-normalised embeddings [image, feature]."""


def record_outputs(
    backbone: EmbeddingModel,
    dataset: ImageSource,
    rows: Int64[np.ndarray, " image"],
    path: Path,
    *,
    progress: bool = True,
) -> None:
    """Embed the images `rows` of a data set and write embeddings and rows to one safetensors file.

    Raises:
        ConceptBenchError: when an embedding is not finite.
    """
    parts = []
    with torch.inference_mode(), tqdm(total=len(rows), unit="image", disable=not progress) as bar:
        for start in range(0, len(rows), BATCH):
            part = rows[start : start + BATCH]
            parts.append(backbone.embed_images(backbone.preprocess(dataset.images(part))).cpu().numpy())
            bar.update(len(part))
    embeddings = np.concatenate(parts).astype(np.float32)
    if not np.isfinite(embeddings).all():
        raise ConceptBenchError(
            f"Backbone {backbone.name} gave an embedding with NaN or infinity; check its weights and preprocessing."
        )
    with atomic_write(path) as partial:
        save_file({"embeddings": embeddings, "rows": np.asarray(rows, np.int64)}, partial)


def read_outputs(path: Path, rows: Int64[np.ndarray, " image"]) -> Float32[np.ndarray, "image feature"]:
    """Read the embeddings of the images `rows`, in this order.

    Raises:
        ConceptBenchError: when the file is missing, damaged, or lacks one of the images.
    """
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConceptBenchError(f"{path} is missing or damaged ({error}); run record_outputs again.") from error
    if set(tensors) != _KEYS:
        raise ConceptBenchError(f"{path} holds {sorted(tensors)}, not {sorted(_KEYS)}; run record_outputs again.")
    position = {int(row): at for at, row in enumerate(tensors["rows"])}
    if missing := [int(row) for row in rows if int(row) not in position]:
        raise ConceptBenchError(f"{path} lacks image {missing[0]} of the data set; run record_outputs again.")
    embeddings: np.ndarray = tensors["embeddings"][[position[int(row)] for row in rows]]
    return embeddings
