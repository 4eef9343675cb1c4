"""A data set before its images are checked: what each kind's own file produces and `prepare` completes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from conceptbench.data.places import leads_outside
from conceptbench.errors import ConceptBenchError


@dataclass(frozen=True)
class Draft:
    """Rows in their final order with at least path, stream, index, label, class_name, split, and whence they come."""

    rows: pd.DataFrame
    classes: tuple[str, ...]
    root: Path | None
    """Folder that the paths are relative to; None for rendered images."""
    split_rule: str
    source: str
    licence: str
    details: dict[str, Any] = field(default_factory=dict)
    """Further facts for the card, such as the world seed or the split file's checksum."""


STRATIFIED = "stratified 50/20/30 split of this project, not CoOp's"
"""Label of the split that is used where no split file was found."""


def file_rows(items: pd.DataFrame, root: Path, listing: Path | None = None) -> pd.DataFrame:
    """Rows of an image-file data set from the columns path, label, class_name and split.

    Raises:
        ConceptBenchError: when a path, as `listing` names it, leads out of `root`.
    """
    outside = next(filter(leads_outside, items["path"]), None)
    if outside is not None:
        raise ConceptBenchError(f"{listing or root} names {outside}, outside of {root}; correct it or restore it.")
    return items.assign(stream="", index=-1)
