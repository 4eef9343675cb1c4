"""Scoring an adapter: every test image against the candidates of its own half of the classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from conceptbench.adaptation.adapter import Adapter
from conceptbench.adaptation.tasks import candidate_labels
from conceptbench.errors import ConceptBenchError

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
def dataset_features(
    backbone: Backbone,
    dataset: Dataset,
    rows: Sequence[int] | NDArray[np.int64],
    *,
    batch_size: int = 100,
    progress: bool = True,
) -> Float[Tensor, "image embed"]:
    """Image features (not normalised) of the images `rows`, under whatever prompts are installed."""
    if len(rows) == 0:
        return torch.empty(0, backbone.embed_dim, device=backbone.device)
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    bar = tqdm(batches, desc=f"image features of {dataset.name}", unit="batch", disable=not progress)
    return torch.cat(
        [backbone.encode_image(backbone.preprocess([dataset.pil(int(row)) for row in batch])) for batch in bar]
    )


def evaluate(
    adapter: Adapter,
    backbone: Backbone,
    dataset: Dataset,
    *,
    split: str = "test",
    batch_size: int = 100,
    progress: bool = True,
) -> pd.DataFrame:
    """Predictions for every labelled image of `split`, with the columns of `PREDICTION_COLUMNS`.

    `log_likelihood` is that of the true class among the candidates of the image's half. A half that the method cannot
    score has no rows; `accuracy_table` says so.

    Raises ConceptBenchError when a half that can be scored has no images in the split.
    """
    setting = str(adapter.card["setting"])
    rows = np.asarray(dataset.rows(split), dtype=np.int64)
    labels = np.asarray(dataset.labels(rows), dtype=np.int64)
    parts = []
    for half, candidates in candidate_labels(dataset.classes, setting).items():
        names = [dataset.classes[label] for label in candidates]
        if adapter.missing_note(names):
            continue
        chosen = np.isin(labels, candidates)
        if not chosen.any():
            raise ConceptBenchError(
                f"data set {dataset.name!r} has no {half} images in its {split} split; "
                "give the split images of those classes."
            )
        with adapter.image_context(backbone):
            features = dataset_features(backbone, dataset, rows[chosen], batch_size=batch_size, progress=progress)
        logits = adapter.classify(backbone, features, names)
        parts.append(_score(logits, labels[chosen], candidates) | {"image": rows[chosen], "half": half})
    identity: dict[str, Any] = {"setting": setting, "method": adapter.spec.name, "seed": int(adapter.card["seed"])}
    frame = pd.concat([pd.DataFrame(part) for part in parts], ignore_index=True).assign(**identity)
    return frame[list(PREDICTION_COLUMNS)]


def accuracy_table(predictions: pd.DataFrame) -> pd.DataFrame:
    """Accuracy (correct over all, micro) per setting, method, seed and half, with `n` images and a `note`.

    In the setting "base-to-novel" a method without rows for the novel half gets a row that says why, and each seed gets
    the harmonic mean of its halves.
    """
    records: list[dict[str, Any]] = []
    for (setting, method, seed), group in predictions.groupby(["setting", "method", "seed"], sort=False):
        identity: dict[str, Any] = {"setting": setting, "method": method, "seed": seed}
        scores = {half: part["correct"].mean() for half, part in group.groupby("half", sort=False)}
        counts = group["half"].value_counts()
        for half in ("base", "novel") if setting == "base-to-novel" else ("all",):
            note = "" if half in scores else "the method has no outputs for classes it was not trained on"
            records.append(
                identity
                | {"half": half, "accuracy": scores.get(half, np.nan), "n": int(counts.get(half, 0)), "note": note}
            )
        if setting == "base-to-novel":
            both = {"base", "novel"} <= set(scores)
            mean = harmonic_mean(scores["base"], scores["novel"]) if both else np.nan
            note = "" if both else "needs the accuracy of both halves"
            records.append(identity | {"half": "harmonic_mean", "accuracy": mean, "n": len(group), "note": note})
    return pd.DataFrame(records)


def aggregate_seeds(accuracies: pd.DataFrame) -> pd.DataFrame:
    """Mean and population standard deviation over the seeds of an `accuracy_table`.

    The harmonic mean is that of the seed-averaged accuracies, as the papers report it; it has no deviation.
    """
    records: list[dict[str, Any]] = []
    for (setting, method), group in accuracies.groupby(["setting", "method"], sort=False):
        by_half = {half: part["accuracy"].to_numpy() for half, part in group.groupby("half", sort=False)}
        for half, values in by_half.items():
            mean, deviation = float(values.mean()), float(values.std(ddof=0))
            if half == "harmonic_mean":
                mean, deviation = harmonic_mean(by_half["base"].mean(), by_half["novel"].mean()), np.nan
            records.append(
                {
                    "setting": setting,
                    "method": method,
                    "half": half,
                    "mean": mean,
                    "std": deviation,
                    "seeds": len(values),
                }
            )
    return pd.DataFrame(records)


def harmonic_mean(base: float, novel: float) -> float:
    """2 base novel / (base + novel); 0 when both are 0."""
    return 2 * base * novel / (base + novel) if base + novel != 0 else 0.0


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
