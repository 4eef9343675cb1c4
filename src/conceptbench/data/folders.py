"""Any folder of images with one sub-folder a class."""

from pathlib import Path

import pandas as pd

from conceptbench.data.draft import STRATIFIED, Draft, file_rows
from conceptbench.data.files import image_folder
from conceptbench.data.spec import DatasetSpec
from conceptbench.data.splits import stratified_split


def draft_folder(spec: DatasetSpec, data_root: Path | None, seed: int) -> Draft:
    """Classes are the sorted sub-folder names; the split is the project's own."""
    root = (data_root or Path()) / str(spec.path)
    folders = image_folder(root)
    classes = tuple(folders)
    items = pd.DataFrame(
        [(path, label, name) for label, (name, paths) in enumerate(folders.items()) for path in paths],
        columns=["path", "label", "class_name"],
    )
    items["split"] = stratified_split(items["label"].to_numpy(), seed, spec.name)
    source = f"image folder {spec.path}"
    return Draft(file_rows(items, root), classes, root, STRATIFIED, source, "that of the images' owner")
