"""Oxford Flowers-102 from a folder, with CoOp's split file where it is found."""

from pathlib import Path

import numpy as np
import pandas as pd
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from conceptbench.data.coop import find_split_file, read_split
from conceptbench.data.draft import STRATIFIED, Draft, file_rows
from conceptbench.data.spec import DatasetSpec
from conceptbench.data.splits import stratified_split
from conceptbench.errors import ConceptBenchError
from conceptbench.tables import read_json, sha256_file

SPLIT_FILE = "split_zhou_OxfordFlowers.json"
_FOLDERS = ("oxford_flowers/jpg", "oxford_flowers_64px/jpg", "jpg")
_SOURCE = "Oxford Flowers-102 (Nilsback and Zisserman 2008)"
_LICENCE = "research use"


def draft_flowers(spec: DatasetSpec, data_root: Path, seed: int) -> Draft:
    """CoOp's split if its file is in data_root, beside jpg/ or in data_root/coop_splits; else the project's own."""
    root = next((data_root / folder for folder in _FOLDERS if (data_root / folder).is_dir()), None)
    if root is None:
        raise ConceptBenchError(
            f"No Flowers-102 images in {data_root}: none of {', '.join(_FOLDERS)} exists; unpack the archive there."
        )
    present = {path.name for path in root.glob("image_*.jpg")}
    if not present:
        raise ConceptBenchError(f"Folder {root} holds no image_*.jpg; unpack the Flowers-102 archive there.")
    source = f"{_SOURCE}, squashed to 64x64 by a third party" if "64px" in root.parent.name else _SOURCE
    places = (data_root, root.parent, data_root / "coop_splits")
    split_file = find_split_file(SPLIT_FILE, places)
    if split_file is None:
        items, classes = _labelled(root, present, places)
        items["split"] = stratified_split(items["label"].to_numpy(), seed, spec.name)
        return Draft(file_rows(items, root), classes, root, STRATIFIED, source, _LICENCE)
    items, classes = read_split(split_file)
    missing = set(items["path"]) - present
    if missing:
        raise ConceptBenchError(
            f"Split file {split_file} names {len(missing)} images that are not in {root}, such as {min(missing)}; "
            "unpack the whole data set there."
        )
    _check_labels(items, root, split_file)
    details = {"split_file": {"name": SPLIT_FILE, "sha256": sha256_file(split_file)}}
    rows = file_rows(items, root, split_file)
    return Draft(rows, classes, root, f"CoOp split file {SPLIT_FILE}", source, _LICENCE, details)


def _matlab_labels(path: Path) -> np.ndarray:
    """Labels from 0 of image 1, 2, ... (the file counts from 1)."""
    try:
        labels: np.ndarray = loadmat(path)["labels"].reshape(-1).astype(np.int64) - 1
    except (OSError, ValueError, KeyError, NotImplementedError, MatReadError) as error:
        raise ConceptBenchError(
            f"File {path} is not the label file of Flowers-102; restore imagelabels.mat."
        ) from error
    return labels


def _number(name: str) -> int:
    """The number in image_00001.jpg."""
    digits = name.removeprefix("image_").removesuffix(".jpg")
    if not digits.isdigit():
        raise ConceptBenchError(f"Image name {name} is not of the form image_00001.jpg; remove the file.")
    return int(digits)


def _labelled(root: Path, present: set[str], places: tuple[Path, ...]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """All images with the labels of imagelabels.mat and the names of cat_to_name.json."""
    label_file, names_file = find_split_file("imagelabels.mat", places), find_split_file("cat_to_name.json", places)
    if label_file is None or names_file is None:
        lacking = "imagelabels.mat" if label_file is None else "cat_to_name.json"
        raise ConceptBenchError(
            f"Neither {SPLIT_FILE} nor {lacking} is beside {root}; put the split file or both label files there."
        )
    labels, names = _matlab_labels(label_file), read_json(names_file)
    classes = tuple(str(names[str(number)]) for number in range(1, len(names) + 1) if str(number) in names)
    if labels.min() < 0 or labels.max() >= len(classes):
        raise ConceptBenchError(f"File {names_file} lacks names for labels of {label_file}; restore both files.")
    files = sorted(present)
    numbers = [_number(name) for name in files]
    beyond = [name for name, number in zip(files, numbers, strict=True) if not 1 <= number <= len(labels)]
    if beyond:
        raise ConceptBenchError(
            f"Image {root / beyond[0]} has no label in {label_file}; remove it or restore the file."
        )
    label = [int(labels[number - 1]) for number in numbers]
    frame = pd.DataFrame({"path": files, "label": label, "class_name": [classes[value] for value in label]})
    return frame, classes


def _check_labels(items: pd.DataFrame, root: Path, split_file: Path) -> None:
    """The split file's labels agree with imagelabels.mat, where that is present."""
    label_file = root.parent / "imagelabels.mat"
    if not label_file.is_file():
        return
    labels = _matlab_labels(label_file)
    for path, label in zip(items["path"], items["label"], strict=True):
        number = _number(path)
        if not 1 <= number <= len(labels) or labels[number - 1] != label:
            raise ConceptBenchError(
                f"Split file {split_file} and {label_file} disagree on the class of {path}; restore both files."
            )
