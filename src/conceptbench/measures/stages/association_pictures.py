"""What the association figure shows of one adaptation: latents chosen for a class, their values and exemplars."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from conceptbench.data import Dataset
from conceptbench.dictionaries import Dictionary
from conceptbench.inference import Estimate
from conceptbench.measures.association import Effects, exact_effects
from conceptbench.measures.association_shown import (
    FELL,
    ROSE,
    Halves,
    Pair,
    centred,
    most_remapped,
    shown_estimate,
    stronger_before,
)
from conceptbench.measures.readout import Activations
from conceptbench.measures.stages.models import SPLIT_B, Images, Model
from conceptbench.seeds import rng

PICTURED, RANKS = 4, 4
"""Latents that rose and that fell of which there are exemplars, and how many images each."""
SIDES: Final = ("zero-shot", "adapted")


@dataclass(frozen=True, eq=False)
class Shown:
    """Zero-shot and adapted model of one seed, with their first-order effects."""

    models: tuple[Model, Model]
    effects: tuple[Effects, Effects]
    dictionary: Dictionary
    halves: Halves
    images: Images
    head: Mapping[str, Any]


def picture(
    shown: Shown, seed: str, dataset: Dataset, spec: Mapping[str, Any]
) -> tuple[pd.DataFrame, dict[str, NDArray[Any]]]:
    """Values and exemplars of the latents that rose or fell most for the class that is remapped most.

    Returns:
        Table: task, method, half, label, class_name, latent, change (rose, fell), model (zero-shot, adapted), effect
        (first order, exact), estimate, low, high, n (images of the half that is shown on which the latent fires), seed,
        note. Pictures: images uint8 [latent, rank, h, w, 3]; maps float32 [latent, rank, row, column], NaN where there
        is no image; latent, label int [latent]; change, model, method, task text [latent].
    """
    stream = rng(spec["seed"], "association", shown.images.task, shown.head["method"], "shown", seed)
    label = most_remapped(*shown.effects, shown.halves, spec["concepts"]["halvings"], stream)
    latents = _chosen(shown, label)
    named = {"label": shown.images.candidates[label], "class_name": shown.images.class_names[label]}
    head = dict(shown.head) | named
    rows = [
        head | {"latent": latent, "change": latents[latent], "model": side, "effect": effect} | estimate.row(seed)
        for latent, side, effect, estimate in _values(shown, label, list(latents), spec["resamples"], stream)
    ]
    return pd.DataFrame(rows), _pictures(shown, label, latents, dataset) | {
        name: np.full(len(latents), value)
        for name, value in (("label", named["label"]), ("method", head["method"]), ("task", head["task"]))
    }


def _chosen(shown: Shown, label: int) -> dict[int, str]:
    """Latents that rose and that fell most on the half of the choice, at most `PICTURED` of each."""
    pair = Pair.of(*shown.effects, shown.halves.chosen_on)
    found = [(int(pair.latents[column]), change) for column, change in pair.chosen(label).items()]
    return {
        latent: kind
        for kind in (ROSE, FELL)
        for latent in [latent for latent, change in found if change == kind][:PICTURED]
    }


def _values(
    shown: Shown, label: int, latents: list[int], resamples: int, stream: np.random.Generator
) -> Iterator[tuple[int, str, str, Estimate]]:
    """First-order and exact effect of every latent on the class under both models, on the half that is shown."""
    at = shown.halves.shown_on
    for side, model, effects in zip(SIDES, shown.models, shown.effects, strict=True):
        whole = model.activations[SPLIT_B]
        part = Activations(whole.rows[at], whole.targets[at], whole.tokens[at], whole.prompts[at])
        codes = model.codes[SPLIT_B].select_images(at)
        exact = exact_effects(model.readout, part, shown.dictionary, codes, latents, len(at), stream)
        mine = effects.of_images(at)
        for latent in latents:
            rows, change = exact[latent]
            approximate = np.zeros_like(change)
            if len(rows):
                approximate = mine.effect[rows][:, :, np.searchsorted(mine.latents, latent)]
            for name, values in (("first order", approximate), ("exact", change)):
                yield latent, side, name, shown_estimate(centred(values, label), resamples, stream)


def _pictures(shown: Shown, label: int, latents: Mapping[int, str], dataset: Dataset) -> dict[str, NDArray[Any]]:
    """Exemplars of split B, under the model in which the latent speaks more strongly for or against the class."""
    earlier = stronger_before(*shown.effects, shown.halves, label, list(latents))
    grid = shown.models[0].readout.backbone.grid
    found = [
        _exemplars(shown.models[0 if before else 1], latent, grid, dataset)
        for latent, before in zip(latents, earlier, strict=True)
    ]
    return {
        "images": np.array([images for images, _ in found], dtype=np.uint8),
        "maps": np.array([maps for _, maps in found], dtype=np.float32),
        "latent": np.array(list(latents), dtype=np.int64),
        "change": np.array(list(latents.values()), dtype=str),
        "model": np.array([SIDES[0 if before else 1] for before in earlier], dtype=str),
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
