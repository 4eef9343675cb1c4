"""What is to be recorded: the model, the images and the context, checked and turned into a specification."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from conceptbench.activations.layout import DTYPES, Dtype, StoreSpec, balanced_shard, to_runs
from conceptbench.errors import ConceptBenchError

RowIds = np.ndarray[Any, np.dtype[np.int64]]

Precision = Literal["float32", "bfloat16", "float16"]
"""Number format of the products of a forward pass."""


class TokenModel(Protocol):
    """What `record` needs of a backbone."""

    @property
    def name(self) -> str:
        """Name in the configuration."""

    @property
    def digest(self) -> str:
        """Digest of weights, architecture and preprocessing."""

    @property
    def n_blocks(self) -> int:
        """Transformer blocks of the image tower."""

    @property
    def n_prefix(self) -> int:
        """Tokens before the patch tokens."""

    @property
    def grid(self) -> tuple[int, int]:
        """Patch tokens: rows, columns."""

    @property
    def width(self) -> int:
        """Features of a token."""

    @property
    def image_size(self) -> int:
        """Side of the square input."""

    @property
    def device(self) -> torch.device | str:
        """Where the weights are."""

    @property
    def preprocess_config(self) -> Mapping[str, Any]:
        """Resizing and normalisation; a record of what was done."""

    def preprocess(self, images: Any) -> Float[Tensor, "image channel height width"]:
        """Resize and normalise images."""

    def tokens(
        self, pixels: Float[Tensor, "image channel height width"], blocks: Sequence[int]
    ) -> dict[int, Float[Tensor, "image token feature"]]:
        """Tokens behind each of the blocks, from one pass."""


class ImageSource(Protocol):
    """What `record` needs of a dataset."""

    @property
    def name(self) -> str:
        """Name in the configuration."""

    @property
    def digest(self) -> str:
        """Digest of the images and their order."""

    @property
    def manifest(self) -> pd.DataFrame:
        """One row for each image; an empty `path` marks a rendered one."""

    def images(self, rows: Sequence[int] | RowIds) -> UInt8[np.ndarray, "image height width 3"]:
        """Images of equal size."""

    def pil(self, row: int) -> Any:
        """One image."""


@dataclass(frozen=True)
class RecordingContext:
    """An adaptation that is installed in the backbone while it records."""

    name: str
    digest: str
    install: Callable[[], AbstractContextManager[Any]]
    """Returns a context manager; own tokens that it appends behind the patch tokens are not stored."""


def make_spec(
    backbone: TokenModel,
    dataset: ImageSource,
    blocks: Sequence[int],
    rows: Sequence[int] | RowIds | None,
    batch_size: int,
    dtype: Dtype,
    context: RecordingContext | None,
    shard_images: int,
    precision: Precision = "float32",
) -> StoreSpec:
    """Check a request and turn it into the specification of its store.

    Raises:
        ConceptBenchError: for a block out of range, rows that are unknown or repeated, an unknown dtype.
    """
    available = len(dataset.manifest)
    ids = np.arange(available) if rows is None else np.asarray(rows, dtype=np.int64).reshape(-1)
    _check_request(backbone, dataset.name, available, blocks, ids, dtype, min(batch_size, shard_images))
    device = torch.device(backbone.device).type
    mixed = {"precision": precision} if device == "cuda" and precision != "float32" else {}
    execution = {"batch_size": str(batch_size), "device": device, **mixed, "torch": torch.__version__}
    return StoreSpec(
        backbone=backbone.name,
        backbone_digest=backbone.digest,
        dataset=dataset.name,
        dataset_digest=dataset.digest,
        context=context.name if context else "",
        context_digest=context.digest if context else "",
        blocks=tuple(sorted(blocks)),
        rows=to_runs(ids),
        n_prefix=backbone.n_prefix,
        grid=(int(backbone.grid[0]), int(backbone.grid[1])),
        width=backbone.width,
        dtype=dtype,
        shard_images=balanced_shard(len(ids), shard_images),
        image_size=backbone.image_size,
        preprocessing=tuple(sorted((name, str(value)) for name, value in backbone.preprocess_config.items())),
        execution=tuple(execution.items()),
    )


def _check_request(
    backbone: TokenModel,
    dataset: str,
    available: int,
    blocks: Sequence[int],
    ids: RowIds,
    dtype: str,
    smallest: int,
) -> None:
    wrong = [block for block in blocks if not 0 <= block < backbone.n_blocks]
    if wrong or not blocks or len(set(blocks)) != len(blocks):
        raise ConceptBenchError(
            f"Backbone {backbone.name} has blocks 0..{backbone.n_blocks - 1} and {list(blocks)} was asked for; "
            "name each block once and within this range under hooks."
        )
    if not len(ids):
        raise ConceptBenchError(f"No rows of dataset {dataset} were chosen; choose at least one image to record.")
    outside = ids[(ids < 0) | (ids >= available)]
    if len(outside):
        raise ConceptBenchError(f"Dataset {dataset} has rows 0..{available - 1}, not row {outside[0]}; correct rows.")
    unique, counts = np.unique(ids, return_counts=True)
    if counts.max() > 1:
        raise ConceptBenchError(f"Row {unique[counts.argmax()]} of dataset {dataset} is named twice; name it once.")
    if dtype not in DTYPES:
        raise ConceptBenchError(f"Activations cannot be stored as '{dtype}'; choose one of {', '.join(DTYPES)}.")
    if smallest < 1:
        raise ConceptBenchError("batch_size and shard_images must be at least 1; correct the call.")
