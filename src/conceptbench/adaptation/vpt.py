"""VPT-deep: learned tokens in the image tower against the features of fixed texts (Jia et al. 2022).

The variant of the MaPLe code base: prompts behind the patches, no head, cosine with the texts of one template, whose
features are computed once.
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

    Raises ConceptBenchError when the backbone has no text tower or fewer image blocks than `depth`.
    """
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


def fit_vpt(spec: VptSpec, fitting: Fitting) -> PromptAdapter:
    """Train VPT-deep on the task's classes; raises as `new_vpt` does, and for a loss that is not finite."""
    backbone = fitting.backbone
    learner = new_vpt(spec, backbone, fitting.task.seed)
    with torch.no_grad():
        texts = F.normalize(encode_tokens(backbone, class_tokens(spec, backbone, fitting.task.class_names)), dim=-1)

    def step_loss(pixels: Tensor, targets: Tensor) -> Tensor:
        """The loss on the class vectors, which no step changes."""
        return vpt_loss(learner, backbone, texts, pixels, targets)

    return fit_prompts(spec, fitting, learner, step_loss)


def restore_vpt(spec: VptSpec, stored: Stored) -> PromptAdapter:
    """The adapter of a card and its tensors."""
    return restore_prompts(spec, stored, new_vpt(spec, stored.backbone, seed=0))
