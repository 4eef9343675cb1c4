"""MaPLe: multi-modal prompt learning (Khattak et al. 2023), by hooks on any open_clip model with blocks and text.

Learned are the text prompts of `depth` positions and, per position, a linear coupling that turns the text prompt into
the image prompt. The shallow text prompt starts from the embeddings of the context's first words, which it replaces;
the rest of the context stays. All else in the model is frozen. Trained in float32, where the original used float16.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from conceptbench.adaptation.adapter import Adapter, cosine_logits
from conceptbench.adaptation.engine import seeded, train
from conceptbench.adaptation.prompts.hooks import (
    image_prompts,
    require_blocks,
    text_blocks,
    text_prompts,
    text_tower,
)
from conceptbench.adaptation.prompts.text import context_prompts, context_tokens, encode_tokens
from conceptbench.adaptation.specs import MapleSpec
from conceptbench.adaptation.storage import require_tensors
from conceptbench.adaptation.tasks import Task
from conceptbench.seeds import torch_seed

if TYPE_CHECKING:
    from conceptbench.backbones import Backbone

PROMPT_STD = 0.02
"""Standard deviation of a random prompt's start."""


class MapleLearner(nn.Module):
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


@dataclass(frozen=True, eq=False)
class MapleAdapter(Adapter):
    """A trained learner."""

    spec: MapleSpec
    learner: MapleLearner

    def tensors(self) -> dict[str, Tensor]:
        """Prompts and couplings."""
        return dict(self.learner.state_dict())

    def image_context(self, backbone: Backbone) -> AbstractContextManager[None]:
        """Inside it the image tower carries the coupled prompts."""
        self.require_backbone(backbone)
        with torch.no_grad():
            return image_prompts(backbone, self.learner.image_prompts())

    def _encode_classes(self, backbone: Backbone, class_names: Sequence[str]) -> Float[Tensor, "class embed"]:
        tokens = class_tokens(self.spec, backbone, class_names)
        with text_prompts(backbone, self.learner.text_prompts()):
            return encode_tokens(backbone, tokens)


def class_tokens(spec: MapleSpec, backbone: Backbone, class_names: Sequence[str]) -> Tensor:
    """Tokens of the classes' prompts; the learned tokens take the places of the first `n_ctx` of the context."""
    return backbone.tokenize(context_prompts(spec.context, spec.n_ctx, class_names)).to(backbone.device)


def new_learner(spec: MapleSpec, backbone: Backbone, seed: int) -> MapleLearner:
    """An untrained learner for the backbone's widths, on its device.

    Raises ConceptBenchError when the backbone has no text tower, a tower is shallower than `depth`, or the context
    has fewer than `n_ctx` tokens.
    """
    tower = text_tower(backbone)
    require_blocks(backbone, "text", spec.depth, len(text_blocks(backbone)))
    require_blocks(backbone, "image", spec.depth, len(backbone.vision_blocks))
    before = context_prompts(spec.context, spec.n_ctx, [""])[0].rstrip(" .")
    ids = context_tokens(backbone, before, spec.n_ctx)
    embeddings = tower.token_embedding.weight
    with seeded(torch_seed(seed, "adaptation", spec.name, "start")):
        context = embeddings[ids.to(embeddings.device)].detach().cpu().float()
        if not spec.context:
            context = torch.randn_like(context) * PROMPT_STD
        return MapleLearner(context, spec.depth, backbone.width).to(backbone.device)


def maple_loss(
    learner: MapleLearner, backbone: Backbone, tokens: Tensor, pixels: Tensor, targets: Tensor
) -> Float[Tensor, ""]:
    """Cross-entropy of images over the classes of `tokens`, both sides recomputed with the current prompts."""
    with text_prompts(backbone, learner.text_prompts()):
        texts = F.normalize(encode_tokens(backbone, tokens), dim=-1)
    with image_prompts(backbone, learner.image_prompts()):
        features = backbone.encode_image(pixels)
    return F.cross_entropy(cosine_logits(backbone, features, texts), targets)


def fit_maple(spec: MapleSpec, backbone: Backbone, task: Task, card: dict[str, Any], progress: bool) -> MapleAdapter:
    """Train MaPLe on the task's classes.

    Raises ConceptBenchError as `new_learner` does, and for a loss that is not finite.
    """
    learner = new_learner(spec, backbone, task.seed)
    tokens = class_tokens(spec, backbone, task.class_names)
    training = train(
        list(learner.parameters()),
        lambda pixels, targets: maple_loss(learner, backbone, tokens, pixels, targets),
        backbone,
        task,
        spec,
        name=spec.name,
        progress=progress,
    )
    training["n_parameters"] = sum(parameter.numel() for parameter in learner.parameters())
    return MapleAdapter(spec, card | {"training": training}, learner.requires_grad_(False))


def restore_maple(
    spec: MapleSpec, backbone: Backbone, card: dict[str, Any], tensors: dict[str, Tensor], source: str
) -> MapleAdapter:
    """The adapter of a card and its tensors, which must be those of this depth and these widths."""
    learner = new_learner(spec, backbone, seed=0)
    require_tensors(tensors, {name: tuple(value.shape) for name, value in learner.state_dict().items()}, source)
    learner.load_state_dict(tensors, strict=True)
    return MapleAdapter(spec, card, learner.requires_grad_(False))
