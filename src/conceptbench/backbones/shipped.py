"""The small backbones that ship with the project, used for as long as nothing that defines them has changed.

A shipped folder's card has the digest of its recipe, of the pictures and captions the recipe would see, and of the
training code (comments and layout do not count). When the digest of today's code and configuration is another one, the
backbone is trained again instead.
"""

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from conceptbench.backbones import pretrain, pretrain_batches, pretrain_losses, pretrain_views, recipes
from conceptbench.backbones.pretrain import Probe, train_backbone
from conceptbench.backbones.pretrain_batches import n_steps, training_batch
from conceptbench.backbones.recipes import RECIPES, Kind, Recipe
from conceptbench.backbones.tokenizer import MERGES_FILE, load_tokenizer
from conceptbench.tables import digest, read_json, sha256_file, write_json

SHIPPED = Path(__file__).parent / "shipped"
FILES = ("card.json", "open_clip_config.json", "open_clip_model.safetensors", MERGES_FILE)
_PROBED_STEPS = 2


def recipe_of(kind: Kind, seed: int = 0, images: int | None = None) -> Recipe:
    """A recipe with another seed or, all phases in proportion, another number of pictures."""
    recipe = replace(RECIPES[kind], seed=seed)
    if images is None or recipe.images in (0, images):
        return recipe
    share = images / recipe.images
    phases = tuple(replace(phase, images=round(phase.images * share)) for phase in recipe.phases)
    return replace(recipe, phases=phases)


def definition_digest(recipe: Recipe, merges: Path) -> str:
    """Digest of everything that defines a trained backbone; ``merges`` is the vocabulary that its recipe writes."""
    modules = (pretrain, pretrain_batches, pretrain_losses, pretrain_views)
    return recipes.spec_digest(
        recipe,
        {
            "code": recipes.code_digest(*modules),
            "data": _data_digest(recipe, merges),
            "vocabulary": sha256_file(merges),
        },
    )


def _data_digest(recipe: Recipe, merges: Path) -> str:
    """Digest of the first batches of every phase: pictures, token ids, labels."""
    tokenize = load_tokenizer(merges, recipe.context_length)
    seen, parts = 0, []
    for phase in recipe.phases:
        first = seen // recipe.batch_size + (seen % recipe.batch_size > 0)
        for step in range(first, min(first + _PROBED_STEPS, n_steps(recipe))):
            batch = training_batch(recipe, step, tokenize)
            arrays = (batch.images, batch.tokens.numpy(), batch.patch_labels, np.nan_to_num(batch.presence, nan=-1.0))
            parts.append([digest(array.tobytes().hex()) for array in arrays])
        seen += phase.images
    return digest(parts)


def provide_trained(
    name: str,
    kind: Kind,
    out: Path,
    *,
    work: Path,
    seed: int = 0,
    images: int | None = None,
    probe: Probe | None = None,
    shipped: Path = SHIPPED,
) -> dict[str, Any]:
    """Write the folder of a small backbone: a copy of the shipped one when it fits, else a newly trained one.

    Returns the card, whose ``definition`` is the digest that decided.
    """
    recipe = recipe_of(kind, seed, images)
    work.mkdir(parents=True, exist_ok=True)
    merges = work / MERGES_FILE
    pretrain.write_recipe_vocabulary(merges)
    definition = definition_digest(recipe, merges)
    source = shipped / name
    if (source / "card.json").exists() and read_json(source / "card.json").get("definition") == definition:
        shutil.rmtree(work)
        return _copy(source, out)
    if recipe.images:
        print(f"The shipped weights do not fit the recipe of {name}; training {recipe.images} pictures.", file=sys.stderr)
    train_backbone(recipe, out, work=work, probe=probe)
    return mark(out, name, definition)


def mark(folder: Path, name: str, definition: str) -> dict[str, Any]:
    """Put the name and the digest of its definition into the card of a trained backbone; returns the card."""
    card = {**read_json(folder / "card.json"), "name": name, "definition": definition}
    write_json(card, folder / "card.json")
    return card


def _copy(source: Path, out: Path) -> dict[str, Any]:
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for file in FILES:
        shutil.copyfile(source / file, partial / file)
    if out.exists():
        shutil.rmtree(out)
    partial.replace(out)
    return dict(read_json(out / "card.json"))
