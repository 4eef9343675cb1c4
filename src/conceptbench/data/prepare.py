"""Prepare a data set: find or draw its images, check each, write manifest.parquet and card.json."""

import hashlib
from pathlib import Path
from typing import Any, assert_never

import pandas as pd
from tqdm import tqdm

from conceptbench.data.ade20k import draft_ade20k
from conceptbench.data.birds import draft_birds
from conceptbench.data.caption_files import draft_captions, draft_coco
from conceptbench.data.coop_suite import draft_aircraft, draft_imagenet, draft_with_split
from conceptbench.data.dataset import COLUMNS, Dataset, manifest_digest
from conceptbench.data.draft import Draft
from conceptbench.data.eurosat import draft_eurosat
from conceptbench.data.files import inspect_images
from conceptbench.data.flowers import draft_flowers
from conceptbench.data.folders import draft_folder
from conceptbench.data.spec import RENDERED, DatasetSpec
from conceptbench.data.splits import limit_per_class
from conceptbench.errors import ConceptBenchError
from conceptbench.tables import atomic_write, write_json

_DRAWN_AT_ONCE = 512


def prepare_dataset(spec: DatasetSpec, out: Path, data_root: Path | None, seed: int, *, workers: int = 4) -> Dataset:
    """Write `out`/manifest.parquet and `out`/card.json after every image has been checked.

    The card is written last, so that a folder with a card is complete. `workers` threads check photographs.

    Raises:
        ConceptBenchError: for every kind of bad input, before anything is written.
    """
    out = Path(out)
    draft = _draft(spec, Path(data_root) if data_root is not None else None, seed)
    rows = limit_per_class(draft.rows.reset_index(drop=True), spec.limit_per_class, seed, spec.name)
    rows, image_size = _inspect(spec, rows, draft, seed, workers)
    rows.insert(0, "image", range(len(rows)))
    manifest = rows[[*COLUMNS, *(name for name in rows.columns if name not in COLUMNS)]]
    card = _card(spec, draft, manifest, image_size, seed, data_root)
    (out / "card.json").unlink(missing_ok=True)
    with atomic_write(out / "manifest.parquet") as path:
        manifest.to_parquet(path, index=False)
    write_json(card, out / "card.json")
    return Dataset(spec.name, spec.kind, draft.classes, manifest, card, draft.root)


def _draft(spec: DatasetSpec, data_root: Path | None, seed: int) -> Draft:
    """The rows of a data set of any kind."""
    if spec.kind in RENDERED:
        from conceptbench.data.rendered import draft_scenes, draft_task  # starts the renderers' compiler

        return draft_scenes(spec, seed) if spec.kind == "scenes" else draft_task(spec, seed)
    if data_root is not None and not data_root.is_dir():
        raise ConceptBenchError(f"The folder data_root = {data_root} does not exist; set data_root to your images.")
    if spec.kind == "folder":
        return draft_folder(spec, data_root, seed)
    if spec.kind == "captions":
        return draft_captions(spec, data_root, seed)
    if data_root is None:
        raise ConceptBenchError(f"Data set {spec.name} needs image files; set data_root to the folder that holds them.")
    return _draft_published(spec, data_root, seed)


def _draft_published(spec: DatasetSpec, data_root: Path, seed: int) -> Draft:
    """The rows of a published data set below `data_root`."""
    match spec.kind:
        case "eurosat":
            return draft_eurosat(spec, data_root, seed)
        case "flowers":
            return draft_flowers(spec, data_root, seed)
        case "imagenet":
            return draft_imagenet(spec, data_root, seed)
        case "caltech101" | "oxford-pets" | "stanford-cars" | "food101" | "sun397" | "dtd" | "ucf101":
            return draft_with_split(spec, data_root)
        case "fgvc-aircraft":
            return draft_aircraft(spec, data_root)
        case "coco":
            return draft_coco(spec, data_root, seed)
        case "ade20k":
            return draft_ade20k(spec, data_root, seed)
        case "cub-200":
            return draft_birds(spec, data_root, seed)
        case "scenes" | "flora" | "terra" | "folder" | "captions":
            raise AssertionError("these kinds were handled above")
        case _:
            assert_never(spec.kind)


def _inspect(
    spec: DatasetSpec, rows: pd.DataFrame, draft: Draft, seed: int, workers: int
) -> tuple[pd.DataFrame, list[int] | None]:
    """Add the checksum of each image; the common size (height, width), or None where sizes differ."""
    if draft.root is not None:
        checksums, sizes = inspect_images(draft.root, rows["path"].tolist(), spec.name, workers)
    else:
        checksums, sizes = _render_checksums(spec, rows, seed)
    rows = rows.assign(sha256=checksums)
    if "captions" not in rows:
        rows["captions"] = [[] for _ in range(len(rows))]
    return rows, list(sizes.pop()) if len(sizes) == 1 else None


def _render_checksums(spec: DatasetSpec, rows: pd.DataFrame, seed: int) -> tuple[list[str], set[tuple[int, int]]]:
    from conceptbench.data.rendered import draw  # starts the renderers' compiler

    checksums: list[str] = []
    sizes = set()
    with tqdm(total=len(rows), desc=f"drawing {spec.name}", unit=" images", mininterval=0.5) as bar:
        for first in range(0, len(rows), _DRAWN_AT_ONCE):
            images = draw(spec.kind, rows.iloc[first : first + _DRAWN_AT_ONCE], seed)
            checksums += [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
            sizes.add((images.shape[1], images.shape[2]))
            bar.update(len(images))
    return checksums, sizes


def _card(
    spec: DatasetSpec,
    draft: Draft,
    manifest: pd.DataFrame,
    image_size: list[int] | None,
    seed: int,
    data_root: Path | None,
) -> dict[str, Any]:
    counts = manifest["split"].value_counts(sort=False)
    return {
        "name": spec.name,
        "kind": spec.kind,
        "classes": list(draft.classes),
        "images": len(manifest),
        "splits": {str(split): int(count) for split, count in counts.items()},
        "split_rule": draft.split_rule,
        "image_size": image_size,
        "image_root": _relative(draft.root, data_root),
        "source": draft.source,
        "licence": draft.licence,
        "spec": spec.record(),
        "seed": seed,
        "digest": manifest_digest(manifest),
        **draft.details,
    }


def _relative(root: Path | None, data_root: Path | None) -> str | None:
    """The image folder as seen from data_root, so that a card is the same on every machine."""
    if root is None:
        return None
    if data_root is not None and root.is_relative_to(data_root):
        return root.relative_to(data_root).as_posix()
    return root.as_posix()
