"""The adapter of every method whose prompts are the same for all images, and how it is trained and restored."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from conceptbench.adaptation.adapter import Adapter, cosine_logits
from conceptbench.adaptation.engine import EpochEnd, StepLoss, sgd_plan, train
from conceptbench.adaptation.fitting import Fitting, Stored
from conceptbench.adaptation.prompts.hooks import image_prompts, text_prompts
from conceptbench.adaptation.prompts.learner import PromptLearner
from conceptbench.adaptation.prompts.text import context_prompts, encode_tokens, prompt_tokens, template_prompts
from conceptbench.adaptation.specs import CoCoOpSpec, CoOpSpec, IvlpSpec, MapleSpec, PromptSrcSpec, VptSpec
from conceptbench.adaptation.storage import require_tensors

if TYPE_CHECKING:
    from conceptbench.backbones import Backbone

StaticSpec: TypeAlias = CoOpSpec | VptSpec | IvlpSpec | MapleSpec | PromptSrcSpec
"""Methods whose prompts are the same for all images."""


@dataclass(frozen=True, eq=False)
class PromptAdapter(Adapter):
    """A trained learner."""

    spec: StaticSpec
    learner: PromptLearner

    def tensors(self) -> dict[str, Tensor]:
        """Prompts, and what they are computed from."""
        return dict(self.learner.state_dict())

    def image_context(self, backbone: Backbone) -> AbstractContextManager[None]:
        """Inside it the image tower carries the image prompts, if the method has any."""
        self.require_backbone(backbone)
        with torch.no_grad():
            return image_prompts(backbone, self.learner.image_prompts())

    def _encode_classes(self, backbone: Backbone, class_names: Sequence[str]) -> Float[Tensor, "class embed"]:
        tokens = class_tokens(self.spec, backbone, class_names)
        with text_prompts(backbone, self.learner.text_prompts()):
            return encode_tokens(backbone, tokens)


def class_tokens(spec: StaticSpec | CoCoOpSpec, backbone: Backbone, class_names: Sequence[str]) -> Tensor:
    """Tokens of the classes' prompts; learned tokens take the places of the first `n_ctx` of the context."""
    if isinstance(spec, VptSpec):
        return prompt_tokens(backbone, template_prompts(spec.template, class_names))
    return prompt_tokens(backbone, context_prompts(spec.context, spec.n_ctx, class_names))


def prompt_loss(
    learner: PromptLearner, backbone: Backbone, tokens: Tensor, pixels: Tensor, targets: Tensor
) -> Float[Tensor, ""]:
    """Cross-entropy of images over the classes of `tokens`, both sides recomputed with the current prompts."""
    with text_prompts(backbone, learner.text_prompts()):
        texts = F.normalize(encode_tokens(backbone, tokens), dim=-1)
    with image_prompts(backbone, learner.image_prompts()):
        features = backbone.encode_image(pixels)
    return F.cross_entropy(cosine_logits(backbone, features, texts), targets)


def fit_prompts(
    spec: StaticSpec,
    fitting: Fitting,
    learner: PromptLearner,
    step_loss: StepLoss,
    epoch_end: EpochEnd = lambda _epoch: None,
    beside: Sequence[Tensor] = (),
) -> PromptAdapter:
    """Train a learner, and parameters `beside` it, on the task by SGD.

    Whatever `epoch_end` makes of the learner after the last epoch is kept.
    """
    parameters = [*learner.parameters(), *beside]
    plan = sgd_plan(parameters, spec, len(fitting.task.train_rows))
    training = train(
        plan,
        step_loss,
        fitting.backbone,
        fitting.task,
        name=spec.name,
        progress=fitting.progress,
        epoch_end=epoch_end,
    )
    training["n_parameters"] = sum(parameter.numel() for parameter in parameters)
    return PromptAdapter(spec, fitting.card | {"training": training}, learner.requires_grad_(False))


def restore_prompts(spec: StaticSpec, stored: Stored, learner: PromptLearner) -> PromptAdapter:
    """The adapter of a card and its tensors, which must be those of this untrained learner's names and shapes."""
    require_tensors(
        stored.tensors, {name: tuple(value.shape) for name, value in learner.state_dict().items()}, stored.source
    )
    learner.load_state_dict(stored.tensors, strict=True)
    return PromptAdapter(spec, stored.card, learner.requires_grad_(False))
