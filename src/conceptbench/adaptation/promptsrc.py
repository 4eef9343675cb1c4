"""PromptSRC: independent prompts held near the frozen model (Khattak et al. 2023, "Self-regulating Prompts").

Three regularisers tie the prompted to the frozen model on the same images: class vectors to the mean over many
templates, image features to those without prompts, and logits to the frozen ones. The prompts of all epochs are
averaged with Gaussian weights. As in the authors' code the divergence of the logits is that of the prompted from the
frozen distribution, summed and divided by the number of logits.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from conceptbench.adaptation.adapter import cosine_logits
from conceptbench.adaptation.fitting import Fitting, Stored
from conceptbench.adaptation.ivlp import new_ivlp
from conceptbench.adaptation.prompts.adapter import PromptAdapter, class_tokens, fit_prompts, restore_prompts
from conceptbench.adaptation.prompts.hooks import image_prompts, text_prompts
from conceptbench.adaptation.prompts.learner import PromptLearner
from conceptbench.adaptation.prompts.text import encode_tokens, prompt_tokens, template_prompts
from conceptbench.adaptation.specs import PromptSrcSpec

if TYPE_CHECKING:
    from conceptbench.backbones import Backbone

N_TEMPLATES = 60
"""The original takes the first 60 of the 80 templates that CLIP's authors made for ImageNet."""


def original_templates() -> list[str]:
    """The 60 templates of the original, with `{}` for the class name."""
    from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

    return [template("{}") for template in OPENAI_IMAGENET_TEMPLATES[:N_TEMPLATES]]


@torch.no_grad()
def frozen_texts(
    backbone: Backbone, templates: Sequence[str], class_names: Sequence[str]
) -> Float[Tensor, "class embed"]:
    """Normalised mean over the templates of the plain text features, which are not normalised before."""
    parts = [encode_tokens(backbone, prompt_tokens(backbone, template_prompts(t, class_names))) for t in templates]
    return F.normalize(torch.stack(parts).mean(dim=0), dim=-1)


def promptsrc_loss(
    spec: PromptSrcSpec,
    learner: PromptLearner,
    backbone: Backbone,
    tokens: Tensor,
    frozen: Float[Tensor, "class embed"],
    pixels: Tensor,
    targets: Tensor,
) -> Float[Tensor, ""]:
    """Cross-entropy and the three regularisers; `frozen` are the class vectors of the frozen text side."""
    with torch.no_grad():
        plain = F.normalize(backbone.encode_image(pixels), dim=-1)
        plain_logits = cosine_logits(backbone, plain, frozen)
    with text_prompts(backbone, learner.text_prompts()):
        texts = F.normalize(encode_tokens(backbone, tokens), dim=-1)
    with image_prompts(backbone, learner.image_prompts()):
        images = F.normalize(backbone.encode_image(pixels), dim=-1)
    logits = backbone.logit_scale * images @ texts.T
    divergence = F.kl_div(
        F.log_softmax(logits, dim=1), F.log_softmax(plain_logits, dim=1), reduction="sum", log_target=True
    )
    return (
        F.cross_entropy(logits, targets)
        + spec.text_weight * F.l1_loss(texts, frozen)
        + spec.image_weight * F.l1_loss(images, plain)
        + divergence / logits.numel()
    )


def gaussian_weights(epochs: int, mean: float, deviation: float) -> list[float]:
    """Weight of each epoch in the average of the prompts; they add up to 1.

    Logarithms are shifted by the largest, so that a mean far beyond the last epoch weighs that one instead of none.
    """
    logs = [-0.5 * ((epoch - mean) / deviation) ** 2 for epoch in range(1, epochs + 1)]
    values = [math.exp(value - max(logs)) for value in logs]
    return [value / sum(values) for value in values]


class EpochAverage:
    """The weighted average of a learner's tensors over the epochs, put into the learner after the last one."""

    def __init__(self, learner: PromptLearner, weights: Sequence[float]) -> None:
        """Start with nothing; `weights` has one number per epoch."""
        self._learner, self._weights = learner, weights
        self._sums = {name: torch.zeros_like(value) for name, value in learner.state_dict().items()}

    def __call__(self, epoch: int) -> None:
        """Add the learner as it is after `epoch` (1-based)."""
        for name, value in self._learner.state_dict().items():
            self._sums[name] += self._weights[epoch - 1] * value
        if epoch == len(self._weights):
            self._learner.load_state_dict(self._sums)


def fit_promptsrc(spec: PromptSrcSpec, fitting: Fitting) -> PromptAdapter:
    """Train PromptSRC on the task's classes; raises as `new_ivlp` does, and for a loss that is not finite."""
    backbone = fitting.backbone
    learner = new_ivlp(spec, backbone, fitting.task.seed)
    tokens = class_tokens(spec, backbone, fitting.task.class_names)
    frozen = frozen_texts(backbone, spec.templates or original_templates(), fitting.task.class_names)
    average = EpochAverage(learner, gaussian_weights(spec.epochs, spec.mean_epoch, spec.epoch_deviation))

    def step_loss(pixels: Tensor, targets: Tensor) -> Tensor:
        """The loss with the current prompts."""
        return promptsrc_loss(spec, learner, backbone, tokens, frozen, pixels, targets)

    return fit_prompts(spec, fitting, learner, step_loss, average)


def restore_promptsrc(spec: PromptSrcSpec, stored: Stored) -> PromptAdapter:
    """The adapter of a card and its tensors."""
    return restore_prompts(spec, stored, new_ivlp(spec, stored.backbone, seed=0))
