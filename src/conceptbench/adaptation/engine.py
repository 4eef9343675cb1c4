"""The few-shot training loop that all prompt methods share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from conceptbench.adaptation.schedule import learning_rate
from conceptbench.adaptation.specs import Recipe
from conceptbench.adaptation.tasks import Task
from conceptbench.errors import ConceptBenchError
from conceptbench.seeds import torch_seed

if TYPE_CHECKING:
    from conceptbench.backbones import Backbone

StepLoss = Callable[[Float[Tensor, "image channel height width"], Int[Tensor, " image"]], Tensor]
"""From augmented pixels and targets to the loss, recomputing all that depends on the parameters."""


def train(
    parameters: Sequence[Tensor],
    step_loss: StepLoss,
    backbone: Backbone,
    task: Task,
    recipe: Recipe,
    *,
    name: str,
    progress: bool = True,
) -> dict[str, Any]:
    """Train `parameters` in place by SGD and return the record of the training; the last epoch is the result.

    This function writes no file; saving is left to the caller.

    Raises ConceptBenchError when a loss is not finite.
    """
    optimizer = torch.optim.SGD(
        list(parameters), lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay
    )
    order = torch.Generator().manual_seed(torch_seed(task.seed, "adaptation", name, "order"))
    rates, losses = [], []
    steps = steps_per_epoch(len(task.train_rows), recipe.batch_size)
    with (
        seeded(torch_seed(task.seed, "adaptation", name, "augmentation")),
        tqdm(total=recipe.epochs * steps, desc=f"{name} on {task.dataset.name}", disable=not progress) as bar,
    ):
        for epoch in range(1, recipe.epochs + 1):
            rate = learning_rate(epoch, recipe.epochs, recipe.lr, recipe.warmup_lr)
            for group in optimizer.param_groups:
                group["lr"] = rate
            total = 0.0
            for rows in epoch_batches(len(task.train_rows), recipe.batch_size, order):
                loss = _step(optimizer, step_loss, *augmented_batch(backbone, task, rows))
                if not math.isfinite(loss):
                    raise ConceptBenchError(
                        f"adaptation {name!r} on data set {task.dataset.name!r}: the loss became {loss} in epoch "
                        f"{epoch}; lower its lr or look for non-finite backbone weights."
                    )
                total += loss
                bar.update()
                bar.set_postfix(epoch=epoch, loss=f"{loss:.3f}", refresh=False)
            rates.append(rate)
            losses.append(total / steps)
    return {"learning_rates": rates, "losses": losses, "steps": recipe.epochs * steps, "n_train": len(task.train_rows)}


def steps_per_epoch(n_images: int, batch_size: int) -> int:
    """Whole batches in an epoch; images fewer than a batch make one smaller batch."""
    return max(1, n_images // batch_size)


def epoch_batches(n_images: int, batch_size: int, generator: torch.Generator) -> Iterator[list[int]]:
    """Positions of the images of each step of one epoch, shuffled, without the incomplete last batch."""
    shuffled = torch.randperm(n_images, generator=generator).tolist()
    for step in range(steps_per_epoch(n_images, batch_size)):
        yield shuffled[step * batch_size : (step + 1) * batch_size]


def augmented_batch(backbone: Backbone, task: Task, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Pixels of some training images under the random crop and flip of the recipe, and their targets."""
    augment = few_shot_augmentation(backbone.image_size)
    crops = [augment(task.train_image(i)) for i in positions]
    targets = torch.from_numpy(task.train_targets[list(positions)])
    return backbone.preprocess(np.stack([np.asarray(crop) for crop in crops])).to(backbone.device), targets.to(
        backbone.device
    )


def few_shot_augmentation(size: int) -> Callable[[Any], Any]:
    """The CoOp family's training transform on PIL images: a random crop of 8 to 100 % of the area, resized by bicubic
    interpolation to the backbone's input, and a horizontal flip in half of the cases."""
    from torchvision.transforms import v2

    crop = v2.RandomResizedCrop(size, scale=(0.08, 1.0), interpolation=v2.InterpolationMode.BICUBIC)
    augment: Callable[[Any], Any] = v2.Compose([crop, v2.RandomHorizontalFlip(0.5)])
    return augment


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Torch's global random stream from `seed`, given back as it was afterwards; torchvision draws from it."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def _step(optimizer: torch.optim.Optimizer, step_loss: StepLoss, pixels: Tensor, targets: Tensor) -> float:
    """One SGD step; returns the loss and leaves the parameters alone when it is not finite."""
    optimizer.zero_grad(set_to_none=True)
    with torch.enable_grad():
        loss = step_loss(pixels, targets)
        value = float(loss.detach())
        if math.isfinite(value):
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return value
