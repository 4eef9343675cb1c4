"""Scoring an adapter: every test image against the candidates of its own half of the classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from conceptbench.adaptation.adapter import Adapter
from conceptbench.adaptation.features import PlainFeatures, dataset_features
from conceptbench.adaptation.tasks import candidate_labels
from conceptbench.data.classes import require_images

if TYPE_CHECKING:
    from conceptbench.backbones import Backbone
    from conceptbench.data import Dataset

PREDICTION_COLUMNS = (
    "image",
    "label",
    "half",
    "setting",
    "method",
    "seed",
    "predicted",
    "correct",
    "log_likelihood",
)
"""Columns of the table of predictions, one row per image; labels are those of the whole data set."""


@torch.no_grad()
def evaluate(
    adapter: Adapter,
    backbone: Backbone,
    dataset: Dataset,
    *,
    plain: PlainFeatures | None = None,
    split: str = "test",
    batch_size: int = 100,
    progress: bool = True,
) -> pd.DataFrame:
    """Predictions for every labelled image of `split`, with the columns of `PREDICTION_COLUMNS`.

    `log_likelihood` is that of the true class among the candidates of the image's half. A half that the method cannot
    score has no rows (`Adapter.missing_note` says why). Adapters that leave the image tower alone take the image
    features from `plain`, where those of earlier calls are kept.

    Raises ConceptBenchError when the data set has other classes than the adapter was trained on, or a class that
    can be scored has no images in the split.
    """
    setting = str(adapter.card["setting"])
    adapter.require_classes(dataset.name, next(_names(dataset, setting)))
    plain = plain or PlainFeatures(backbone, dataset, progress=progress)
    rows = np.asarray(dataset.rows(split), dtype=np.int64)
    labels = np.asarray(dataset.labels(rows), dtype=np.int64)
    parts = []
    for half, candidates in candidate_labels(dataset.classes, setting).items():
        names = [dataset.classes[label] for label in candidates]
        if adapter.missing_note(names):
            continue
        require_images(dataset, split, candidates)
        chosen = np.isin(labels, candidates)
        if adapter.moves_images:
            with adapter.image_context(backbone):
                features = dataset_features(backbone, dataset, rows[chosen], batch_size=batch_size, progress=progress)
        else:
            features = plain(rows[chosen])
        logits = adapter.classify(backbone, features, names)
        parts.append(_score(logits, labels[chosen], candidates) | {"image": rows[chosen], "half": half})
    identity: dict[str, Any] = {"setting": setting, "method": adapter.spec.name, "seed": int(adapter.card["seed"])}
    frame = pd.concat([pd.DataFrame(part) for part in parts], ignore_index=True).assign(**identity)
    return frame[list(PREDICTION_COLUMNS)]


def _names(dataset: Dataset, setting: str) -> Iterator[tuple[str, ...]]:
    """The class names of each half, the trained one first."""
    for labels in candidate_labels(dataset.classes, setting).values():
        yield tuple(dataset.classes[label] for label in labels)


def _score(logits: Tensor, labels: NDArray[np.int64], candidates: list[int]) -> dict[str, NDArray[Any]]:
    """Per image: true and predicted label, whether they agree, and the log-likelihood of the true one."""
    position = {label: i for i, label in enumerate(candidates)}
    targets = np.asarray([position[int(label)] for label in labels])
    log_probabilities = torch.log_softmax(logits.detach().double().cpu(), dim=-1).numpy()
    predicted = np.asarray(candidates, dtype=np.int64)[log_probabilities.argmax(axis=1)]
    return {
        "label": labels,
        "predicted": predicted,
        "correct": predicted == labels,
        "log_likelihood": log_probabilities[np.arange(len(labels)), targets],
    }
