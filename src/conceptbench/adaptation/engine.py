"""The few-shot training loop that all methods share which train on images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from conceptbench.adaptation.attention import whole_products
from conceptbench.adaptation.prompts.hooks import text_blocks
from conceptbench.adaptation.schedule import cosine_rate, learning_rate
from conceptbench.adaptation.specs import Recipe
from conceptbench.adaptation.tasks import Task
from conceptbench.errors import ConceptBenchError
from conceptbench.seeds import torch_seed

if TYPE_CHECKING:
    from conceptbench.backbones import Backbone

StepLoss = Callable[[Float[Tensor, "image channel height width"], Int[Tensor, " image"]], Tensor]
"""From augmented pixels and targets to the loss, recomputing all that depends on the parameters."""

EpochEnd = Callable[[int], None]
"""Called with the number (1-based) of each epoch that has ended."""

CROP = 0.08
"""Smallest share of an image's area that the random crop of the CoOp family keeps."""


@dataclass(frozen=True)
class Plan:
    """How long to train, on how many images a step, and with which steps."""

    steps: int
    batch_size: int
    optimizer: torch.optim.Optimizer
    rate: Callable[[int, int], float]
    """Learning rate of (epoch from 1, step from 0)."""
    crop: float = CROP
    """Smallest share of the area that the random crop keeps."""


def sgd_plan(parameters: Sequence[Tensor], recipe: Recipe, n_images: int) -> Plan:
    """SGD by the recipe of the CoOp family, whose learning rate changes once per epoch."""
    optimizer = torch.optim.SGD(
        list(parameters), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )

    def rate(epoch: int, _step: int) -> float:
        """The same for all steps of an epoch."""
        return learning_rate(epoch, recipe.epochs, recipe.lr, recipe.warmup_lr)

    steps = recipe.epochs * steps_per_epoch(n_images, recipe.batch_size)
    return Plan(steps, recipe.batch_size, optimizer, rate)


def cosine_plan(
    optimizer: torch.optim.Optimizer, steps: int, batch_size: int, min_lr: float = 0.0, crop: float = CROP
) -> Plan:
    """The optimiser's learning rate, falling to `min_lr` on a cosine over all steps."""
    lr = float(optimizer.param_groups[0]["lr"])

    def rate(_epoch: int, step: int) -> float:
        """Another one for each step."""
        return cosine_rate(step, steps, lr, min_lr)

    return Plan(steps, batch_size, optimizer, rate, crop)


def train(
    plan: Plan,
    step_loss: StepLoss,
    backbone: Backbone,
    task: Task,
    *,
    name: str,
    progress: bool = True,
    epoch_end: EpochEnd = lambda _epoch: None,
) -> dict[str, Any]:
    """Train the parameters of the plan's optimiser in place; returns the record of the training.

    The parameters of the last step are the result. Learning rates in the record are those at the start of each epoch.
    This function writes no file; saving is left to the caller.

    Raises ConceptBenchError when a loss is not finite.
    """
    order = torch.Generator().manual_seed(torch_seed(task.seed, "adaptation", name, "order"))
    rates, losses, n_images, step = [], [], len(task.train_rows), 0
    epochs = math.ceil(plan.steps / steps_per_epoch(n_images, plan.batch_size))
    with (
        whole_products([*backbone.vision_blocks, *(text_blocks(backbone) if backbone.has_text else [])]),
        seeded(torch_seed(task.seed, "adaptation", name, "augmentation")),
        tqdm(total=plan.steps, desc=f"{name} on {task.dataset.name}", disable=not progress) as bar,
    ):
        for epoch in range(1, epochs + 1):
            rates.append(plan.rate(epoch, step))
            totals = []
            for positions in epoch_batches(n_images, plan.batch_size, order)[: plan.steps - step]:
                _set_rate(plan.optimizer, plan.rate(epoch, step))
                loss = _step(plan.optimizer, step_loss, *augmented_batch(backbone, task, positions, plan.crop))
                _require_finite(loss, name, task, epoch)
                totals.append(loss)
                step += 1
                bar.update()
            losses.append(sum(totals) / len(totals))
            bar.set_postfix(epoch=epoch, loss=f"{losses[-1]:.3f}", refresh=False)
            epoch_end(epoch)
    return {"learning_rates": rates, "losses": losses, "steps": step, "n_train": n_images}


def steps_per_epoch(n_images: int, batch_size: int) -> int:
    """Whole batches in an epoch; images fewer than a batch make one smaller batch."""
    return max(1, n_images // batch_size)


def epoch_batches(n_images: int, batch_size: int, generator: torch.Generator) -> list[list[int]]:
    """Positions of the images of each step of one epoch, shuffled, without the incomplete last batch."""
    shuffled = torch.randperm(n_images, generator=generator).tolist()
    starts = range(0, steps_per_epoch(n_images, batch_size) * batch_size, batch_size)
    return [shuffled[start : start + batch_size] for start in starts]


def augmented_batch(
    backbone: Backbone, task: Task, positions: Sequence[int], crop: float = CROP
) -> tuple[Tensor, Tensor]:
    """Pixels of some training images under the random crop and flip of the recipe, and their targets."""
    augment = few_shot_augmentation(backbone.image_size, crop)
    crops = [augment(task.train_image(i)) for i in positions]
    targets = torch.from_numpy(task.train_targets[list(positions)])
    return backbone.preprocess(np.stack([np.asarray(crop) for crop in crops])).to(backbone.device), targets.to(
        backbone.device
    )


def few_shot_augmentation(size: int, crop: float = CROP) -> Callable[[Any], Any]:
    """The training transform on PIL images: a random crop of `crop` to 100 % of the area, resized by bicubic
    interpolation to the backbone's input, and a horizontal flip in half of the cases."""
    from torchvision.transforms import v2

    cut = v2.RandomResizedCrop(size, scale=(crop, 1.0), interpolation=v2.InterpolationMode.BICUBIC)
    augment: Callable[[Any], Any] = v2.Compose([cut, v2.RandomHorizontalFlip(0.5)])
    return augment


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's global random streams (CPU and GPUs) from `seed`, given back as they were afterwards.

    torchvision draws crops from that of the CPU, dropout on a GPU from that GPU's.
    """
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def _set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = rate


def _require_finite(loss: float, name: str, task: Task, epoch: int) -> None:
    """Raise ConceptBenchError for a loss that is not a number or infinite."""
    if not math.isfinite(loss):
        raise ConceptBenchError(
            f"adaptation {name!r} on data set {task.dataset.name!r}: the loss became {loss} in epoch "
            f"{epoch}; lower its lr or look for non-finite backbone weights."
        )


def _step(optimizer: torch.optim.Optimizer, step_loss: StepLoss, pixels: Tensor, targets: Tensor) -> float:
    """One step; returns the loss and leaves the parameters alone when it is not finite."""
    optimizer.zero_grad(set_to_none=True)
    with torch.enable_grad():
        loss = step_loss(pixels, targets)
        value = float(loss.detach())
        if math.isfinite(value):
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return value
