"""Images with captions: COCO, and any folder of images with a caption file.

Three forms of a caption file are read: a table (`.csv`, `.tsv` or `.txt` with commas) with a row for each caption and
the columns `image` and `caption`, and `split` where there is one; COCO's JSON of `images` and `annotations`; and JSON
that gives each image's file name its caption or list of captions.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from conceptbench.data.catalogue import SOURCES
from conceptbench.data.coop_suite import halve_validation
from conceptbench.data.draft import STRATIFIED, Draft, file_rows
from conceptbench.data.spec import DatasetSpec
from conceptbench.data.splits import SPLITS, stratified_split
from conceptbench.errors import ConceptBenchError
from conceptbench.tables import read_json, sha256_file

_COLUMNS = ["path", "captions", "split"]


def draft_captions(spec: DatasetSpec, data_root: Path | None, seed: int) -> Draft:
    """The images that a caption file names, split by it or else 50/20/30 by the seed."""
    base = data_root or Path()
    root, file = base / str(spec.path), base / str(spec.captions)
    if not root.is_dir():
        raise ConceptBenchError(f"Folder {root} does not exist; unpack the images there or set data_root.")
    items = read_captions(file)
    unsplit = (items["split"] == "").all()
    if unsplit:
        items["split"] = stratified_split(np.zeros(len(items), dtype=np.int64), seed, spec.name)
    wrong = sorted(set(items["split"]) - set(SPLITS))
    if wrong:
        raise ConceptBenchError(f"Caption file {file} has the split '{wrong[0]}'; use {', '.join(SPLITS)}.")
    rows = _rows(items, root, file)
    details = {"caption_file": {"name": file.name, "sha256": sha256_file(file)}}
    rule = STRATIFIED if unsplit else f"column split of {file.name}"
    return Draft(rows, (), root, rule, f"image folder {spec.path}", "that of the images' owner", details)


def draft_coco(spec: DatasetSpec, data_root: Path, seed: int) -> Draft:
    """COCO 2017: its training images are train, its validation images are halved into val and test."""
    source = SOURCES[spec.kind]
    home = data_root / "coco"
    parts = []
    for split in ("train", "val"):
        file = home / "annotations" / f"captions_{split}2017.json"
        if not file.is_file():
            raise ConceptBenchError(f"{file} is missing; get it from {source.homepage}.")
        items = read_captions(file).assign(split=split)
        items["path"] = f"{split}2017/" + items["path"]
        parts.append(items)
    items = pd.concat(parts, ignore_index=True)
    items = halve_validation(items.assign(label=-1), seed, spec.name)
    rows = _rows(items, home, home / "annotations")
    rule = "published training images; the published validation images halved into val and test"
    return Draft(rows, (), home, rule, source.title, source.licence)


def read_captions(path: Path) -> pd.DataFrame:
    """One row for each image in the order of the file: path, captions (list of str) and split ("" where not given).

    Raises:
        ConceptBenchError: when the file is missing, is none of the three forms, or has an image without a caption.
    """
    if not path.is_file():
        raise ConceptBenchError(f"Caption file {path} does not exist; put it there or correct its name.")
    triples = list(_json_captions(path) if path.suffix.lower() == ".json" else _table_captions(path))
    captions: dict[str, list[str]] = {}
    splits: dict[str, str] = {}
    for image, caption, split in triples:
        if splits.setdefault(image, split) != split:
            raise ConceptBenchError(f"Caption file {path} puts {image} into two splits; correct it.")
        captions.setdefault(image, []).append(caption)
    for image, texts in captions.items():
        if not all(text.strip() for text in texts):
            raise ConceptBenchError(f"Caption file {path} has an empty caption of {image}; correct it.")
    if not captions:
        raise ConceptBenchError(f"Caption file {path} has no caption; give the right file.")
    rows = [(image, texts, splits[image]) for image, texts in captions.items()]
    return pd.DataFrame(rows, columns=_COLUMNS)


def _table_captions(path: Path) -> Iterable[tuple[str, str, str]]:
    """Image, caption and split of each row of a table."""
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        frame = pd.read_csv(path, sep=separator, dtype=str, keep_default_na=False)
    except (ValueError, UnicodeDecodeError) as error:
        raise ConceptBenchError(f"Caption file {path} is no table ({error}); correct it.") from error
    lacking = {"image", "caption"} - set(frame.columns)
    if lacking:
        raise ConceptBenchError(
            f"Caption file {path} lacks the column {min(lacking)}; its first row names the columns."
        )
    split = frame["split"] if "split" in frame else [""] * len(frame)
    return zip(frame["image"], frame["caption"], split, strict=True)


def _json_captions(path: Path) -> Iterable[tuple[str, str, str]]:
    """Image, caption and split ("") of a JSON file of either form."""
    content = read_json(path)
    try:
        if isinstance(content, Mapping) and {"images", "annotations"} <= set(content):
            return _coco_captions(content)
        pairs = [(image, [texts] if isinstance(texts, str) else texts) for image, texts in content.items()]
        return [(str(image), _text(text), "") for image, texts in pairs for text in texts]
    except (AttributeError, KeyError, TypeError) as error:
        raise ConceptBenchError(
            f"Caption file {path} is neither COCO's JSON nor a mapping of image to captions; correct it."
        ) from error


def _coco_captions(content: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """COCO's form; images come in the order of the file, those without a caption are left out."""
    names = {image["id"]: str(image["file_name"]) for image in content["images"]}
    texts: dict[Any, list[str]] = {number: [] for number in names}
    for annotation in content["annotations"]:
        texts[annotation["image_id"]].append(_text(annotation["caption"]))
    return [(names[number], text, "") for number, found in texts.items() for text in found]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a caption is text")
    return value.strip()


def _rows(items: pd.DataFrame, root: Path, file: Path) -> pd.DataFrame:
    """The rows; ConceptBenchError unless every named image lies below `root`."""
    rows = file_rows(items[_COLUMNS].assign(label=-1, class_name=""), root, file)
    missing = [path for path in items["path"] if not (root / path).is_file()]
    if missing:
        raise ConceptBenchError(
            f"Caption file {file} names {len(missing)} images that are not in {root}, such as {min(missing)}; "
            "unpack them."
        )
    return rows
