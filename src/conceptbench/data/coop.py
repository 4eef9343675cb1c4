"""CoOp's data protocol: its split files, its few-shot sampling and its rule for base and novel classes.

Sources: Zhou et al., "Learning to Prompt for Vision-Language Models" (2022) and "Conditional Prompt Learning" (2022),
and their released code, whose behaviour is reproduced item by item.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from conceptbench.data.splits import SPLITS
from conceptbench.errors import ConceptBenchError
from conceptbench.tables import read_json

VAL_SHOTS = 4
"""CoOp draws min(shots, 4) validation images of each class."""


def find_split_file(name: str, folders: Sequence[Path]) -> Path | None:
    """The first of the folders' files of this name, or None."""
    return next((folder / name for folder in folders if (folder / name).is_file()), None)


def read_split(path: Path) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The items of a split file {train | val | test: [[path, label, class name], ...]} in its order, and the classes.

    Returns:
        a frame with the columns path, label, class_name, split, and the class names in label order.

    Raises:
        ConceptBenchError: when the file is missing or no split file, repeats an image, or mixes up classes.
    """
    content = read_json(path)
    if not isinstance(content, dict) or any(not isinstance(content.get(split), list) for split in SPLITS):
        raise ConceptBenchError(f"Split file {path} lacks one of the lists train, val and test; restore it from CoOp.")
    rows = []
    for split in SPLITS:
        for item in content[split]:
            if not (isinstance(item, list) and [type(part) for part in item] == [str, int, str]):
                what = json.dumps(item)[:80]
                raise ConceptBenchError(f"Split file {path} has the item {what}, not [path, label, name]; restore it.")
            rows.append((*item, split))
    frame = pd.DataFrame(rows, columns=["path", "label", "class_name", "split"])
    if frame.empty:
        raise ConceptBenchError(f"Split file {path} names no image; restore it from CoOp.")
    repeated = frame["path"][frame["path"].duplicated()]
    if len(repeated):
        raise ConceptBenchError(f"Split file {path} names {repeated.iloc[0]} more than once; restore it from CoOp.")
    return frame, _classes(frame, path)


def _classes(frame: pd.DataFrame, path: Path) -> tuple[str, ...]:
    pairs = frame[["label", "class_name"]].drop_duplicates().sort_values("label")
    labels, names = pairs["label"].tolist(), pairs["class_name"].tolist()
    if labels != list(range(len(labels))):
        raise ConceptBenchError(
            f"Split file {path} does not give each label 0..{max(labels)} exactly one class name; restore it from CoOp."
        )
    if len(set(names)) != len(names):
        double = next(name for name in names if names.count(name) > 1)
        raise ConceptBenchError(f"Split file {path} gives the class '{double}' two labels; restore it from CoOp.")
    return tuple(names)


def few_shot(manifest: pd.DataFrame, shots: int, seed: int) -> dict[str, list[int]]:
    """CoOp's few-shot draw: rows of `shots` training and min(shots, 4) validation images of each class.

    Python's `random` is seeded once; classes come in the order of their first appearance among the train rows, and each
    gives `random.sample(items, shots)`; the same stream then draws from val (all images of a class that has fewer).
    The draw comes before any halving into base and novel classes, so it depends on the order of all rows.

    Raises:
        ConceptBenchError: when a class has fewer training images than shots, or there is no training image.
    """
    if shots < 1:
        raise ConceptBenchError(f"Cannot draw {shots} shots; give a positive number in adaptations.shots.")
    stream = random.Random(seed)
    drawn = {}
    for split, count in (("train", shots), ("val", min(shots, VAL_SHOTS))):
        part = manifest[(manifest["split"] == split) & (manifest["label"] >= 0)]
        rows: list[int] = []
        for label, items in part.groupby("label", sort=False)["image"]:
            if split == "train" and len(items) < count:
                name = part.loc[part["label"] == label, "class_name"].iloc[0]
                raise ConceptBenchError(
                    f"Class '{name}' has {len(items)} training images, fewer than {count} shots; "
                    "lower adaptations.shots or raise limit_per_class or images_per_class."
                )
            rows += stream.sample(items.tolist(), min(count, len(items)))
        drawn[split] = rows
    if not drawn["train"]:
        raise ConceptBenchError("The data set has no labelled training image to draw shots from; choose another task.")
    return drawn


def base_novel(classes: Sequence[str]) -> tuple[list[int], list[int]]:
    """Labels of the base classes (the first ceil(K/2) in label order) and of the novel classes (the rest)."""
    middle = (len(classes) + 1) // 2
    return list(range(middle)), list(range(middle, len(classes)))
