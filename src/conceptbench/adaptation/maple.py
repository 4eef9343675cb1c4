"""MaPLe: multi-modal prompt learning (Khattak et al. 2023), by hooks on any open_clip model with blocks and text.

Learned are the text prompts of `depth` positions and, per position, a linear coupling that turns the text prompt into
the image prompt. The shallow text prompt starts from the embeddings of the context's first words, which it replaces;
the rest of the context stays. All else in the model is frozen. Trained in float32, where the original used float16.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from conceptbench.adaptation.engine import seeded
from conceptbench.adaptation.fitting import Fitting, Stored
from conceptbench.adaptation.prompts.adapter import (
    PromptAdapter,
    class_tokens,
    fit_prompts,
    prompt_loss,
    restore_prompts,
)
from conceptbench.adaptation.prompts.hooks import require_blocks, text_blocks
from conceptbench.adaptation.prompts.learner import PROMPT_STD, PromptLearner, start_context
from conceptbench.adaptation.specs import MapleSpec
from conceptbench.seeds import torch_seed

if TYPE_CHECKING:
    from conceptbench.backbones import Backbone


class MapleLearner(PromptLearner):
    """The learned tensors: `depth` text prompts and their couplings."""

    def __init__(self, context: Float[Tensor, "prompt text"], depth: int, image_width: int) -> None:
        """Start from `context`; deep prompts are drawn at random, and the deep couplings are copies of one draw."""
        super().__init__()
        text_width = context.shape[1]
        self.context = nn.Parameter(context.detach().clone())
        self.deep = nn.ParameterList(
            nn.Parameter(torch.randn_like(self.context) * PROMPT_STD) for _ in range(depth - 1)
        )
        shallow, shared = (nn.Linear(text_width, image_width, device=context.device) for _ in range(2))
        self.couplings = nn.ModuleList([shallow, *(deepcopy(shared) for _ in range(depth - 1))])

    def text_prompts(self) -> list[Tensor]:
        """The prompt of each position of the text tower."""
        return [self.context, *self.deep]

    def image_prompts(self) -> list[Tensor]:
        """The prompt of each position of the image tower: the coupled text prompt."""
        return [coupling(prompt) for coupling, prompt in zip(self.couplings, self.text_prompts(), strict=True)]


def new_learner(spec: MapleSpec, backbone: Backbone, seed: int) -> MapleLearner:
    """An untrained learner for the backbone's widths, on its device.

    Raises ConceptBenchError when the backbone has no text tower, a tower is shallower than `depth`, or the context
    has fewer than `n_ctx` tokens.
    """
    require_blocks(backbone, "text", spec.depth, len(text_blocks(backbone)))
    require_blocks(backbone, "image", spec.depth, len(backbone.vision_blocks))
    with seeded(torch_seed(seed, "adaptation", spec.name, "start")):
        context = start_context(backbone, spec.context, spec.n_ctx)
        return MapleLearner(context, spec.depth, backbone.width).to(backbone.device)


def fit_maple(spec: MapleSpec, fitting: Fitting) -> PromptAdapter:
    """Train MaPLe on the task's classes; raises as `new_learner` does, and for a loss that is not finite."""
    backbone = fitting.backbone
    learner = new_learner(spec, backbone, fitting.task.seed)
    tokens = class_tokens(spec, backbone, fitting.task.class_names)

    def step_loss(pixels: Tensor, targets: Tensor) -> Tensor:
        """The loss with the current prompts."""
        return prompt_loss(learner, backbone, tokens, pixels, targets)

    return fit_prompts(spec, fitting, learner, step_loss)


def restore_maple(spec: MapleSpec, stored: Stored) -> PromptAdapter:
    """The adapter of a card and its tensors, which must be those of this depth and these widths."""
    return restore_prompts(spec, stored, new_learner(spec, stored.backbone, seed=0))
