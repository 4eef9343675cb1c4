"""Batches for pretraining: pictures, token ids, and the attribute labels of pictures and patches.

Batch ``step`` of a recipe is a pure function of (recipe, step): training can stop and resume anywhere.
"""

from dataclasses import dataclass
from typing import Protocol
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Float32, Int16, Int64, UInt8

from conceptbench.backbones.recipes import Phase, Recipe
from conceptbench.data.captions import captions
from conceptbench.data.edits import edit_one_factor
from conceptbench.data.scene_pixels import coverage, render
from conceptbench.data.scenes import Scenes, sample_scenes
from conceptbench.data.vocabulary import BACKGROUNDS, COLOURS, FILLS, SHAPES, SIZES
from conceptbench.data.web import web_pictures

PATCH_FACTORS = (SHAPES, COLOURS, FILLS, SIZES)
"""Factors that every covered patch is asked for by the auxiliary heads."""

IMAGE_FACTORS = (*PATCH_FACTORS, BACKGROUNDS)
N_PRESENCE = sum(len(values) for values in IMAGE_FACTORS)
_EDITS = {"shape": 0.55, "colour": 0.1, "fill": 0.2, "size": 0.1, "background": 0.05}
_COVERED = 0.35
_GRID = 8


class Tokenizer(Protocol):
    """Texts to token ids [text, context]."""

    def __call__(self, texts: list[str]) -> torch.Tensor:
        """Token ids, zero after the end of the text."""


@dataclass(frozen=True)
class Batch:
    """One training batch; ``patch_labels`` are -1 where a patch shows no object, ``presence`` is NaN where unknown."""

    images: UInt8[np.ndarray, "n 64 64 3"]
    tokens: Int64[torch.Tensor, "n context"]
    patch_labels: Int16[np.ndarray, "n 64 factor"]
    presence: Float32[np.ndarray, "n value"]


def locate(recipe: Recipe, step: int) -> tuple[Phase, int]:
    """The phase of a training step and its number."""
    seen = step * recipe.batch_size
    for number, phase in enumerate(recipe.phases):
        if seen < phase.images:
            return phase, number
        seen -= phase.images
    raise ValueError(f"step {step} lies beyond the {recipe.images} pictures of the recipe")


def n_steps(recipe: Recipe) -> int:
    """Training steps of a recipe."""
    return recipe.images // recipe.batch_size


def training_batch(recipe: Recipe, step: int, tokenize: Tokenizer) -> Batch:
    """The batch of one training step."""
    phase, number = locate(recipe, step)
    n_web = round(phase.web_share * recipe.batch_size)
    n_pairs = round(phase.pair_share * (recipe.batch_size - n_web) / 2)
    n_scenes = recipe.batch_size - n_web - n_pairs
    stream = f"pretrain-{number}"
    first = step * recipe.batch_size
    scenes = sample_scenes(recipe.seed, stream, np.arange(first, first + n_scenes), n_objects=phase.n_objects)
    twins, _, _ = edit_one_factor(scenes[:n_pairs], f"{stream}-edit", _EDITS, recipe.seed)
    scenes = _concatenate(scenes, twins)
    texts = _texts(scenes, n_scenes, n_pairs, recipe.full_caption_share)
    images = [render(scenes)]
    labels, presence = [patch_labels(scenes)], [presence_labels(scenes)]
    if n_web:
        pictures, web_texts = web_pictures(recipe.seed, stream, np.arange(first, first + n_web))
        images.append(pictures)
        texts += web_texts
        labels.append(np.full((n_web, _GRID**2, len(PATCH_FACTORS)), -1, dtype=np.int16))
        presence.append(np.full((n_web, N_PRESENCE), np.nan, dtype=np.float32))
    tokens = torch.from_numpy(np.stack([token_ids(tokenize, text) for text in texts]))
    return Batch(np.concatenate(images), tokens, np.concatenate(labels), np.concatenate(presence))


def _texts(scenes: Scenes, n_scenes: int, n_pairs: int, full_share: float) -> list[str]:
    """Captions: twins are described in full, like their originals, so that the one difference is told."""
    n_full = n_pairs + round(full_share * (n_scenes - n_pairs))
    return (
        captions(scenes[:n_full], full=True)
        + captions(scenes[n_full:n_scenes])
        + captions(scenes[n_scenes:], full=True)
    )


def _concatenate(first: Scenes, second: Scenes) -> Scenes:
    return Scenes(
        np.concatenate([first.keys, second.keys]),
        np.concatenate([first.backgrounds, second.backgrounds]),
        np.concatenate([first.objects, second.objects]),
        np.concatenate([first.jitter, second.jitter]),
    )


def patch_labels(scenes: Scenes) -> Int16[np.ndarray, "n 64 factor"]:
    """For each patch the shape, colour, fill and size of the object that covers most of it, -1 below 35 %."""
    covered = coverage(scenes, _GRID)
    owner = covered.argmax(axis=1)
    objects = scenes.objects[np.arange(len(scenes))[:, None], owner]
    factors: np.ndarray = objects[..., : len(PATCH_FACTORS)].astype(np.int16)
    factors[covered.max(axis=1) < _COVERED] = -1
    return factors


def presence_labels(scenes: Scenes) -> Float32[np.ndarray, "n value"]:
    """1 where a picture contains a factor value, else 0; the values of ``IMAGE_FACTORS`` in order."""
    parts = []
    for column, values in enumerate(PATCH_FACTORS):
        shown = scenes.objects[..., column]
        parts.append((shown[..., None] == np.arange(len(values))).any(axis=1))
    parts.append(scenes.backgrounds[:, None] == np.arange(len(BACKGROUNDS)))
    return np.concatenate(parts, axis=1).astype(np.float32)


class _WordTable:
    """Token ids of the words met so far: the grammar has few, and open_clip's cleaning costs 100 us a text."""

    def __init__(self, tokenize: Tokenizer) -> None:
        row = tokenize(["a"])[0].tolist()
        self.first, self.last, self.length = row[0], max(row), len(row)
        self.words: dict[str, list[int]] = {}


_TABLES: WeakKeyDictionary[Tokenizer, _WordTable] = WeakKeyDictionary()


def token_ids(tokenize: Tokenizer, text: str) -> Int64[np.ndarray, " context"]:
    """Token ids of a text of the grammar, word by word: those that the tokenizer gives."""
    table = _TABLES.get(tokenize)
    if table is None:
        table = _TABLES[tokenize] = _WordTable(tokenize)
    ids = [table.first]
    for word in text.split():
        if word not in table.words:
            table.words[word] = [i for i in tokenize([word])[0].tolist() if i != 0][1:-1]
        ids += table.words[word]
    row = np.zeros(table.length, dtype=np.int64)
    kept = [*ids[: table.length - 1], table.last]
    row[: len(kept)] = kept
    return row
