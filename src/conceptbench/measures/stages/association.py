"""Rule measure_association: which latents speak for which class before and after adaptation, and how far that moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from conceptbench.adaptation import Adapter
from conceptbench.backbones import Backbone
from conceptbench.data import Dataset
from conceptbench.dictionaries import Dictionary
from conceptbench.inference import Estimate
from conceptbench.measures.association import Effects, correlation, exact_effects, first_order, remapping
from conceptbench.measures.resampling import ALL_SEEDS, costly_resamples, joint_interval
from conceptbench.measures.stages.models import (
    SPLIT_B,
    ZERO_SHOT,
    Images,
    Model,
    heading,
    run_model,
    trained_half,
)
from conceptbench.seeds import rng

TABLES = ("association", "remapping", "association_agreement")
EXACT_IMAGES = 48
"""Images on which a latent is removed for the exact effect, at most."""
SHOWN = 8
"""Latents of each class that gained and that lost most, in the table."""
PICTURED, RANKS = 4, 4
"""Of these, how many have exemplars in the figure, and how many images each."""


def measure_association(
    task: str,
    backbone: Backbone,
    dataset: Dataset,
    adapters: Mapping[str, Mapping[int, Adapter]],
    dictionaries: Mapping[int, Dictionary],
    spec: Mapping[str, Any],
) -> tuple[dict[str, pd.DataFrame], dict[str, NDArray[Any]]]:
    """Tables ``association``, ``remapping`` and ``association_agreement`` of one task (docs/method.md), and pictures.

    Pictures are the exemplars of the latents that gained or lost most for the class that was remapped most, of the
    first seed and each adaptation (`_pictures`).
    """
    options = spec["concepts"]
    images = trained_half(task, dataset, spec["setting"], options["images"], spec["seed"])
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in TABLES}
    pictures: list[dict[str, NDArray[Any]]] = []
    for seed, dictionary in tqdm(dictionaries.items(), desc=f"association on {task}", unit="seed"):
        effects, models = {}, {}
        for name, of_seed in adapters.items():
            model = run_model(backbone, of_seed[seed], dataset, images, spec["block"], dictionary)
            scored, codes = model.activations[SPLIT_B], model.codes[SPLIT_B]
            effects[name], models[name] = first_order(model.readout, scored, dictionary, codes), model
            stream = rng(spec["seed"], "association", task, name, seed)
            agreement = _agreement(model, effects[name], dictionary, options["exact"], stream)
            parts["association_agreement"].append(pd.DataFrame([heading(images, model=name) | agreement(str(seed))]))
        for method in (name for name in adapters if name != ZERO_SHOT):
            stream = rng(spec["seed"], "remapping", task, method, seed)
            head = heading(images, method=method)
            parts["remapping"].append(_remapping(effects, method, images, head, str(seed), options, spec, stream))
            parts["association"].append(_associations(effects, method, images, head, str(seed)))
            if seed == next(iter(dictionaries)):
                label = _most_remapped(parts["remapping"][-1])
                pictures.append(_pictures(parts["association"][-1], label, models, method, dataset))
    resamples = costly_resamples(spec["resamples"])
    parts["remapping"].append(pooled_remapping(parts["remapping"], resamples))
    joined = {key: np.concatenate([found[key] for found in pictures]) for key in pictures[0]} if pictures else {}
    return {name: pd.concat(frames, ignore_index=True) for name, frames in parts.items()}, joined


def _most_remapped(remapped: pd.DataFrame) -> int:
    classes = remapped[remapped["label"] >= 0]
    at = int(np.argmax(classes["estimate"].fillna(-np.inf).to_numpy()))
    return int(classes["label"].to_numpy()[at])


def _pictures(
    associations: pd.DataFrame, label: int, models: Mapping[str, Model], method: str, dataset: Dataset
) -> dict[str, NDArray[Any]]:
    """Exemplars of split B: under the adapted model for latents that gained, under zero-shot for those that lost.

    Returns:
        images uint8 [latent, rank, h, w, 3]; maps float32 [latent, rank, row, column], NaN where there is no image;
        latent, label int [latent]; change, method, task text [latent].
    """
    mine = associations[associations["label"] == label]
    grid = next(iter(models.values())).readout.backbone.grid
    images, maps, rows = [], [], []
    for change, model in (("gained", models[method]), ("lost", models[ZERO_SHOT])):
        for latent in mine[mine["change"] == change]["latent"].to_numpy()[:PICTURED]:
            shown, heat = _exemplars(model, int(latent), grid, dataset)
            images.append(shown)
            maps.append(heat)
            rows.append((int(latent), change))
    n = len(rows)
    return {
        "images": np.stack(images),
        "maps": np.stack(maps),
        "latent": np.array([latent for latent, _ in rows]),
        "change": np.array([change for _, change in rows]),
        "label": np.full(n, label),
        "method": np.full(n, method),
        "task": np.full(n, mine["task"].iloc[0]),
    }


def _exemplars(
    model: Model, latent: int, grid: tuple[int, int], dataset: Dataset
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The images on which a latent is strongest (mean over tokens), and its activation on their patches."""
    codes, scored = model.codes[SPLIT_B], model.activations[SPLIT_B]
    column = codes.csr()[:, [latent]].toarray().reshape(codes.shape[:2])
    strength = column.mean(axis=1)
    top = np.argsort(-strength, kind="stable")[:RANKS]
    maps = column[top, -grid[0] * grid[1] :].reshape(len(top), *grid).astype(np.float32)
    maps[strength[top] == 0] = np.nan
    return dataset.thumbnails(scored.rows[top]), maps


