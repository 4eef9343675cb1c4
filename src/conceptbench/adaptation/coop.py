"""CoOp: one learned context in front of all class names (Zhou et al. 2022, "Learning to Prompt").

The image tower is the backbone's own: image features are computed without gradients, and those that are not augmented
are shared by all seeds.
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
from conceptbench.adaptation.prompts.hooks import text_prompts
from conceptbench.adaptation.prompts.learner import IndependentPrompts, PromptLearner, start_context
from conceptbench.adaptation.prompts.text import encode_tokens
from conceptbench.adaptation.specs import CoOpSpec
from conceptbench.seeds import torch_seed

if TYPE_CHECKING:
    from conceptbench.backbones import Backbone


def new_coop(spec: CoOpSpec, backbone: Backbone, seed: int) -> IndependentPrompts:
    """An untrained context, on the backbone's device.

    Raises ConceptBenchError when the backbone has no text tower or the context has fewer than `n_ctx` tokens.
    """
    with seeded(torch_seed(seed, "adaptation", spec.name, "start")):
        context = start_context(backbone, spec.context, spec.n_ctx)
    return IndependentPrompts([context], []).to(backbone.device)


def coop_loss(
    learner: PromptLearner, backbone: Backbone, tokens: Tensor, pixels: Tensor, targets: Tensor
) -> Float[Tensor, ""]:
    """Cross-entropy over the classes of `tokens`; only the text side depends on what is learned."""
    with torch.no_grad():
        features = backbone.encode_image(pixels)
    with text_prompts(backbone, learner.text_prompts()):
        texts = F.normalize(encode_tokens(backbone, tokens), dim=-1)
    return F.cross_entropy(cosine_logits(backbone, features, texts), targets)


def fit_coop(spec: CoOpSpec, fitting: Fitting) -> PromptAdapter:
    """Train CoOp on the task's classes; raises as `new_coop` does, and for a loss that is not finite."""
    backbone = fitting.backbone
    learner = new_coop(spec, backbone, fitting.task.seed)
    tokens = class_tokens(spec, backbone, fitting.task.class_names)

    def step_loss(pixels: Tensor, targets: Tensor) -> Tensor:
        """The loss with the current context."""
        return coop_loss(learner, backbone, tokens, pixels, targets)

    return fit_prompts(spec, fitting, learner, step_loss)


def restore_coop(spec: CoOpSpec, stored: Stored) -> PromptAdapter:
    """The adapter of a card and its tensors."""
    return restore_prompts(spec, stored, new_coop(spec, stored.backbone, seed=0))
