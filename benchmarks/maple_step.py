"""MaPLe's training step, ours against one written the way the original does it, side by side in one process.

    python -m benchmarks.maple_step            clip-tiny and a ViT-B/16 (about three minutes on two cores)
    python -m benchmarks.maple_step --quick    clip-tiny only

Both start from the same learner, see the same batches of 4 images and use the same open_clip blocks; they take turns.
Before anything is timed, their losses over the first steps are compared. Between the two stand our step without one and
without both of its savings: attention in whole products, and no text positions behind the last end-of-text token.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.common import OURS, Row, cores, write_results
from benchmarks.maple_reference import ReferenceStep
from benchmarks.towers import random_base
from conceptbench.adaptation import MapleSpec
from conceptbench.adaptation.adapter import cosine_logits
from conceptbench.adaptation.attention import whole_products
from conceptbench.adaptation.maple import MapleLearner, new_learner
from conceptbench.adaptation.prompts.adapter import class_tokens, prompt_loss
from conceptbench.adaptation.prompts.hooks import image_prompts, text_blocks, text_prompts
from conceptbench.backbones import Backbone, load_backbone
from conceptbench.backbones.shipped import SHIPPED
from conceptbench.data.flora import FLORA_CHAIN

BATCH: Final = 4
LR: Final = 0.0035
COMPARED_STEPS: Final = 3
Step = Callable[[Tensor, Tensor], float]


@dataclass(frozen=True)
class Case:
    """One model and as many classes as a task has."""

    name: str
    backbone: Backbone
    class_names: tuple[str, ...]
    spec: MapleSpec
    rounds: int
    steps: int
    """Steps of a turn."""


def tiny() -> Case:
    """The shipped CLIP and the base classes of flora."""
    backbone = load_backbone(SHIPPED / "clip-tiny", "cpu")
    return Case("clip-tiny, flora", backbone, tuple(sorted(FLORA_CHAIN)[:12]), MapleSpec(depth=3), 15, 20)


def base() -> Case:
    """A ViT-B/16 with random weights (which cost as much as trained ones) and 51 classes, the base half of Flowers."""
    backbone = random_base()
    names = tuple(f"{first} {second}" for first in ("red", "blue", "wild") for second in FLORA_CHAIN)[:51]
    return Case("ViT-B/16, 51 classes", backbone, names, MapleSpec(depth=9), 3, 1)


class OurStep:
    """One SGD step as `adaptation.engine` makes it."""

    def __init__(
        self,
        case: Case,
        learner: MapleLearner,
        tokens: Tensor,
        loss: Callable[..., Tensor],
        context: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """`loss` is called as `prompt_loss` is, inside `context`."""
        self.inputs, self.loss, self.context = (learner, case.backbone, tokens), loss, context
        self.optimizer = torch.optim.SGD(list(learner.parameters()), lr=LR, momentum=0.9, weight_decay=5e-4)

    def __call__(self, pixels: Tensor, targets: Tensor) -> float:
        """Train on one batch; returns the loss before the step."""
        self.optimizer.zero_grad(set_to_none=True)
        with self.context():
            loss = self.loss(*self.inputs, pixels, targets)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return float(loss.detach())


def whole_loss(learner: MapleLearner, backbone: Backbone, tokens: Tensor, pixels: Tensor, targets: Tensor) -> Tensor:
    """Our loss with text features at the full length of the context window."""
    with text_prompts(backbone, learner.text_prompts()):
        texts = F.normalize(backbone.encode_text(tokens), dim=-1)
    with image_prompts(backbone, learner.image_prompts()):
        features = backbone.encode_image(pixels)
    return F.cross_entropy(cosine_logits(backbone, features, texts), targets)


def steps_of(case: Case) -> dict[str, Step]:
    """The three variants, each with a learner of its own that starts alike."""
    backbone = case.backbone
    learner = new_learner(case.spec, backbone, seed=0)
    tokens = class_tokens(case.spec, backbone, case.class_names)
    blocks = [*backbone.vision_blocks, *text_blocks(backbone)]
    return {
        "ours": OurStep(case, deepcopy(learner), tokens, prompt_loss, partial(whole_products, blocks)),
        "ours, torch's attention": OurStep(case, deepcopy(learner), tokens, prompt_loss),
        "ours, that and all positions": OurStep(case, deepcopy(learner), tokens, whole_loss),
        "as the original": ReferenceStep(backbone.model, deepcopy(learner), tokens, LR),
    }


def batches(case: Case, n: int) -> list[tuple[Tensor, Tensor]]:
    """Random pixels and targets."""
    generator = torch.Generator().manual_seed(1)
    size, n_classes = case.backbone.image_size, len(case.class_names)
    return [
        (
            torch.randn(BATCH, 3, size, size, generator=generator),
            torch.randint(n_classes, (BATCH,), generator=generator),
        )
        for _ in range(n)
    ]


def measure(case: Case) -> list[Row]:
    """Compare the losses, then let the variants take turns."""
    steps = steps_of(case)
    compared = [[step(*batch) for batch in batches(case, COMPARED_STEPS)] for step in steps.values()]
    difference = max(abs(a - b) / abs(b) for losses in compared for a, b in zip(losses, compared[-1], strict=True))
    turns: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(case.rounds):
        for name, step in steps.items():
            work = batches(case, case.steps)
            start = time.perf_counter()
            for batch in work:
                step(*batch)
            turns[name].append(case.steps / (time.perf_counter() - start))
    rates = {name: statistics.median(values) for name, values in turns.items()}
    shapes = {"batch": BATCH, "classes": len(case.class_names), "threads": cores()}
    return [
        Row(
            toolkit="MaPLe (re-written)" if name == "as the original" else OURS,
            method="MaPLe step",
            setting=name,
            shapes=shapes,
            rate="steps_per_s",
            value=rate,
            ratio_to_fastest_peer=rate / rates["as the original"],
            more={"model": case.name, "largest_relative_loss_difference": difference},
        )
        for name, rate in rates.items()
    ]


def main() -> None:
    """Measure and write `benchmarks/results/maple_step.json`."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="clip-tiny only")
    options = parser.parse_args()
    torch.set_num_threads(cores())
    rows = [row for make in ([tiny] if options.quick else [tiny, base]) for row in measure(make())]
    for row in rows:
        print(f"{row.more['model']:24s} {row.setting:30s} {row.value:9.2f} steps/s  x{row.ratio_to_fastest_peer:.2f}")
    print("wrote", write_results("maple_step_quick" if options.quick else "maple_step", rows, {"batch": BATCH}))


if __name__ == "__main__":
    main()