def _agreement(model: Model, effects: Effects, dictionary: Dictionary, top: int, stream: np.random.Generator) -> Any:
    """The correlation of first-order and exact effects over (image, class) for the top latents of each class."""
    whole = effects.association(np.full((1, len(effects.fires)), 1 / len(effects.fires)))[0]
    order = np.argsort(-np.abs(np.nan_to_num(whole)), axis=1, kind="stable")[:, :top]
    columns = np.unique(order)
    exact = exact_effects(
        model.readout,
        model.activations[SPLIT_B],
        dictionary,
        model.codes[SPLIT_B],
        effects.latents[columns].tolist(),
        EXACT_IMAGES,
        stream,
    )
    removed, approximate = [], []
    for column, (rows, change) in zip(columns, exact.values(), strict=True):
        removed.append(change.mean(axis=0))
        approximate.append(effects.effect[rows, :, column].mean(axis=0))
    one, other = np.stack(removed), np.stack(approximate)
    centred = [values - values.mean(axis=1, keepdims=True) for values in (one, other)]
    n = len(columns)

    def row(seed: str) -> dict[str, Any]:
        """Columns of the table."""
        estimate = Estimate(float(correlation(one.ravel(), other.ravel())), np.nan, np.nan, n, "a description")
        between = float(correlation(centred[0].ravel(), centred[1].ravel()))
        return estimate.row(seed) | {"between_classes": between}

    return row


def _remapping(
    effects: Mapping[str, Effects],
    method: str,
    images: Images,
    head: Mapping[str, Any],
    seed: str,
    options: Mapping[str, Any],
    spec: Mapping[str, Any],
    stream: np.random.Generator,
) -> pd.DataFrame:
    """Remapping of every class and their mean (label -1), of one seed."""
    resamples = costly_resamples(spec["resamples"])
    classes, mean = remapping(effects[ZERO_SHOT], effects[method], options["halvings"], resamples, stream)
    rows = [
        dict(head) | {"label": label, "class_name": name} | estimate.row(seed)
        for label, name, estimate in zip(images.candidates, images.class_names, classes, strict=True)
    ]
    return pd.DataFrame([*rows, dict(head) | {"label": -1, "class_name": "all"} | mean.row(seed)])


def pooled_remapping(parts: Sequence[pd.DataFrame], resamples: int) -> pd.DataFrame:
    """Means over seeds: the mean variance within seeds, and for several seeds that between them over their number.

    The variance within a seed is not divided by the number of seeds, because all are scored on the same images.

    Args:
        parts: rows of each seed, +- 1.96 standard deviations from so many `resamples`.
    """
    frame = pd.concat(parts, ignore_index=True)
    keys = ["task", "method", "half", "label", "class_name"]
    rows = []
    for names, group in frame.groupby(keys, sort=False):
        within = float(((group["high"] - group["low"]) / 2 / 1.96).pow(2).mean())
        variances = [(within, max(resamples - 1, 1))]
        if len(group) > 1:
            variances.append((float(group["estimate"].var(ddof=1)) / len(group), len(group) - 1))
        point, n = float(group["estimate"].mean()), int(group["n"].iloc[0])
        estimate = joint_interval(point, variances, n)
        rows.append(dict(zip(keys, names, strict=True)) | estimate.row(ALL_SEEDS))
    return pd.DataFrame(rows)


def _associations(
    effects: Mapping[str, Effects], method: str, images: Images, head: Mapping[str, Any], seed: str
) -> pd.DataFrame:
    """W of every class before and after, for the latents that gained or lost most or speak most for it."""
    both = np.union1d(effects[ZERO_SHOT].latents, effects[method].latents)
    tables = []
    for one in (effects[ZERO_SHOT], effects[method]):
        wide = np.zeros((len(images.candidates), len(both)))
        uniform = np.full((1, len(one.fires)), 1 / len(one.fires))
        wide[:, np.searchsorted(both, one.latents)] = np.nan_to_num(one.association(uniform)[0])
        tables.append(wide - wide.mean(axis=0))
    before, after = tables
    rows = []
    for at, (label, name) in enumerate(zip(images.candidates, images.class_names, strict=True)):
        change = after[at] - before[at]
        chosen = {column: "gained" for column in np.argsort(-change, kind="stable")[:SHOWN]}
        chosen |= {column: "lost" for column in np.argsort(change, kind="stable")[:SHOWN]}
        for column in np.argsort(-np.maximum(before[at], after[at]), kind="stable")[:SHOWN]:
            chosen.setdefault(column, "kept")
        for column, kind in chosen.items():
            values = {"latent": int(both[column]), "zero_shot": before[at, column], "adapted": after[at, column]}
            rows.append(dict(head) | {"label": label, "class_name": name} | values | {"change": kind, "seed": seed})
    return pd.DataFrame(rows)
