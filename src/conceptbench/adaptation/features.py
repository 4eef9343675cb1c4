"""Image features of a data set under the plain backbone, each image encoded once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

if TYPE_CHECKING:
    from conceptbench.backbones import Backbone
    from conceptbench.data import Dataset


class PlainFeatures:
    """Image features (not normalised) by row; what was asked for before is not computed again.

    One object serves all seeds of a task and its evaluation, as long as the image tower is the backbone's own.
    """

    def __init__(self, backbone: Backbone, dataset: Dataset, *, progress: bool = True) -> None:
        """Nothing is computed yet."""
        self.backbone = backbone
        self.dataset = dataset
        self._progress = progress
        self._rows: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._features = torch.empty(0, backbone.embed_dim, device=backbone.device)

    def __call__(self, rows: NDArray[np.int64]) -> Float[Tensor, "image embed"]:
        """Features of `rows`, in their order; a row may be asked for repeatedly."""
        missing = np.setdiff1d(rows, self._rows)
        if len(missing):
            new = dataset_features(self.backbone, self.dataset, missing, progress=self._progress)
            self._rows = np.concatenate([self._rows, missing])
            self._features = torch.cat([self._features, new.to(self._features.dtype)])
        order = np.argsort(self._rows)
        return self._features[torch.from_numpy(order[np.searchsorted(self._rows, rows, sorter=order)])]


@torch.no_grad()
def dataset_features(
    backbone: Backbone,
    dataset: Dataset,
    rows: NDArray[np.int64],
    *,
    batch_size: int = 100,
    progress: bool = True,
) -> Float[Tensor, "image embed"]:
    """Image features (not normalised) of the images `rows`, under whatever prompts are installed."""
    if len(rows) == 0:
        return torch.empty(0, backbone.embed_dim, device=backbone.device)
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    bar = tqdm(batches, desc=f"image features of {dataset.name}", unit="batch", disable=not progress)
    return torch.cat([backbone.encode_image(_pixels(backbone, dataset, batch)) for batch in bar])


def _pixels(backbone: Backbone, dataset: Dataset, rows: NDArray[np.int64]) -> Tensor:
    """Preprocessed pixels; rendered images, which have no files, come as one array."""
    if (dataset.manifest["path"].iloc[rows] == "").all():
        return backbone.preprocess(dataset.images(rows))
    return backbone.preprocess([dataset.pil(int(row)) for row in rows])
