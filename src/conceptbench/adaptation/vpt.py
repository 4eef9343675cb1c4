"""VPT-deep: learned tokens in the image tower against the features of fixed texts (Jia et al. 2022).

The variant of the MaPLe code base: prompts behind the patches, no head, cosine with the texts of one template, whose
features are computed once. A backbone without texts has a linear head instead, as in the original.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from conceptbench.adaptation.adapter import cosine_logits
from conceptbench.adaptation.engine import seeded
from conceptbench.adaptation.fitting import Fitting, Stored
from conceptbench.adaptation.head import HeadedAdapter, headed, new_head, restore_headed
from conceptbench.adaptation.prompts.adapter import PromptAdapter, class_tokens, fit_prompts, restore_prompts
from conceptbench.adaptation.prompts.hooks import image_prompts, require_blocks, text_tower
from conceptbench.adaptation.prompts.learner import IndependentPrompts, PromptLearner, random_prompts
from conceptbench.adaptation.prompts.text import encode_tokens
from conceptbench.adaptation.specs import VptSpec
from conceptbench.seeds import torch_seed

if TYPE_CHECKING:
    from conceptbench.backbones import Backbone


def new_vpt(spec: VptSpec, backbone: Backbone, seed: int) -> IndependentPrompts:
    """Untrained image prompts, on the backbone's device.

    Raises ConceptBenchError when the backbone has another text tower than open_clip's, or fewer image blocks than
    `depth`.
    """
    if backbone.has_text:
        text_tower(backbone)
    require_blocks(backbone, "image", spec.depth, len(backbone.vision_blocks))
    with seeded(torch_seed(seed, "adaptation", spec.name, "start")):
        prompts = random_prompts(spec.depth, spec.n_ctx, backbone.width)
    return IndependentPrompts([], prompts).to(backbone.device)


def vpt_loss(
    learner: PromptLearner, backbone: Backbone, texts: Float[Tensor, "class embed"], pixels: Tensor, targets: Tensor
) -> Float[Tensor, ""]:
    """Cross-entropy over the normalised class vectors `texts`; only the image side depends on what is learned."""
    with image_prompts(backbone, learner.image_prompts()):
        features = backbone.encode_image(pixels)
    return F.cross_entropy(cosine_logits(backbone, features, texts), targets)


def fit_vpt(spec: VptSpec, fitting: Fitting) -> PromptAdapter | HeadedAdapter:
    """Train VPT-deep on the task's classes; raises as `new_vpt` does, and for a loss that is not finite."""
    backbone = fitting.backbone
    learner = new_vpt(spec, backbone, fitting.task.seed)
    if not backbone.has_text:
        return _fit_headed(spec, fitting, learner)
    with torch.no_grad():
        texts = F.normalize(encode_tokens(backbone, class_tokens(spec, backbone, fitting.task.class_names)), dim=-1)

    def step_loss(pixels: Tensor, targets: Tensor) -> Tensor:
        """The loss on the class vectors, which no step changes."""
        return vpt_loss(learner, backbone, texts, pixels, targets)

    return fit_prompts(spec, fitting, learner, step_loss)


def _fit_headed(spec: VptSpec, fitting: Fitting, learner: IndependentPrompts) -> HeadedAdapter:
    """Train the prompts together with a linear head."""
    backbone, head = fitting.backbone, new_head(fitting)

    def step_loss(pixels: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy over the head's classes."""
        with image_prompts(backbone, learner.image_prompts()):
            features = backbone.encode_image(pixels)
        return F.cross_entropy(head(features), targets)

    return headed(fit_prompts(spec, fitting, learner, step_loss, beside=list(head.parameters())), head)


def restore_vpt(spec: VptSpec, stored: Stored) -> PromptAdapter | HeadedAdapter:
    """The adapter of a card and its tensors."""

    def prompts(stored: Stored) -> PromptAdapter:
        """The image prompts."""
        return restore_prompts(spec, stored, new_vpt(spec, stored.backbone, seed=0))

    return prompts(stored) if stored.backbone.has_text else restore_headed(stored, prompts)
