"""The rendered kinds: rows of scenes, flora and terra, and their pixels drawn again from the rows."""

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd

from conceptbench.data.captions import captions
from conceptbench.data.draft import Draft
from conceptbench.data.edits import EDITABLE, edit_one_factor
from conceptbench.data.flora import FLORA_CLASSES, render_flora_batch
from conceptbench.data.scene_pixels import render
from conceptbench.data.scenes import MAX_OBJECTS, Compositions, Scenes, held_out_objects, kind_members, sample_scenes
from conceptbench.data.spec import DatasetSpec
from conceptbench.data.splits import SPLITS, stratified_counts
from conceptbench.data.terra import TERRA_CLASSES, render_terra_batch
from conceptbench.data.vocabulary import BACKGROUNDS, KINDS, OBJECT_FACTORS
from conceptbench.errors import ConceptBenchError

HELD_OUT_SPLIT: Final = "held-out"
PAIRS_SPLIT: Final = "pairs"
_SOURCE = "rendered by this project"
_LICENCE = "MIT"
_FACTORS: dict[str, Mapping[str, Mapping[str, str | int]]] = {"flora": FLORA_CLASSES, "terra": TERRA_CLASSES}
_RENDERERS = {"flora": render_flora_batch, "terra": render_terra_batch}


def _stream(split: str) -> str:
    return f"scenes/{split}"


def _compositions(split: str) -> Compositions:
    return "held-out" if split == HELD_OUT_SPLIT else "common"


def draft_scenes(spec: DatasetSpec, seed: int) -> Draft:
    """Scenes number 0, 1, ... of each split's stream, and counterfactual pairs in consecutive rows."""
    unknown = sorted(set(spec.sizes) - {*SPLITS, HELD_OUT_SPLIT})
    if unknown:
        raise ConceptBenchError(
            f"Data set {spec.name} has the split '{unknown[0]}' in sizes; use train, val, test, {HELD_OUT_SPLIT}."
        )
    parts = [
        scene_rows(sample(seed, split, np.arange(size)), split, np.arange(size))
        for split, size in spec.sizes.items()
        if size
    ]
    if spec.pairs:
        parts.append(_pair_rows(spec.pairs, seed))
    if not parts:
        raise ConceptBenchError(f"Data set {spec.name} has no images; give sizes for train, val and test.")
    rows = pd.concat(parts, ignore_index=True)
    rule = "independent streams of scenes"
    return Draft(rows, (), None, rule, _SOURCE, _LICENCE, {"world_seed": seed})


def sample(seed: int, split: str, indices: np.ndarray) -> Scenes:
    """Scenes of one split by their numbers."""
    return sample_scenes(seed, _stream(split), indices, compositions=_compositions(split))


def scene_rows(scenes: Scenes, split: str, indices: np.ndarray) -> pd.DataFrame:
    """Manifest columns of scenes: factors as words, "" where there is no object, and captions."""
    n = len(scenes)
    columns: dict[str, object] = {"path": "", "stream": _stream(split), "index": indices, "label": -1, "class_name": ""}
    columns |= {"split": split, "background": np.array(BACKGROUNDS, dtype=object)[scenes.backgrounds]}
    columns["n_objects"] = (scenes.objects[:, :, 0] >= 0).sum(axis=1)
    columns["held_out"] = held_out_objects(scenes).any(axis=1)
    kinds, kind_words = kind_members(scenes), np.array([*KINDS, ""], dtype=object)
    for o in range(MAX_OBJECTS):
        for f, (factor, values) in enumerate(OBJECT_FACTORS.items()):
            words = np.array([*values, ""], dtype=object)
            columns[f"object{o}_{factor}"] = words[scenes.objects[:, o, f]]
        columns[f"object{o}_kind"] = kind_words[kinds[:, o]]
    columns["captions"] = [list(texts) for texts in zip(captions(scenes, 0), captions(scenes, 1), strict=True)]
    columns["full_caption"] = captions(scenes, full=True)
    columns |= {"pair": -1, "changed_object": -1, "changed_factor": ""}
    return pd.DataFrame(columns, index=range(n))


