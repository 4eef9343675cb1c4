"""Low-rank changes of the input projections of attention layers, inside a context that leaves no trace.

While a learner is trained its factors act beside the frozen weights, with dropout on their input; everywhere else the
product of the factors is added to the weights, so that an adapted model costs no more than a plain one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from conceptbench.adaptation.attention import SelfAttention, is_stacked, torch_attention
from conceptbench.adaptation.specs.lora import PROJECTIONS, ClipLoraSpec
from conceptbench.errors import ConceptBenchError


class LowRank(nn.Module):
    """The factors of one attention layer: `up` [width, rank] and `down` [rank, width] for each chosen projection."""

    def __init__(self, width: int, spec: ClipLoraSpec) -> None:
        """Start with a random `down` (as torch's linear layers start) and `up` zero: no change."""
        super().__init__()
        n = len(spec.projections)
        bound = 1 / math.sqrt(width)
        self.down = nn.Parameter(torch.empty(n, spec.rank, width).uniform_(-bound, bound))
        self.up = nn.Parameter(torch.zeros(n, width, spec.rank))
        self.places = [PROJECTIONS.index(projection) for projection in spec.projections]
        self.scale = spec.alpha / math.sqrt(spec.rank)
        self.dropout = spec.dropout

    def change(self) -> Float[Tensor, "3*width width"]:
        """What is added to the stacked q, k and v weights."""
        products: dict[int, Tensor] = dict(zip(self.places, self.scale * self.up @ self.down, strict=True))
        width = self.down.shape[2]
        zero = self.down.new_zeros(width, width)
        return torch.cat([products.get(place, zero) for place in range(len(PROJECTIONS))])

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch 3*width"]:
        """What is added to the stacked outputs; every projection drops other inputs."""
        zero = x.new_zeros(x.shape)
        parts = {
            place: self.scale * F.dropout(x, self.dropout) @ self.down[i].T @ self.up[i].T
            for i, place in enumerate(self.places)
        }
        return torch.cat([parts.get(place, zero) for place in range(len(PROJECTIONS))], dim=-1)


class TrainedProjection(nn.Module):
    """A frozen linear layer for stacked q, k and v, with factors beside it (timm)."""

    def __init__(self, linear: nn.Linear, factors: LowRank) -> None:
        super().__init__()
        self.linear, self.factors = linear, factors

    def forward(self, x: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch 3*width"]:
        """The stacked projections."""
        projected: Tensor = self.linear(x) + self.factors(x)
        return projected


class TrainedAttention(SelfAttention):
    """A frozen attention layer with factors beside its weights (open_clip)."""

    def __init__(self, attention: nn.MultiheadAttention, factors: LowRank) -> None:
        super().__init__(attention)
        self.factors = factors

    def project(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token 3*width"]:
        """The stacked projections."""
        projected: Tensor = super().project(x) + self.factors(x)
        return projected


def attention_width(block: Any, where: str) -> int:
    """Width of the attention layer of a transformer block of open_clip or timm.

    Raises ConceptBenchError for layers whose q, k and v are not stacked in one square weight each; `where` names it.
    """
    attention = torch_attention(block)
    if is_stacked(attention):
        return int(attention.embed_dim)
    qkv = getattr(attention, "qkv", None)
    if isinstance(qkv, nn.Linear) and qkv.out_features == 3 * qkv.in_features:
        return int(qkv.in_features)
    raise ConceptBenchError(
        f"clip-lora cannot change the attention ({type(attention).__name__}) of {where}, whose q, k and v are not one "
        "stacked weight; use a prompt method for this backbone."
    )


@contextmanager
def merged(blocks: Sequence[Any], factors: Sequence[LowRank]) -> Iterator[None]:
    """Inside it the blocks have the changed weights; afterwards they have their own tensors back."""
    with ExitStack() as undo:
        for block, low_rank in zip(blocks, factors, strict=True):
            module, name = _weight(block)
            plain = getattr(module, name)
            with torch.no_grad():
                changed = nn.Parameter(plain + low_rank.change().to(plain), requires_grad=False)
            undo.callback(setattr, module, name, plain)
            setattr(module, name, changed)
        yield


@contextmanager
def trained(blocks: Sequence[Any], factors: Sequence[LowRank]) -> Iterator[None]:
    """Inside it the factors act beside the frozen weights, with dropout, and get gradients."""
    with ExitStack() as undo:
        for block, low_rank in zip(blocks, factors, strict=True):
            attention = torch_attention(block)
            if is_stacked(attention):
                undo.callback(setattr, block, "attn", block.attn)
                block.attn = TrainedAttention(attention, low_rank)
            else:
                undo.callback(setattr, attention, "qkv", attention.qkv)
                attention.qkv = TrainedProjection(attention.qkv, low_rank)
        yield


def _weight(block: Any) -> tuple[Any, str]:
    """The module and the name of the stacked weight of a block."""
    attention = torch_attention(block)
    if is_stacked(attention):
        return attention, "in_proj_weight"
    return attention.qkv, "weight"
