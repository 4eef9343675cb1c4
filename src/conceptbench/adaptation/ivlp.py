"""IVLP: independent prompts in both towers (the uncoupled variant of Khattak et al. 2023), MaPLe's control."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

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
from conceptbench.adaptation.prompts.learner import IndependentPrompts, random_prompts, start_context
from conceptbench.adaptation.specs import IvlpSpec, PromptSrcSpec
from conceptbench.seeds import torch_seed

if TYPE_CHECKING:
    from conceptbench.backbones import Backbone


def new_ivlp(spec: IvlpSpec | PromptSrcSpec, backbone: Backbone, seed: int) -> IndependentPrompts:
    """Untrained prompts for both towers, on the backbone's device.

    Raises ConceptBenchError when the backbone has no text tower, a tower is shallower than its depth, or the context
    has fewer than `n_ctx` tokens.
    """
    require_blocks(backbone, "text", spec.text_depth, len(text_blocks(backbone)))
    require_blocks(backbone, "image", spec.image_depth, len(backbone.vision_blocks))
    with seeded(torch_seed(seed, "adaptation", spec.name, "start")):
        context = start_context(backbone, spec.context, spec.n_ctx)
        text = [context, *random_prompts(spec.text_depth - 1, *context.shape)]
        image = random_prompts(spec.image_depth, spec.n_image, backbone.width)
    return IndependentPrompts(text, image).to(backbone.device)


def fit_ivlp(spec: IvlpSpec, fitting: Fitting) -> PromptAdapter:
    """Train IVLP on the task's classes; raises as `new_ivlp` does, and for a loss that is not finite."""
    backbone = fitting.backbone
    learner = new_ivlp(spec, backbone, fitting.task.seed)
    tokens = class_tokens(spec, backbone, fitting.task.class_names)

    def step_loss(pixels: Tensor, targets: Tensor) -> Tensor:
        """The loss with the current prompts."""
        return prompt_loss(learner, backbone, tokens, pixels, targets)

    return fit_prompts(spec, fitting, learner, step_loss)


def restore_ivlp(spec: IvlpSpec, stored: Stored) -> PromptAdapter:
    """The adapter of a card and its tensors."""
    return restore_prompts(spec, stored, new_ivlp(spec, stored.backbone, seed=0))
