"""A class without images in a split, which would be learnt from nothing or scored as if it did not exist."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from conceptbench.errors import ConceptBenchError

if TYPE_CHECKING:
    from conceptbench.data.dataset import Dataset


def require_images(dataset: "Dataset", split: str, labels: Sequence[int]) -> None:
    """Raise ConceptBenchError unless every class of `labels` has an image in the split."""
    present = set(dataset.labels(dataset.rows(split)).tolist())
    for label in labels:
        if label not in present:
            raise ConceptBenchError(
                f"Class {dataset.classes[label]!r} of data set {dataset.name!r} has no images in its {split} split; "
                "give it some or leave the class out."
            )
