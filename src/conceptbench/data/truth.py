"""What is known about rendered images: factors of each image, and the share of each patch that shows a factor value."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float32

from conceptbench.data.dataset import Dataset
from conceptbench.data.vocabulary import BACKGROUNDS, KINDS, OBJECT_FACTORS
from conceptbench.errors import ConceptBenchError

_OBJECT_COLUMNS = (*OBJECT_FACTORS, "kind")
_N_OBJECTS = 3


def object_table(dataset: Dataset) -> pd.DataFrame:
    """One row an object of a scene: image, object (0..2), shape, colour, fill, size, place, kind ("" where none)."""
    _need_scenes(dataset)
    parts = []
    for o in range(_N_OBJECTS):
        columns = {name: dataset.manifest[f"object{o}_{name}"] for name in _OBJECT_COLUMNS}
        part = pd.DataFrame({"image": dataset.manifest["image"], "object": o, **columns})
        parts.append(part[part["shape"] != ""])
    return pd.concat(parts).sort_values(["image", "object"], ignore_index=True)


def factor_table(dataset: Dataset) -> pd.DataFrame:
    """The factor values that occur in each image, once each: image, factor, value.

    Scenes have the factors of their objects, the named kind and the background; tasks the factors of their classes;
    every data set with classes has the factor `class`.
    """
    if dataset.kind == "scenes":
        objects = object_table(dataset)
        parts = [_long(objects["image"], name, objects[name]) for name in _OBJECT_COLUMNS]
        parts.append(_long(dataset.manifest["image"], "background", dataset.manifest["background"]))
    else:
        parts = [_long(dataset.manifest["image"], "class", dataset.manifest["class_name"])]
        if dataset.kind in {"flora", "terra"}:
            from conceptbench.data.rendered import class_factors  # starts the renderers' compiler

            names = class_factors(dataset.kind)
            parts += [_long(dataset.manifest["image"], name, dataset.manifest[name]) for name in names]
    table = pd.concat(parts, ignore_index=True)
    return table[table["value"] != ""].drop_duplicates(ignore_index=True)


def _long(image: pd.Series, factor: str, value: pd.Series) -> pd.DataFrame:
    return pd.DataFrame({"image": image, "factor": factor, "value": value.astype(str)})


def patch_masks(
    dataset: Dataset, rows: Sequence[int] | np.ndarray, grid: int | tuple[int, int]
) -> dict[str, Float32[np.ndarray, "image patch"]]:
    """For each "factor=value" of a scene data set the visible share (0..1) of every patch, patches in rows.

    A patch's share for an object factor is that of all objects with the value; for a background, what no object covers.
    """
    from conceptbench.data.rendered import scenes_of  # starts the renderers' compiler
    from conceptbench.data.scene_pixels import coverage

    _need_scenes(dataset)
    side = grid if isinstance(grid, int) else grid[0]
    if not isinstance(grid, int) and grid[0] != grid[1]:
        raise ConceptBenchError(f"Patch masks need a square grid, not {grid[0]} x {grid[1]}; use a square backbone.")
    part = dataset.manifest.iloc[np.asarray(rows, dtype=np.int64)]
    shares = coverage(scenes_of(part, int(dataset.card["world_seed"])), side)
    masks = {}
    for factor, values in {**OBJECT_FACTORS, "kind": tuple(KINDS)}.items():
        words = np.stack([part[f"object{o}_{factor}"].to_numpy() for o in range(_N_OBJECTS)], axis=1)
        for value in values:
            chosen = (words == value).astype(np.float32)
            masks[f"{factor}={value}"] = np.einsum("io,iop->ip", chosen, shares).clip(0.0, 1.0)
    uncovered = (1.0 - shares.sum(axis=1)).clip(0.0, 1.0)
    for value in BACKGROUNDS:
        masks[f"background={value}"] = uncovered * (part["background"].to_numpy() == value).astype(np.float32)[:, None]
    return masks


def _need_scenes(dataset: Dataset) -> None:
    if dataset.kind != "scenes":
        raise ConceptBenchError(f"Data set {dataset.name} is of kind {dataset.kind}; only scenes know their objects.")
