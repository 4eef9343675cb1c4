"""Self-attention on tokens as they lie in memory, in the place of torch's module while something is trained.

`nn.MultiheadAttention` with `batch_first` projects a transposed view. With a gradient torch then multiplies token by
token: as many small products as there are tokens, each reading the whole weight. One product over all tokens gives the
same numbers up to rounding. Outside training the models keep torch's module and their bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, TypeGuard

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class SelfAttention(nn.Module):
    """An `nn.MultiheadAttention` called with the same tokens as query, key and value, batch first."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        """Compute with the weights of `attention`."""
        super().__init__()
        self.attention = attention

    def project(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token 3*width"]:
        """Queries, keys and values, stacked."""
        return F.linear(x, self.attention.in_proj_weight, self.attention.in_proj_bias)

    def forward(
        self,
        x: Float[Tensor, "batch token width"],
        _key: Tensor,
        _value: Tensor,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """As `nn.MultiheadAttention`, without dropout; weights are never given."""
        own = self.attention
        stacked = self.project(x)
        heads = stacked.view(*stacked.shape[:2], 3, own.num_heads, own.head_dim).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(heads[0], heads[1], heads[2], attn_mask=attn_mask)
        output: Tensor = own.out_proj(mixed.transpose(1, 2).flatten(-2))
        return output, None


def torch_attention(block: Any) -> Any:
    """The attention layer of a block as the model has it, also inside `whole_products`."""
    attention = getattr(block, "attn", None)
    return attention.attention if isinstance(attention, SelfAttention) else attention


def is_stacked(attention: Any) -> TypeGuard[nn.MultiheadAttention]:
    """Whether it is an `nn.MultiheadAttention` whose q, k and v are one weight, batch first, that never drops."""
    return (
        isinstance(attention, nn.MultiheadAttention)
        and attention.batch_first
        and attention.in_proj_weight is not None
        and attention.bias_k is None
        and attention.dropout == 0
        and not attention.add_zero_attn
    )


@contextmanager
def whole_products(blocks: Sequence[Any]) -> Iterator[None]:
    """Inside it, attention layers of `blocks` that torch would compute token by token are computed at once."""
    with ExitStack() as undo:
        for block in blocks:
            attention = getattr(block, "attn", None)
            if is_stacked(attention):
                undo.callback(setattr, block, "attn", attention)
                block.attn = SelfAttention(attention)
        yield
