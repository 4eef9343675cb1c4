"""Cut an image tower at a block: one description of the towers of open_clip, and the two halves of a forward.

The lower half is the tower's own forward, stopped by a hook behind the deepest block that is asked for. The upper
half calls the remaining blocks, the final norm and the pooling as the tower's forward does. Every module is called
through its hooks, so both halves follow an adapted tower whose prompts are installed as module hooks, and on a plain
tower the two halves together give the same bits as one forward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from timm.models.vision_transformer import VisionTransformer as TimmVisionTransformer
from torch import Tensor, nn

from conceptbench.errors import ConceptBenchError


@dataclass(frozen=True)
class Tower:
    """An image tower, described by the parts that hooks and cuts need."""

    visual: nn.Module
    """The whole tower: pixels -> image features."""
    blocks: tuple[nn.Module, ...]
    """Transformer blocks in order; each takes and returns [image, token, feature]."""
    pre_norm: nn.Module
    """Called on the embedded tokens just before the first block."""
    post_norm: nn.Module
    """Called on the tokens just after the last block."""
    n_prefix: int
    """Prefix tokens (CLS, registers); they come first."""
    grid: tuple[int, int]
    """Patches: rows, columns."""
    width: int
    """Features of a token."""
    call_block: Callable[[nn.Module, Tensor], Tensor]
    """Calls one block as the tower's forward does."""
    finish: Callable[[Tensor], Tensor]
    """Tokens after the last block -> image features: norm, pooling, projection."""

    @property
    def n_own_tokens(self) -> int:
        """Prefix and patch tokens of one image, without the prompts of an adaptation."""
        return self.n_prefix + self.grid[0] * self.grid[1]


class _ReachedDeepest(Exception):
    """Ends a forward behind the deepest block asked for."""


def describe_tower(visual: nn.Module, name: str) -> Tower:
    """The `Tower` of an open_clip image tower; `name` is used in the error only.

    Raises ConceptBenchError for towers without plain transformer blocks (ResNets, rotary EVA trunks, CoCa).
    """
    if isinstance(visual, VisionTransformer) and not visual.output_tokens and visual.attn_pool is None:
        return _describe_native(visual)
    if isinstance(visual, TimmModel):
        trunk = visual.trunk
        plain = TimmVisionTransformer.forward_features
        if isinstance(trunk, TimmVisionTransformer) and type(trunk).forward_features is plain:
            return _describe_timm(visual, trunk)
    kind = type(getattr(visual, "trunk", visual)).__name__
    raise ConceptBenchError(
        f"{name}: its image tower ({kind}) is not a plain vision transformer, so it cannot be cut at a block; "
        "use a ViT of open_clip or timm."
    )


def _describe_native(visual: Any) -> Tower:
    """open_clip's own VisionTransformer: one class token, `transformer.resblocks`."""

    def call_block(block: nn.Module, tokens: Tensor) -> Tensor:
        output: Tensor = block(tokens, attn_mask=None)
        return output

    def finish(tokens: Tensor) -> Tensor:
        pooled: Tensor = visual._pool(tokens)[0]
        return pooled if visual.proj is None else pooled @ visual.proj

    return Tower(
        visual=visual,
        blocks=tuple(visual.transformer.resblocks),
        pre_norm=visual.ln_pre,
        post_norm=visual.ln_post,
        n_prefix=1,
        grid=(int(visual.grid_size[0]), int(visual.grid_size[1])),
        width=int(visual.transformer.width),
        call_block=call_block,
        finish=finish,
    )


def _describe_timm(visual: Any, trunk: Any) -> Tower:
    """A timm VisionTransformer inside open_clip's TimmModel, as SigLIP uses it."""

    def call_block(block: nn.Module, tokens: Tensor) -> Tensor:
        output: Tensor = block(tokens)
        return output

    def finish(tokens: Tensor) -> Tensor:
        features: Tensor = visual.head(trunk.forward_head(trunk.norm(tokens)))
        return features

    return Tower(
        visual=visual,
        blocks=tuple(trunk.blocks),
        pre_norm=trunk.norm_pre,
        post_norm=trunk.norm,
        n_prefix=int(trunk.num_prefix_tokens),
        grid=(int(trunk.patch_embed.grid_size[0]), int(trunk.patch_embed.grid_size[1])),
        width=int(trunk.embed_dim),
        call_block=call_block,
        finish=finish,
    )


def tokens_at(
    tower: Tower, pixels: Float[Tensor, "image 3 height width"], blocks: Sequence[int]
) -> dict[int, Float[Tensor, "image token feature"]]:
    """Outputs of `blocks` in one pass that stops behind the deepest of them.

    With prompts installed the prompt tokens are part of the result, at the end of the token axis.
    """
    if not blocks:
        return {}
    deepest = max(blocks)
    recorded: dict[int, Tensor] = {}

    def recorder(block: int) -> Callable[[nn.Module, Any, Tensor], None]:
        def record(_module: nn.Module, _arguments: Any, output: Tensor) -> None:
            recorded[block] = output
            if block == deepest:
                raise _ReachedDeepest

        return record

    with ExitStack() as hooks:
        for block in set(blocks):
            handle = tower.blocks[block].register_forward_hook(recorder(block))
            hooks.callback(handle.remove)
        hooks.enter_context(suppress(_ReachedDeepest))
        tower.visual(pixels)
    return {block: recorded[block] for block in blocks}


def features_from(
    tower: Tower, tokens: Float[Tensor, "image token feature"], block: int
) -> Float[Tensor, "image embedding"]:
    """Image features of the output of `block`: only the blocks above it, the final norm and the pooling run."""
    for module in tower.blocks[block + 1 :]:
        tokens = tower.call_block(module, tokens)
    return tower.finish(tokens)


def require_block(block: int, n_blocks: int, name: str) -> None:
    """Raise ConceptBenchError unless `block` is the 0-based number of one of the `n_blocks` blocks."""
    if not 0 <= block < n_blocks:
        raise ConceptBenchError(
            f"Block {block} is out of range: backbone {name} has blocks 0 to {n_blocks - 1}; "
            "correct the hook points in the configuration."
        )


def require_dtype(values: Tensor, dtype: torch.dtype, what: str, name: str) -> None:
    """Raise ConceptBenchError unless `values` has the backbone's dtype, or autocast takes care of it."""
    if values.dtype != dtype and not torch.is_autocast_enabled(values.device.type):
        raise ConceptBenchError(
            f"Backbone {name} computes in {_plain(dtype)} but the {what} are {_plain(values.dtype)}; "
            f"convert them first (.to({dtype}))."
        )


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
