"""A few-shot task: which classes are candidates, and which images stand for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import NDArray

from conceptbench.adaptation.specs import DEFAULT_TEMPLATE, Setting
from conceptbench.errors import ConceptBenchError

if TYPE_CHECKING:
    from conceptbench.data import Dataset

Rows = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Task:
    """The images and classes one adaptation learns from."""

    dataset: Dataset
    setting: Setting
    shots: int
    seed: int
    class_names: tuple[str, ...]
    """The classes that are trained, in label order."""
    train_rows: Rows
    train_targets: Rows
    """Positions in `class_names`, not labels of the data set."""
    val_rows: Rows
    val_targets: Rows
    template: str
    """The data set's prompt for a class."""


def candidate_labels(class_names: Sequence[str], setting: str) -> dict[str, list[int]]:
    """The parts of the classes that are scored, each with its own candidates; the first one is trained.

    Raises ConceptBenchError for an unknown setting.
    """
    if setting == "all-classes":
        return {"all": list(range(len(class_names)))}
    if setting != "base-to-novel":
        raise ConceptBenchError(f"unknown adaptation setting {setting!r}; valid are {', '.join(get_args(Setting))}.")
    from conceptbench.data import base_novel

    base, novel = base_novel(class_names)
    return {"base": list(base), "novel": list(novel)}


def few_shot_task(dataset: Dataset, shots: int, seed: int, setting: Setting) -> Task:
    """The few-shot images of the trained classes, drawn over all classes and then restricted, as CoOp does.

    Raises ConceptBenchError when a class has fewer training images than `shots`, unless the data set's card says
    `fewer_shots_allowed`; then such a class gives all its images.
    """
    from conceptbench.data import few_shot

    trained = next(iter(candidate_labels(dataset.classes, setting).values()))
    if shots < 1:
        raise ConceptBenchError(f"shots must be at least 1, not {shots}; correct the configuration.")
    if not dataset.card.get("fewer_shots_allowed", False):
        _require_shots(dataset, shots)
    drawn = few_shot(dataset.manifest, shots, seed)
    train_rows, train_targets = _restrict(dataset, drawn["train"], trained)
    val_rows, val_targets = _restrict(dataset, drawn["val"], trained)
    return Task(
        dataset=dataset,
        setting=setting,
        shots=shots,
        seed=seed,
        class_names=tuple(dataset.classes[label] for label in trained),
        train_rows=train_rows,
        train_targets=train_targets,
        val_rows=val_rows,
        val_targets=val_targets,
        template=str(dataset.card.get("template") or DEFAULT_TEMPLATE),
    )


def _require_shots(dataset: Dataset, shots: int) -> None:
    """Raise ConceptBenchError for the first class with fewer training images than `shots`."""
    labels = np.asarray(dataset.labels(dataset.rows("train")))
    counts = np.bincount(labels[labels >= 0], minlength=len(dataset.classes))
    for name, count in zip(dataset.classes, counts, strict=False):
        if count < shots:
            raise ConceptBenchError(
                f"data set {dataset.name!r}: class {name!r} has {count} training images, fewer than the {shots} shots "
                "asked for; lower adaptations.shots or give the class more images."
            )


def _restrict(dataset: Dataset, rows: Sequence[int], labels: list[int]) -> tuple[Rows, Rows]:
    """The rows with one of `labels`, in order, and their positions in `labels`."""
    position = {label: i for i, label in enumerate(labels)}
    chosen = np.asarray(rows, dtype=np.int64)
    found = [position.get(int(label), -1) for label in dataset.labels(chosen)]
    targets = np.asarray(found, dtype=np.int64)
    return chosen[targets >= 0], targets[targets >= 0]
