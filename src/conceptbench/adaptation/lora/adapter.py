"""CLIP-LoRA (Zanella and Ben Ayed 2024): low-rank factors in the attention of both towers, one text template.

It is the one method here that changes weights. In the towers that do not learn, features are those of the backbone and
are not computed again. Trained in float32, where the original used mixed precision. A backbone without texts has a
linear head, and only its image tower learns.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from conceptbench.adaptation.adapter import Adapter, cosine_logits
from conceptbench.adaptation.engine import StepLoss, cosine_plan, seeded, train
from conceptbench.adaptation.fitting import Fitting, Stored
from conceptbench.adaptation.head import HeadedAdapter, headed, new_head, restore_headed
from conceptbench.adaptation.lora.layers import LowRank, attention_width, merged, trained
from conceptbench.adaptation.prompts.hooks import text_blocks, text_tower
from conceptbench.adaptation.prompts.text import encode_tokens, prompt_tokens, template_prompts
from conceptbench.adaptation.specs import DEFAULT_TEMPLATE, ClipLoraSpec
from conceptbench.adaptation.storage import require_tensors
from conceptbench.adaptation.zero_shot import template_features
from conceptbench.seeds import torch_seed

if TYPE_CHECKING:
    from conceptbench.backbones import Backbone


class LoraLearner(nn.Module):
    """The factors of every block of the towers that learn; a tower that does not has none."""

    def __init__(self, spec: ClipLoraSpec, image_widths: Sequence[int], text_widths: Sequence[int]) -> None:
        """Start without a change; widths are those of the attention layers, in order."""
        super().__init__()
        self.image = nn.ModuleList(LowRank(width, spec) for width in image_widths)
        self.text = nn.ModuleList(LowRank(width, spec) for width in text_widths)

    def image_side(self, backbone: Backbone) -> tuple[list[Any], list[LowRank]]:
        """Blocks and factors of the image tower; both are empty when it does not learn."""
        return (backbone.vision_blocks if len(self.image) else []), list(self.image)  # type: ignore[arg-type]

    def text_side(self, backbone: Backbone) -> tuple[list[Any], list[LowRank]]:
        """Blocks and factors of the text tower; both are empty when it does not learn."""
        return (text_blocks(backbone) if len(self.text) else []), list(self.text)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class ClipLoraAdapter(Adapter):
    """A trained learner."""

    spec: ClipLoraSpec
    learner: LoraLearner

    def tensors(self) -> dict[str, Tensor]:
        """The factors."""
        return dict(self.learner.state_dict())

    def image_context(self, backbone: Backbone) -> AbstractContextManager[None]:
        """Inside it the image tower has the changed weights."""
        self.require_backbone(backbone)
        return merged(*self.learner.image_side(backbone))

    def _encode_classes(self, backbone: Backbone, class_names: Sequence[str]) -> Float[Tensor, "class embed"]:
        with merged(*self.learner.text_side(backbone)):
            return template_features(backbone, self.spec.template, class_names)


def new_lora(spec: ClipLoraSpec, backbone: Backbone, seed: int) -> LoraLearner:
    """Untrained factors, on the backbone's device.

    Raises ConceptBenchError when its attention cannot be changed, or the backbone has no text tower and not the image
    tower alone shall learn.
    """
    if backbone.has_text or spec.towers != "image":
        text_tower(backbone)
    images = backbone.vision_blocks if spec.towers != "text" else []
    texts = text_blocks(backbone) if spec.towers != "image" else []
    image_widths = [attention_width(block, f"the image tower of backbone {backbone.name!r}") for block in images]
    text_widths = [attention_width(block, f"the text tower of backbone {backbone.name!r}") for block in texts]
    with seeded(torch_seed(seed, "adaptation", spec.name, "start")):
        return LoraLearner(spec, image_widths, text_widths).to(backbone.device)


def lora_loss(
    learner: LoraLearner, backbone: Backbone, tokens: Tensor, pixels: Tensor, targets: Tensor
) -> Float[Tensor, ""]:
    """Cross-entropy of images over the classes of `tokens` with dropout on the input of the factors."""
    with trained(*learner.text_side(backbone)):
        texts = F.normalize(encode_tokens(backbone, tokens), dim=-1)
    return F.cross_entropy(cosine_logits(backbone, _images(learner, backbone, pixels), texts), targets)


def fit_clip_lora(spec: ClipLoraSpec, fitting: Fitting) -> ClipLoraAdapter | HeadedAdapter:
    """Train CLIP-LoRA on the task's classes; raises as `new_lora` does, and for a loss that is not finite."""
    backbone, task = fitting.backbone, fitting.task
    learner = new_lora(spec, backbone, task.seed)
    if not backbone.has_text:
        return _fit_headed(spec, fitting, learner)
    prompts = template_prompts(spec.template or DEFAULT_TEMPLATE, task.class_names)
    tokens = prompt_tokens(backbone, prompts)
    with torch.no_grad():
        fixed = F.normalize(encode_tokens(backbone, tokens), dim=-1)

    def step_loss(pixels: Tensor, targets: Tensor) -> Tensor:
        """The loss with the current factors; class vectors that no step changes are not computed again."""
        if spec.towers == "image":
            return F.cross_entropy(cosine_logits(backbone, _images(learner, backbone, pixels), fixed), targets)
        return lora_loss(learner, backbone, tokens, pixels, targets)

    return _trained(spec, fitting, learner, step_loss, ())


