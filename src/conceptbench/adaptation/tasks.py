"""A few-shot task: which classes are candidates, and which images stand for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from conceptbench.adaptation.specs import Setting
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

    def train_image(self, position: int) -> Image.Image:
        """One training image in RGB; files are read anew each time, rendered images are drawn once."""
        if self._drawn is not None:
            return Image.fromarray(self._drawn[position])
        return self.dataset.pil(int(self.train_rows[position]))

    def require_validation(self, purpose: str) -> None:
        """Raise ConceptBenchError unless every trained class has validation images; `purpose` says what for."""
        from conceptbench.data.classes import require_images

        if not len(self.val_rows):
            raise ConceptBenchError(
                f"data set {self.dataset.name!r} has no validation images to {purpose} on; give it a val split."
            )
        require_images(self.dataset, "val", [self.dataset.classes.index(name) for name in self.class_names])

    @cached_property
    def _drawn(self) -> NDArray[np.uint8] | None:
        """The training images of a rendered data set, which has no files."""
        rendered = (self.dataset.manifest["path"].iloc[self.train_rows] == "").all()
        return self.dataset.images(self.train_rows) if rendered else None


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

    Raises ConceptBenchError when a class has fewer training images than `shots`, a trained one none at all, or the
    setting is unknown.
    """
    from conceptbench.data import few_shot
    from conceptbench.data.classes import require_images

    trained = next(iter(candidate_labels(dataset.classes, setting).values()))
    try:
        drawn = few_shot(dataset.manifest, shots, seed)
    except ConceptBenchError as error:
        raise ConceptBenchError(f"Data set {dataset.name!r}: {error}") from error
    require_images(dataset, "train", trained)
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
    )


def _restrict(dataset: Dataset, rows: Sequence[int], labels: list[int]) -> tuple[Rows, Rows]:
    """The rows with one of `labels`, in order, and their positions in `labels`."""
    position = {label: i for i, label in enumerate(labels)}
    chosen = np.asarray(rows, dtype=np.int64)
    found = [position.get(int(label), -1) for label in dataset.labels(chosen)]
    targets = np.asarray(found, dtype=np.int64)
    return chosen[targets >= 0], targets[targets >= 0]
