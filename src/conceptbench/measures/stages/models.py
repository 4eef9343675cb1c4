"""What the remapping measures share: a task's images at the hook point of each model, encoded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

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
Part = TypeVar("Part")


@dataclass(frozen=True, eq=False)
class Images:
    """The images of the trained half of a task on which a measure selects (A) and scores (B)."""

    task: str
    half: str
    candidates: tuple[int, ...]
    class_names: tuple[str, ...]
    rows: Mapping[str, NDArray[np.int64]]
    """Rows of the data set by split."""


class BySplit(Mapping[str, Part]):
    """What is computed for a split when it is first asked for, and kept: few measures look at all of split A."""

    def __init__(self, compute: Callable[[str], Part]) -> None:
        """Nothing is computed yet."""
        self._compute = cache(compute)

    def __getitem__(self, split: str) -> Part:
        """The part of one of the two splits."""
        if split not in (SPLIT_A, SPLIT_B):
            raise KeyError(split)
        return self._compute(split)

    def __iter__(self) -> Iterator[str]:
        """Split A, split B."""
        return iter((SPLIT_A, SPLIT_B))

    def __len__(self) -> int:
        """Two."""
        return 2


@dataclass(frozen=True, eq=False)
class Model:
    """One model and seed: its readout, and its activations and codes on both splits."""

    readout: Readout
    activations: Mapping[str, Activations]
    codes: Mapping[str, Codes]


def trained_half(task: str, dataset: Dataset, setting: str, most: int | Sequence[int], seed: int) -> Images:
    """Images of both splits, evenly over the classes that adaptation trains; one draw for all seeds.

    Args:
        most: images of each split, at most, or of split A (where measures select) and split B (where they score).
    """
    half, labels = next(iter(candidate_labels(dataset.classes, setting).items()))
    names = tuple(dataset.classes[label] for label in labels)
    limits = (most, most) if isinstance(most, int) else most
    rows = {
        split: balanced_rows(dataset, split, labels, limit, rng(seed, "images", task, split))
        for split, limit in zip((SPLIT_A, SPLIT_B), limits, strict=True)
    }
    return Images(task, half, tuple(labels), names, rows)


def run_model(
    backbone: Backbone, adapter: Adapter, dataset: Dataset, images: Images, block: int, dictionary: Dictionary
) -> Model:
    """The lower half and the encoding of every image of a split, once, when the split is first asked for.

    Raises ConceptBenchError when the adapter was trained on other classes than those of `images`.
    """
    adapter.require_classes(dataset.name, images.class_names)
    found = BySplit(
        lambda split: activations_of(backbone, adapter, dataset, images.rows[split], images.candidates, block)
    )
    codes = BySplit(lambda split: dictionary.encode(found[split].numpy(), str(backbone.device)))
    return Model(Readout(backbone, adapter, block, images.class_names), found, codes)


def read_out(model: Model, adapter: Adapter, dataset: Dataset, images: Images) -> Model:
    """The activations and codes of a model under another adapter, one that leaves the image tower alone.

    Raises ConceptBenchError when the adapter was trained on other classes than those of `images`.
    """
    adapter.require_classes(dataset.name, images.class_names)
    own = model.readout
    return Model(Readout(own.backbone, adapter, own.block, own.class_names), model.activations, model.codes)


def heading(images: Images, **names: Any) -> dict[str, Any]:
    """The identifying columns of a table of one task."""
    return {"task": images.task, **names, "half": images.half}
