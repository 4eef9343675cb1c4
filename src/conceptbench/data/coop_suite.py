"""The other nine data sets of CoOp's suite, in its folders and with its split files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from conceptbench.data.catalogue import SOURCES
from conceptbench.data.coop import find_split_file, read_split
from conceptbench.data.draft import Draft, file_rows
from conceptbench.data.files import image_folder
from conceptbench.data.spec import DatasetSpec
from conceptbench.errors import ConceptBenchError
from conceptbench.seeds import rng
from conceptbench.tables import sha256_file


@dataclass(frozen=True)
class _Layout:
    """Where a data set with a split file lies below `data_root`."""

    images: str
    """Folder that the paths of the split file are relative to."""
    split_file: str


_LAYOUTS: Mapping[str, _Layout] = {
    "caltech101": _Layout("caltech-101/101_ObjectCategories", "split_zhou_Caltech101.json"),
    "oxford-pets": _Layout("oxford_pets/images", "split_zhou_OxfordPets.json"),
    "stanford-cars": _Layout("stanford_cars", "split_zhou_StanfordCars.json"),
    "food101": _Layout("food-101/images", "split_zhou_Food101.json"),
    "sun397": _Layout("sun397/SUN397", "split_zhou_SUN397.json"),
    "dtd": _Layout("dtd/images", "split_zhou_DescribableTextures.json"),
    "ucf101": _Layout("ucf101/UCF-101-midframes", "split_zhou_UCF101.json"),
}


def draft_with_split(spec: DatasetSpec, data_root: Path) -> Draft:
    """Images in CoOp's folder, split and named by CoOp's file.

    Raises:
        ConceptBenchError: when the folder or the split file is missing (with the place to get it), or an image of it.
    """
    layout, source = _LAYOUTS[spec.kind], SOURCES[spec.kind]
    root = data_root / layout.images
    if not root.is_dir():
        raise ConceptBenchError(f"No images of {source.title} in {root}; get them from {source.homepage}.")
    home = data_root / Path(layout.images).parts[0]
    split_file = find_split_file(layout.split_file, (home, data_root, data_root / "coop_splits"))
    if split_file is None:
        url = next(part.url for part in source.parts if part.name == layout.split_file)
        raise ConceptBenchError(f"CoOp's split file {home / layout.split_file} is missing; get it from {url}.")
    items, classes = read_split(split_file)
    rows = _rows(items, root, split_file)
    details = {"split_file": {"name": layout.split_file, "sha256": sha256_file(split_file)}}
    rule = f"CoOp split file {layout.split_file}"
    return Draft(rows, classes, root, rule, source.title, source.licence, details)


def draft_aircraft(spec: DatasetSpec, data_root: Path) -> Draft:
    """FGVC-Aircraft: the published split of its 100 variants, as CoOp reads it."""
    source = SOURCES[spec.kind]
    places = [data_root / folder for folder in ("fgvc_aircraft", "fgvc-aircraft-2013b/data")]
    root = next((place for place in places if (place / "images").is_dir()), None)
    if root is None:
        raise ConceptBenchError(f"No images of {source.title} in {places[0]}; get them from {source.homepage}.")
    classes = tuple(_lines(root / "variants.txt", source.homepage))
    labels = {name: label for label, name in enumerate(classes)}
    rows = []
    for split in ("train", "val", "test"):
        listing = root / f"images_variant_{split}.txt"
        for line in _lines(listing, source.homepage):
            number, _, name = line.partition(" ")
            if name not in labels:
                raise ConceptBenchError(f"{listing} has the variant '{name}', unknown in variants.txt; restore both.")
            rows.append((f"images/{number}.jpg", labels[name], name, split))
    items = pd.DataFrame(rows, columns=["path", "label", "class_name", "split"])
    split = "split of the data set's variants"
    listed = _rows(items, root, root / "images_variant_*.txt")
    return Draft(listed, classes, root, split, source.title, source.licence)


def draft_imagenet(spec: DatasetSpec, data_root: Path, seed: int) -> Draft:
    """ImageNet from `imagenet/images/{train,val}/<synset>/`, with CoOp's class names.

    The published validation images are halved within each class: one half to choose on (val), one to score on (test);
    CoOp uses all of them for both. Files are in sorted order, which CoOp leaves to the file system, so that few-shot
    draws need not be those of a published run.
    """
    source = SOURCES[spec.kind]
    root, names_file = data_root / "imagenet" / "images", data_root / "imagenet" / "classnames.txt"
    url = next(part.url for part in source.parts if part.name == "classnames.txt")
    names = dict(line.split(" ", 1) for line in _lines(names_file, str(url)) if " " in line)
    rows = []
    for split in ("train", "val"):
        folders = image_folder(root / split)
        unknown = sorted(set(folders) ^ set(names))
        if unknown:
            raise ConceptBenchError(f"{root / split} and {names_file} differ in {unknown[0]}; restore one of them.")
        for label, (folder, paths) in enumerate(folders.items()):
            rows += [(f"{split}/{path}", label, names[folder], split) for path in paths]
    items = pd.DataFrame(rows, columns=["path", "label", "class_name", "split"])
    items = halve_validation(items, seed, spec.name)
    rule = "train as published; the published validation images halved within each class into val and test"
    classes = tuple(names[folder] for folder in sorted(names))
    return Draft(file_rows(items, root), classes, root, rule, source.title, source.licence)


def halve_validation(items: pd.DataFrame, seed: int, name: str) -> pd.DataFrame:
    """Turn half of the val rows of each label (the larger half) into test rows, drawn by the seed."""
    items = items.copy()
    held = items.index[items["split"] == "val"].to_numpy()
    labels = items["label"].to_numpy()[held]
    for label in np.unique(labels):
        members = rng(seed, "halved validation", name, str(label)).permutation(held[labels == label])
        items.loc[members[len(members) // 2 :], "split"] = "test"
    return items


def _lines(path: Path, origin: str) -> list[str]:
    """The lines of a list that belongs to a data set, without empty ones."""
    if not path.is_file():
        raise ConceptBenchError(f"{path} is missing; get it from {origin}.")
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def _rows(items: pd.DataFrame, root: Path, listing: Path) -> pd.DataFrame:
    """The rows of a list of images; ConceptBenchError when one is outside of `root` or not there."""
    rows = file_rows(items, root, listing)
    missing = [path for path in rows["path"] if not (root / path).is_file()]
    if missing:
        raise ConceptBenchError(
            f"{listing} names {len(missing)} images that are not in {root}, such as {min(missing)}; unpack the whole "
            "data set there."
        )
    return rows
