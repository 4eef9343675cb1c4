"""The small backbones that ship with the project, used for as long as nothing that defines them has changed.

A shipped folder's card has the digest of its recipe, of the pictures and captions the recipe would see, and of the
training code (comments, annotations and layout do not count). When the digest of today's code and configuration is
another one, the backbone is trained again instead. `python -m conceptbench.backbones train NAME` renews a shipped
folder.
"""

import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from conceptbench.backbones import pretrain, pretrain_batches, pretrain_losses, pretrain_views, recipes
from conceptbench.backbones.folder import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE
from conceptbench.backbones.pretrain import Probe, first_losses, train_backbone
from conceptbench.backbones.pretrain_batches import n_steps, training_batch
from conceptbench.backbones.pretrain_probe import zero_shot_probe
from conceptbench.backbones.recipes import RECIPES, Kind, Recipe, model_config
from conceptbench.backbones.tokenizer import MERGES_FILE, load_tokenizer, vocabulary_size
from conceptbench.errors import ConceptBenchError
from conceptbench.provenance import describe_machine, library_versions
from conceptbench.tables import digest, read_json, sha256_file

SHIPPED = Path(__file__).parent / "shipped"
NAMES: dict[str, Kind] = {"clip-tiny": "clip", "image-tiny": "image", "random-tiny": "random"}
"""The shipped backbones and the kinds of their recipes."""

FILES = (CARD_FILE, CONFIG_FILE, MERGES_FILE, WEIGHTS_FILE)
_PROBED_STEPS = 2


def recipe_of(kind: Kind, seed: int = 0, images: int | None = None) -> Recipe:
    """A recipe with another seed or, all phases and the schedule in proportion, another number of pictures."""
    recipe = replace(RECIPES[kind], seed=seed)
    if images is None or recipe.images in (0, images):
        return recipe
    share = images / recipe.images
    phases = tuple(replace(phase, images=round(phase.images * share)) for phase in recipe.phases)
    return replace(recipe, phases=phases, schedule_images=round(recipe.schedule_images * share))


def definition_digest(recipe: Recipe, merges: Path) -> str:
    """Digest of everything that defines a trained backbone; ``merges`` is the vocabulary that its recipe writes."""
    modules = (pretrain, pretrain_batches, pretrain_losses, pretrain_views)
    return recipes.spec_digest(
        recipe,
        {
            "code": recipes.code_digest(*modules),
            "data": _data_digest(recipe, merges),
            "model": digest(model_config(recipe, vocabulary_size(merges))),
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
    definition = _definition(recipe, work)
    source = shipped / name
    if (source / CARD_FILE).exists() and read_json(source / CARD_FILE).get("definition") == definition:
        shutil.rmtree(work)
        return replace_folder(source, out)
    if recipe.images:
        reason = f"The shipped weights do not fit the recipe of {name}"
        print(f"{reason}; training {recipe.images} pictures.", file=sys.stderr)
    return train_backbone(recipe, out, work=work, probe=probe, facts={"name": name, "definition": definition})


def _definition(recipe: Recipe, work: Path) -> str:
    """The digest of a recipe's definition, by way of the vocabulary that training will find in ``work``."""
    work.mkdir(parents=True, exist_ok=True)
    pretrain.write_recipe_vocabulary(work / MERGES_FILE)
    return definition_digest(recipe, work / MERGES_FILE)


def renew_shipped(name: str, out: Path, *, work: Path) -> dict[str, Any]:
    """Train a shipped backbone from scratch and put it in place of the folder ``out``; returns its card.

    A killed run goes on from its last checkpoint in ``work``. The log of a backbone with text has zero-shot figures.

    Raises:
        ConceptBenchError: when the name is none of ``NAMES``, or the training fails.
    """
    if name not in NAMES:
        raise ConceptBenchError(f"There is no shipped backbone {name!r}; train one of {', '.join(NAMES)}.")
    recipe, made = recipe_of(NAMES[name]), work / "made"
    probe = zero_shot_probe() if recipe.kind == "clip" else None
    train_backbone(recipe, made, work=work / "training", probe=probe, facts=identity(name, recipe, work / "training"))
    card = replace_folder(made, out)
    shutil.rmtree(work)
    return card


def identity(name: str, recipe: Recipe, work: Path) -> dict[str, Any]:
    """What the card of a shipped backbone says of its run: name, definition, first losses, machine, versions."""
    return {
        "name": name,
        "definition": _definition(recipe, work),
        "first_losses": first_losses(recipe),
        "machine": describe_machine(),
        "versions": library_versions(),
    }


def replace_folder(source: Path, out: Path) -> dict[str, Any]:
    """Put a copy of a backbone's folder in the place of ``out``, whole; returns the card."""
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        for file in FILES:
            shutil.copyfile(source / file, partial / file)
        shutil.rmtree(out, ignore_errors=True)
        partial.rename(out)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        reason = error.strerror or error
        raise ConceptBenchError(f"{source} cannot be copied to {out} ({reason}); restore its files.") from error
    return dict(read_json(out / CARD_FILE))
