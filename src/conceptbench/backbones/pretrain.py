"""Train the small backbones that ship with the project, and save them as open_clip local directories.

``train_backbone`` is deterministic under a recipe on one machine and resumes from its last checkpoint: a batch is a
pure function of its step. The result is an ordinary CLIP; the auxiliary heads are dropped.
"""

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from open_clip.model import CLIP
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

from conceptbench.backbones.folder import read_card, save_backbone_folder
from conceptbench.backbones.pretrain_batches import Batch, Tokenizer, n_steps, training_batch
from conceptbench.backbones.pretrain_losses import (
    AttributeHeads,
    contrastive_loss,
    image_tokens,
    text_features,
    view_loss,
)
from conceptbench.backbones.pretrain_views import random_view
from conceptbench.backbones.recipes import Recipe, model_config
from conceptbench.backbones.tokenizer import MERGES_FILE, load_tokenizer, write_vocabulary
from conceptbench.data.captions import vocabulary_sentences
from conceptbench.data.web import web_vocabulary
from conceptbench.errors import ConceptBenchError
from conceptbench.tables import atomic_write

_MEAN, _STD = 0.5, 0.25
PREPROCESS = {"mean": [_MEAN] * 3, "std": [_STD] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
_MERGES = 4000
_CHECKPOINT = "checkpoint.safetensors"
_CHECKPOINT_EVERY = 250
_LOG_EVERY = 50

Probe = Callable[[CLIP, Tokenizer], dict[str, float]]


class Trainee(nn.Module):
    """A CLIP with the heads that only training needs."""

    def __init__(self, recipe: Recipe, vocabulary: int) -> None:
        super().__init__()
        config = model_config(recipe, vocabulary)
        self.clip = CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"])
        self.attributes = AttributeHeads(recipe.width)
        self.projector = nn.Sequential(nn.Linear(recipe.width, 256), nn.GELU(), nn.Linear(256, 128))


def train_backbone(
    recipe: Recipe,
    out: Path,
    *,
    work: Path,
    probe: Probe | None = None,
    steps: int | None = None,
    facts: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Train a recipe and write the backbone's folder ``out``; returns its card.

    ``work`` keeps checkpoints until the folder is complete. ``probe`` is called at every checkpoint and its figures are
    kept in the card's log. ``steps`` stops early (a test trains a few steps). ``facts`` are added to the card.

    Raises:
        ConceptBenchError: when the loss is not finite; nothing is written to ``out`` then.
    """
    work.mkdir(parents=True, exist_ok=True)
    merges = work / MERGES_FILE
    vocabulary = write_recipe_vocabulary(merges)
    tokenize = load_tokenizer(merges, recipe.context_length)
    trainee, log, seconds = _fit(recipe, tokenize, vocabulary, work, probe, steps, progress)
    card = {"recipe": asdict(recipe), "text": recipe.kind == "clip", "log": log, "seconds": round(seconds, 1)}
    card |= facts or {}
    config = model_config(recipe, vocabulary)
    save_backbone_folder(out, trainee.clip, config, PREPROCESS, card, merges=merges, dtype=torch.float16)
    shutil.rmtree(work)
    return read_card(out)


def write_recipe_vocabulary(path: Path) -> int:
    """Write the vocabulary of all recipes: every word of the captions and of the usual prompts is one token."""
    return write_vocabulary([*vocabulary_sentences(), *web_vocabulary()], _MERGES, path)


def first_losses(recipe: Recipe, steps: int = 3) -> list[float]:
    """Losses of the first training steps from the recipe's own initial weights: the fingerprint of a training run."""
    with TemporaryDirectory() as folder:
        merges = Path(folder) / MERGES_FILE
        trainee, optimiser = _begin(recipe, write_recipe_vocabulary(merges))
        tokenize = load_tokenizer(merges, recipe.context_length)
        return [_train_step(recipe, trainee, optimiser, tokenize, step) for step in range(min(steps, n_steps(recipe)))]


def _begin(recipe: Recipe, vocabulary: int) -> tuple[Trainee, torch.optim.AdamW]:
    """Initial weights, the same whatever torch's generator did before, and the optimiser."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        trainee = Trainee(recipe, vocabulary)
    return trainee, _optimiser(recipe, trainee)


def _fit(
    recipe: Recipe,
    tokenize: Tokenizer,
    vocabulary: int,
    work: Path,
    probe: Probe | None,
    steps: int | None,
    progress: bool,
) -> tuple[Trainee, list[dict[str, float]], float]:
    trainee, optimiser = _begin(recipe, vocabulary)
    start, log, earlier = _resume(work, recipe, trainee, optimiser)
    stop = n_steps(recipe) if steps is None else min(steps, n_steps(recipe))
    began = time.perf_counter()
    bar = tqdm(range(start, stop), initial=start, total=stop, desc=f"train {recipe.kind}", disable=not progress)
    recent: list[float] = []
    for step in bar:
        recent.append(_train_step(recipe, trainee, optimiser, tokenize, step))
        if (step + 1) % _LOG_EVERY == 0:
            bar.set_postfix(loss=f"{np.mean(recent):.3f}")
        if (step + 1) % _CHECKPOINT_EVERY == 0 or step + 1 == stop:
            seconds = earlier + time.perf_counter() - began
            figures = probe(trainee.clip, tokenize) if probe else {}
            log.append({"step": step + 1, "loss": round(float(np.mean(recent)), 4), **figures})
            recent = []
            _checkpoint(work, recipe, trainee, optimiser, step + 1, log, seconds)
    return trainee, log, earlier + time.perf_counter() - began


def _train_step(
    recipe: Recipe, trainee: Trainee, optimiser: torch.optim.Optimizer, tokenize: Tokenizer, step: int
) -> float:
    """One update of the weights; returns the loss before it."""
    _set_learning_rate(optimiser, recipe, step)
    batch = training_batch(recipe, step, tokenize)
    pixels = normalise(batch.images)
    with torch.autocast("cpu", dtype=torch.bfloat16), _fast_attention():
        loss = (
            _image_loss(trainee, pixels, step) if recipe.kind == "image" else _clip_loss(recipe, trainee, pixels, batch)
        )
    if not math.isfinite(loss.item()):
        raise ConceptBenchError(
            f"The loss of backbone recipe {recipe.kind!r} became {loss.item()} at step {step}; lower learning_rate."
        )
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(trainee.parameters(), 1.0)
    optimiser.step()
    with torch.no_grad():
        trainee.clip.logit_scale.clamp_(0.0, math.log(100.0))
    return loss.item()


def _clip_loss(recipe: Recipe, trainee: Trainee, pixels: Tensor, batch: Batch) -> Tensor:
    tokens = image_tokens(trainee.clip, pixels)
    images = tokens[:, 0] @ trainee.clip.visual.proj
    loss = contrastive_loss(images, text_features(trainee.clip, batch.tokens), trainee.clip.logit_scale)
    labels, presence = torch.from_numpy(batch.patch_labels), torch.from_numpy(batch.presence)
    attributes: Tensor = trainee.attributes(tokens, labels, presence)
    return loss + recipe.attribute_weight * attributes


def _image_loss(trainee: Trainee, pixels: Tensor, step: int) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    views = torch.cat([random_view(pixels, generator), random_view(pixels, generator)])
    first, second = trainee.projector(image_tokens(trainee.clip, views)[:, 0]).chunk(2)
    return view_loss(first, second)


def normalise(images: UInt8[np.ndarray, "n h w 3"]) -> Float[Tensor, "n 3 h w"]:
    """Pictures as the backbones of this project see them; the same values as their preprocessing gives."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().float() / 255
    return (pixels - _MEAN) / _STD


def _fast_attention() -> AbstractContextManager[None]:
    """Plain attention: torch's fused kernel spends more than half of a step in its backward at 65 tokens on a CPU."""
    return sdpa_kernel(SDPBackend.MATH)


def _optimiser(recipe: Recipe, trainee: Trainee) -> torch.optim.AdamW:
    decayed = [p for p in trainee.parameters() if p.ndim >= 2]
    free = [p for p in trainee.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": free, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98), fused=True)


def _set_learning_rate(optimiser: torch.optim.Optimizer, recipe: Recipe, step: int) -> None:
    """Linear warm-up, then half a cosine that reaches 1 % at the end of the schedule."""
    warm = min(1.0, (step + 1) / recipe.warmup_steps)
    scheduled = (recipe.schedule_images or recipe.images) // recipe.batch_size
    cosine = 0.505 + 0.495 * math.cos(math.pi * step / scheduled)
    for group in optimiser.param_groups:
        group["lr"] = recipe.learning_rate * warm * cosine


def _checkpoint(
    work: Path,
    recipe: Recipe,
    trainee: Trainee,
    optimiser: torch.optim.Optimizer,
    step: int,
    log: list[Any],
    seconds: float,
) -> None:
    tensors = {f"model.{k}": v.contiguous() for k, v in trainee.state_dict().items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{k}": v.contiguous() for k, v in state.items()}
    notes = {"recipe": json.dumps(asdict(recipe)), "step": str(step), "log": json.dumps(log), "seconds": str(seconds)}
    with atomic_write(work / _CHECKPOINT) as partial:
        save_file({k: v.clone() for k, v in tensors.items()}, partial, metadata=notes)


def _resume(
    work: Path, recipe: Recipe, trainee: Trainee, optimiser: torch.optim.Optimizer
) -> tuple[int, list[dict[str, float]], float]:
    """Load the checkpoint of ``work`` if there is one of this very recipe; (first step to do, log, seconds spent)."""
    path = work / _CHECKPOINT
    if not path.exists():
        return 0, [], 0.0
    with safe_open(path, "pt") as file:
        notes = file.metadata()
    if json.loads(notes["recipe"]) != json.loads(json.dumps(asdict(recipe))):
        raise ConceptBenchError(f"{path} belongs to another recipe; remove the folder {work} to start again.")
    tensors = load_file(path)
    trainee.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
    states: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        if name.startswith("optimiser."):
            _, number, key = name.split(".", 2)
            states.setdefault(int(number), {})[key] = value
    optimiser.load_state_dict({**optimiser.state_dict(), "state": states})
    return int(notes["step"]), json.loads(notes["log"]), float(notes["seconds"])
