"""What the remapping measures share: a task's images at the hook point of each model, encoded once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from conceptbench.adaptation import Adapter
from conceptbench.adaptation.tasks import candidate_labels
from conceptbench.backbones import Backbone
from conceptbench.data import Dataset
from conceptbench.dictionaries import Codes, Dictionary
from conceptbench.measures.readout import Activations, Readout, activations_of, balanced_rows
from conceptbench.seeds import rng

SPLIT_A, SPLIT_B = "val", "test"
ZERO_SHOT = "zero-shot"


@dataclass(frozen=True, eq=False)
class Images:
    """The images of the trained half of a task on which a measure selects (A) and scores (B)."""

    task: str
    half: str
    candidates: tuple[int, ...]
    class_names: tuple[str, ...]
    rows: Mapping[str, NDArray[np.int64]]
    """Rows of the data set by split."""


@dataclass(frozen=True, eq=False)
class Model:
    """One model and seed: its readout, and its activations and codes on both splits."""

    readout: Readout
    activations: Mapping[str, Activations]
    codes: Mapping[str, Codes]


def trained_half(task: str, dataset: Dataset, setting: str, most: int, seed: int) -> Images:
    """At most `most` images of each split, evenly over the classes that adaptation trains; one draw for all seeds."""
    half, labels = next(iter(candidate_labels(dataset.classes, setting).items()))
    names = tuple(dataset.classes[label] for label in labels)
    rows = {
        split: balanced_rows(dataset, split, labels, most, rng(seed, "images", task, split))
        for split in (SPLIT_A, SPLIT_B)
    }
    return Images(task, half, tuple(labels), names, rows)


def run_model(
    backbone: Backbone, adapter: Adapter, dataset: Dataset, images: Images, block: int, dictionary: Dictionary
) -> Model:
    """The lower half and the encoding of every image, once.

    Raises ConceptBenchError when the adapter was trained on other classes than those of `images`.
    """
    adapter.require_classes(dataset.name, images.class_names)
    found = {
        split: activations_of(backbone, adapter, dataset, rows, images.candidates, block)
        for split, rows in images.rows.items()
    }
    codes = {split: dictionary.encode(part.numpy(), str(backbone.device)) for split, part in found.items()}
    return Model(Readout(backbone, adapter, block, images.class_names), found, codes)


def heading(images: Images, **names: Any) -> dict[str, Any]:
    """The identifying columns of a table of one task."""
    return {"task": images.task, **names, "half": images.half}
