"""Caltech-UCSD Birds-200-2011 from its own lists."""

from pathlib import Path

import pandas as pd

from conceptbench.data.catalogue import SOURCES
from conceptbench.data.draft import Draft, file_rows
from conceptbench.data.spec import DatasetSpec
from conceptbench.errors import ConceptBenchError
from conceptbench.seeds import rng

VAL_SHARE = 0.2
"""Share of a class's published training images that becomes the val split."""


def draft_birds(spec: DatasetSpec, data_root: Path, seed: int) -> Draft:
    """Published test split; a fifth of each class's published training images, drawn by the seed, is val.

    Class names are those of `classes.txt` without number and underscores: "001.Black_footed_Albatross" is called
    "Black footed Albatross".

    Raises:
        ConceptBenchError: when a list or an image is missing.
    """
    source = SOURCES[spec.kind]
    home = data_root / "CUB_200_2011"
    names = _table(home / "classes.txt", source.homepage)
    images = _table(home / "images.txt", source.homepage)
    labels = _table(home / "image_class_labels.txt", source.homepage).astype(int) - 1
    training = _table(home / "train_test_split.txt", source.homepage) == "1"
    if not (images.index.equals(labels.index) and images.index.equals(training.index)):
        raise ConceptBenchError(f"The lists in {home} number different images; unpack {source.title} again.")
    classes = tuple(name.partition(".")[2].replace("_", " ") for name in names)
    items = pd.DataFrame({"path": images, "label": labels, "class_name": [classes[label] for label in labels]})
    items = items.reset_index(drop=True)
    items["split"] = ["train" if trained else "test" for trained in training]
    for label, rows in items[items["split"] == "train"].groupby("label").groups.items():
        drawn = rng(seed, "birds val", spec.name, int(str(label))).permutation(rows.to_numpy())
        items.loc[drawn[: round(VAL_SHARE * len(drawn))], "split"] = "val"
    listed = file_rows(items, home / "images", home / "images.txt")
    missing = [path for path in items["path"] if not (home / "images" / path).is_file()]
    if missing:
        raise ConceptBenchError(
            f"{home / 'images'} lacks {len(missing)} images, such as {missing[0]}; unpack it again."
        )
    rule = "published test split; a fifth of the published training images of each class is val"
    return Draft(listed, classes, home / "images", rule, source.title, source.licence)


def _table(path: Path, origin: str) -> "pd.Series[str]":
    """A list of lines `<number> <value>`, as values by number."""
    if not path.is_file():
        raise ConceptBenchError(f"{path} is missing; get it from {origin}.")
    pairs = [line.split(maxsplit=1) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    return pd.Series({int(number): value.strip() for number, value in pairs})
