"""Learned prompts of two towers, and how they start."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from conceptbench.adaptation.prompts.hooks import text_tower
from conceptbench.adaptation.prompts.text import context_prompts, context_tokens

if TYPE_CHECKING:
    from conceptbench.backbones import Backbone

PROMPT_STD = 0.02
"""Standard deviation of a random prompt's start."""


class PromptLearner(ABC, nn.Module):
    """The learned tensors of a prompt method."""

    @abstractmethod
    def text_prompts(self) -> list[Tensor]:
        """The prompt of each position of the text tower; none leave it as it is."""

    @abstractmethod
    def image_prompts(self) -> list[Tensor]:
        """The prompt of each position of the image tower; none leave it as it is."""


class IndependentPrompts(PromptLearner):
    """Prompts of the two towers that have nothing to do with each other."""

    def __init__(self, text: Sequence[Tensor], image: Sequence[Tensor]) -> None:
        """Start from the given tensors [prompt, feature], one per position."""
        super().__init__()
        self.text = nn.ParameterList(nn.Parameter(prompt.detach().clone()) for prompt in text)
        self.image = nn.ParameterList(nn.Parameter(prompt.detach().clone()) for prompt in image)

    def text_prompts(self) -> list[Tensor]:
        """One per position."""
        return list(self.text)

    def image_prompts(self) -> list[Tensor]:
        """One per position."""
        return list(self.image)


def random_prompts(depth: int, n_prompts: int, width: int) -> list[Float[Tensor, "prompt feature"]]:
    """The start of `depth` prompts, drawn from torch's global stream."""
    return [torch.randn(n_prompts, width) * PROMPT_STD for _ in range(depth)]


def start_context(backbone: Backbone, context: str, n_ctx: int) -> Float[Tensor, "prompt text"]:
    """The start of the shallow text prompt, on the CPU: the embeddings of the context's first `n_ctx` tokens, or, when
    it is empty, a draw from torch's global stream.

    Raises ConceptBenchError when the backbone has no text tower or the context has fewer tokens than `n_ctx`.
    """
    embeddings = text_tower(backbone).token_embedding.weight
    if not context:
        return torch.randn(n_ctx, embeddings.shape[1]) * PROMPT_STD
    ids = context_tokens(backbone, context_prompts(context, n_ctx, [""])[0].rstrip(" ."), n_ctx)
    started: Tensor = embeddings[ids.to(embeddings.device)].detach().cpu().float()
    return started