def _fit_headed(spec: ClipLoraSpec, fitting: Fitting, learner: LoraLearner) -> HeadedAdapter:
    """Train the factors of the image tower together with a linear head."""
    backbone, head = fitting.backbone, new_head(fitting)

    def step_loss(pixels: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy over the head's classes."""
        return F.cross_entropy(head(_images(learner, backbone, pixels)), targets)

    return headed(_trained(spec, fitting, learner, step_loss, list(head.parameters())), head)


def _trained(
    spec: ClipLoraSpec, fitting: Fitting, learner: LoraLearner, step_loss: StepLoss, beside: Sequence[Tensor]
) -> ClipLoraAdapter:
    """Train the factors, and parameters `beside` them, by AdamW."""
    parameters = [*learner.parameters(), *beside]
    optimizer = torch.optim.AdamW(parameters, lr=spec.lr, weight_decay=spec.weight_decay, betas=(0.9, 0.999))
    plan = cosine_plan(optimizer, spec.iterations_per_shot * fitting.task.shots, spec.batch_size, spec.min_lr)
    training = train(plan, step_loss, fitting.backbone, fitting.task, name=spec.name, progress=fitting.progress)
    training["n_parameters"] = sum(parameter.numel() for parameter in parameters)
    return ClipLoraAdapter(spec, fitting.card | {"training": training}, learner.requires_grad_(False))


def restore_clip_lora(spec: ClipLoraSpec, stored: Stored) -> ClipLoraAdapter | HeadedAdapter:
    """The adapter of a card and its tensors."""

    def factors(stored: Stored) -> ClipLoraAdapter:
        """The factors of the towers that learn."""
        return _restore_factors(spec, stored)

    return factors(stored) if stored.backbone.has_text else restore_headed(stored, factors)


def _restore_factors(spec: ClipLoraSpec, stored: Stored) -> ClipLoraAdapter:
    """The adapter whose tensors must be those of these towers, widths and rank."""
    learner = new_lora(spec, stored.backbone, seed=0)
    expected = {name: tuple(value.shape) for name, value in learner.state_dict().items()}
    require_tensors(stored.tensors, expected, stored.source)
    learner.load_state_dict(stored.tensors, strict=True)
    return ClipLoraAdapter(spec, stored.card, learner.requires_grad_(False))


def _images(learner: LoraLearner, backbone: Backbone, pixels: Tensor) -> Tensor:
    """Image features (not normalised) with the current factors; without gradients when the tower does not learn."""
    with trained(*learner.image_side(backbone)), torch.set_grad_enabled(len(learner.image) > 0):
        return backbone.encode_image(pixels)
