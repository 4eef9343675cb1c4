"""CoCoOp: CoOp's context plus a shift that a small net computes from each image (Zhou et al. 2022, "Conditional").

Every image has class vectors of its own, so each one encodes all class prompts again. The image tower is the
backbone's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from conceptbench.adaptation.adapter import Adapter, Logits
from conceptbench.adaptation.engine import seeded, sgd_plan, train
from conceptbench.adaptation.fitting import Fitting, Stored
from conceptbench.adaptation.prompts.adapter import class_tokens
from conceptbench.adaptation.prompts.hooks import text_prompts
from conceptbench.adaptation.prompts.learner import start_context
from conceptbench.adaptation.prompts.text import encode_tokens
from conceptbench.adaptation.specs import CoCoOpSpec
from conceptbench.adaptation.storage import require_tensors
from conceptbench.errors import ConceptBenchError
from conceptbench.seeds import torch_seed

if TYPE_CHECKING:
    from conceptbench.backbones import Backbone

TEXTS_AT_ONCE = 4096
"""Prompts that one pass of the text tower encodes, at most; images beyond it come in the next pass."""


class CoCoOpLearner(nn.Module):
    """The context and the meta-net: two layers with a ReLU between, from image features to a shift of every token."""

    def __init__(self, context: Float[Tensor, "prompt text"], embed_dim: int, reduction: int) -> None:
        """Start from `context`; the net starts as torch's linear layers do."""
        super().__init__()
        hidden = max(1, embed_dim // reduction)
        self.context = nn.Parameter(context.detach().clone())
        self.meta = nn.Sequential(nn.Linear(embed_dim, hidden), nn.ReLU(), nn.Linear(hidden, context.shape[1]))

    def prompts(self, images: Float[Tensor, "image embed"]) -> Float[Tensor, "image prompt text"]:
        """The context of each image, from its normalised features."""
        shift: Tensor = self.meta(images)
        return self.context + shift[:, None]


@dataclass(frozen=True, eq=False)
class CoCoOpAdapter(Adapter):
    """A trained learner."""

    spec: CoCoOpSpec
    learner: CoCoOpLearner

    def tensors(self) -> dict[str, Tensor]:
        """Context and meta-net."""
        return dict(self.learner.state_dict())

    def _encode_classes(self, backbone: Backbone, class_names: Sequence[str]) -> Float[Tensor, "class embed"]:
        raise ConceptBenchError(
            "CoCoOp's class vectors differ from image to image; use its classify, or another method for class vectors."
        )

    def classify(
        self, backbone: Backbone, features: Float[Tensor, "image embed"], class_names: Sequence[str]
    ) -> Logits:
        """Logits of image features (not normalised), each image against class vectors of its own."""
        self.require_backbone(backbone)
        tokens = class_tokens(self.spec, backbone, class_names)
        parts = torch.split(features, max(1, TEXTS_AT_ONCE // len(tokens)))
        return torch.cat([cocoop_logits(self.learner, backbone, tokens, part) for part in parts])


def cocoop_logits(
    learner: CoCoOpLearner, backbone: Backbone, tokens: Tensor, features: Float[Tensor, "image embed"]
) -> Logits:
    """Logits over the classes of `tokens`, which are encoded anew for every image."""
    images, n_classes = F.normalize(features, dim=-1), len(tokens)
    prompts = learner.prompts(images).repeat_interleave(n_classes, dim=0)
    with text_prompts(backbone, [prompts]):
        texts = encode_tokens(backbone, tokens.repeat(len(images), 1))
    texts = F.normalize(texts, dim=-1).view(len(images), n_classes, -1)
    return backbone.logit_scale * torch.einsum("ie,ice->ic", images, texts)


def new_cocoop(spec: CoCoOpSpec, backbone: Backbone, seed: int) -> CoCoOpLearner:
    """An untrained learner, on the backbone's device.

    Raises ConceptBenchError when the backbone has no text tower or the context has fewer than `n_ctx` tokens.
    """
    with seeded(torch_seed(seed, "adaptation", spec.name, "start")):
        context = start_context(backbone, spec.context, spec.n_ctx)
        return CoCoOpLearner(context, backbone.embed_dim, spec.reduction).to(backbone.device)


def fit_cocoop(spec: CoCoOpSpec, fitting: Fitting) -> CoCoOpAdapter:
    """Train CoCoOp on the task's classes; raises as `new_cocoop` does, and for a loss that is not finite."""
    backbone, task = fitting.backbone, fitting.task
    learner = new_cocoop(spec, backbone, task.seed)
    tokens = class_tokens(spec, backbone, task.class_names)

    def step_loss(pixels: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy; only the text side depends on what is learned."""
        with torch.no_grad():
            features = backbone.encode_image(pixels)
        return F.cross_entropy(cocoop_logits(learner, backbone, tokens, features), targets)

    plan = sgd_plan(list(learner.parameters()), spec, len(task.train_rows))
    training = train(plan, step_loss, backbone, task, name=spec.name, progress=fitting.progress)
    training["n_parameters"] = sum(parameter.numel() for parameter in learner.parameters())
    return CoCoOpAdapter(spec, fitting.card | {"training": training}, learner.requires_grad_(False))


def restore_cocoop(spec: CoCoOpSpec, stored: Stored) -> CoCoOpAdapter:
    """The adapter of a card and its tensors."""
    learner = new_cocoop(spec, stored.backbone, seed=0)
    expected = {name: tuple(value.shape) for name, value in learner.state_dict().items()}
    require_tensors(stored.tensors, expected, stored.source)
    learner.load_state_dict(stored.tensors, strict=True)
    return CoCoOpAdapter(spec, stored.card, learner.requires_grad_(False))