def _pair_rows(count: int, seed: int) -> pd.DataFrame:
    """`count` pairs: the scene and the same scene with one factor changed, in rows 2p and 2p + 1."""
    indices = np.arange(2 * count + 64)
    scenes = sample(seed, PAIRS_SPLIT, indices)
    edited, changed, factors = edit_one_factor(scenes, _stream(PAIRS_SPLIT), dict.fromkeys(EDITABLE, 1.0), seed)
    usable = np.flatnonzero(changed >= 0)[:count]
    if len(usable) < count:
        raise ConceptBenchError(f"Only {len(usable)} of {count} counterfactual pairs could be drawn; ask for fewer.")
    words = np.array(EDITABLE, dtype=object)[factors[usable]]
    sides = []
    for side, part in enumerate((scenes[usable], edited[usable])):
        rows = scene_rows(part, PAIRS_SPLIT, indices[usable])
        rows = rows.assign(pair=np.arange(count), changed_object=changed[usable], changed_factor=words)
        sides.append(rows.set_axis(2 * np.arange(count) + side))
    return pd.concat(sides).sort_index()


def scenes_of(rows: pd.DataFrame, seed: int) -> Scenes:
    """The scenes of manifest rows: textures and jitter drawn again from (seed, stream, index), factors as told."""
    n = len(rows)
    keys, jitter = np.empty(n, dtype=np.uint64), np.empty((n, MAX_OBJECTS, 3))
    for split in rows["split"].unique():
        here = np.flatnonzero(rows["split"] == split)
        drawn = sample(seed, split, rows["index"].to_numpy()[here])
        keys[here], jitter[here] = drawn.keys, drawn.jitter
    objects = np.empty((n, MAX_OBJECTS, len(OBJECT_FACTORS)), dtype=np.int8)
    for o in range(MAX_OBJECTS):
        for f, (factor, values) in enumerate(OBJECT_FACTORS.items()):
            objects[:, o, f] = pd.Index(values).get_indexer(pd.Index(rows[f"object{o}_{factor}"]))
    backgrounds = pd.Index(BACKGROUNDS).get_indexer(pd.Index(rows["background"])).astype(np.int8)
    return Scenes(keys, backgrounds, objects, jitter)


def draft_task(spec: DatasetSpec, seed: int) -> Draft:
    """Flora or terra: images 0, 1, ... of every class, the first half train, then val, then test (50/20/30 %)."""
    factors = _FACTORS[spec.kind]
    classes = tuple(factors)
    parts = []
    first = 0
    for split, count in zip(SPLITS, stratified_counts(spec.images_per_class), strict=True):
        label = np.repeat(np.arange(len(classes)), count)
        index = np.tile(np.arange(first, first + count), len(classes))
        parts.append(pd.DataFrame({"label": label, "index": index, "split": split}))
        first += count
    rows = pd.concat(parts, ignore_index=True)
    rows = rows.assign(path="", stream=spec.kind, class_name=[classes[label] for label in rows["label"]])
    for factor in next(iter(factors.values())):
        rows[factor] = [str(factors[name][factor]) for name in rows["class_name"]]
    rule = "image numbers of each class in order, 50/20/30 %"
    return Draft(rows, classes, None, rule, _SOURCE, _LICENCE, {"world_seed": seed})


def draw(kind: str, rows: pd.DataFrame, seed: int) -> np.ndarray:
    """Pixels uint8 [n, 64, 64, 3] of manifest rows of a rendered kind."""
    if kind == "scenes":
        return render(scenes_of(rows, seed))
    return _RENDERERS[kind](rows["label"].to_numpy(), rows["index"].to_numpy(), seed)


def class_factors(kind: str) -> Sequence[str]:
    """The factor columns of a rendered task."""
    return tuple(next(iter(_FACTORS[kind].values())))
