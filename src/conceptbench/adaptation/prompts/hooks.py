"""Learned tokens inserted into the towers of an open_clip model by module hooks.

Each context manager takes one tensor per position: the first enters the tower with its embeddings (shallow), tensor i
replaces the same tokens at the input of block i (deep); after the last position the tokens flow on. Positions and
replacement follow MaPLe (Khattak et al. 2023); text prompts alone give CoOp, image prompts alone VPT. No positions
leave a tower as it is.
Leaving the context removes every hook, also after an error, and the model is bit for bit what it was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from conceptbench.errors import ConceptBenchError

if TYPE_CHECKING:
    from conceptbench.backbones import Backbone

Prompts = Sequence[Float[Tensor, "*text prompt feature"]]
"""One tensor per position; text prompts may differ between the texts of a batch and then have an axis for them."""


@contextmanager
def prompted(backbone: Backbone, image: Prompts, text: Prompts) -> Iterator[None]:
    """Image and text prompts together."""
    with image_prompts(backbone, image), text_prompts(backbone, text):
        yield


@contextmanager
def text_prompts(backbone: Backbone, prompts: Prompts) -> Iterator[None]:
    """Put `prompts` in the places of the first context tokens of every text.

    The shallow prompt replaces token embeddings, so the positional embedding is added to it; the deep ones replace
    what the previous block wrote there and get none.
    """
    if not prompts:
        yield
        return
    start, tower = text_offset(backbone), text_tower(backbone)
    require_blocks(backbone, "text", len(prompts), len(text_blocks(backbone)))
    with ExitStack() as hooks:
        shallow = tower.token_embedding.register_forward_hook(_overwriting_output(prompts[0], start))
        hooks.callback(shallow.remove)
        for block, prompt in list(zip(text_blocks(backbone), prompts, strict=False))[1:]:
            deep = block.register_forward_pre_hook(_overwriting_input(prompt, start))
            hooks.callback(deep.remove)
        yield


@contextmanager
def image_prompts(backbone: Backbone, prompts: Prompts) -> Iterator[None]:
    """Append `prompts` to the tokens of every image, and drop them again before the final norm.

    The shallow prompt comes after the positional embedding and before the norm in front of the blocks, so it passes
    that norm and has no position. Pooling never sees a prompt. Tokens recorded at a block carry the prompts as their
    last tokens; a block with a deep prompt also accepts tokens from which they were cut.
    """
    if not prompts:
        yield
        return
    _require_token_pooling(backbone)
    require_blocks(backbone, "image", len(prompts), len(backbone.vision_blocks))
    n_plain = backbone.n_tokens
    with ExitStack() as hooks:
        shallow = backbone.pre_norm.register_forward_pre_hook(_appending_input(prompts[0], n_plain))
        hooks.callback(shallow.remove)
        for block, prompt in list(zip(backbone.vision_blocks, prompts, strict=False))[1:]:
            deep = block.register_forward_pre_hook(_appending_input(prompt, n_plain, replace=True))
            hooks.callback(deep.remove)
        drop = backbone.post_norm.register_forward_pre_hook(_dropping_input(len(prompts[0]), n_plain))
        hooks.callback(drop.remove)
        yield


def text_tower(backbone: Backbone) -> Any:
    """The module that holds the text parts.

    Raises ConceptBenchError when the backbone has none.
    """
    tower = backbone.text if backbone.has_text else None
    if tower is None or not hasattr(tower, "token_embedding"):
        others = "linear-probe" if backbone.has_text else "linear-probe, vpt-deep or clip-lora (towers: image)"
        raise ConceptBenchError(
            f"backbone {backbone.name!r} has no open_clip text tower, which this adaptation needs; "
            f"use {others}, or another backbone."
        )
    return tower


def text_blocks(backbone: Backbone) -> list[nn.Module]:
    """The blocks of the text tower, in order."""
    return list(text_tower(backbone).transformer.resblocks)


def text_offset(backbone: Backbone) -> int:
    """Position of the first context token: 1 after a start token (CLIP), 0 where texts begin at once (SigLIP)."""
    first = backbone.tokenize(["a", "the"])[:, 0]
    return int(first[0] == first[1])


def require_blocks(backbone: Backbone, tower: str, depth: int, n_blocks: int) -> None:
    """Raise ConceptBenchError unless `tower` has a block for each of `depth` positions."""
    if depth > n_blocks:
        raise ConceptBenchError(
            f"prompts at {depth} positions need {depth} blocks, but the {tower} tower of backbone {backbone.name!r} "
            f"has {n_blocks}; lower the adaptation's depth to at most {n_blocks}."
        )


def _overwriting_output(prompt: Tensor, start: int) -> Callable[[nn.Module, Any, Tensor], Tensor]:
    """Forward hook: `prompt` in place of the tokens from `start` on."""

    def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return _overwrite(output, prompt, start)

    return hook


def _overwriting_input(prompt: Tensor, start: int) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    """Forward pre-hook: `prompt` in place of the tokens from `start` on."""

    def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        return (_overwrite(inputs[0], prompt, start), *inputs[1:])

    return hook


def _appending_input(
    prompt: Tensor, n_plain: int, *, replace: bool = False
) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    """Forward pre-hook: `prompt` after the `n_plain` tokens of the image, or in place of the prompts already there."""
    accepted = (n_plain, n_plain + len(prompt)) if replace else (n_plain,)

    def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        _require_tokens(inputs[0], accepted)
        return (_append(inputs[0][:, :n_plain], prompt), *inputs[1:])

    return hook


def _dropping_input(n_prompts: int, n_plain: int) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    """Forward pre-hook: only the `n_plain` tokens of the image."""

    def hook(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
        _require_tokens(inputs[0], (n_plain + n_prompts,))
        return (inputs[0][:, :n_plain], *inputs[1:])

    return hook


def _overwrite(tokens: Tensor, prompt: Tensor, start: int) -> Tensor:
    """`tokens` [batch, token, feature] with `prompt` in the places from `start` on; a new tensor, so that gradients
    reach the prompt."""
    batch = prompt.to(tokens.dtype).expand(len(tokens), -1, -1)
    return torch.cat([tokens[:, :start], batch, tokens[:, start + prompt.shape[-2] :]], dim=1)


def _append(tokens: Tensor, prompt: Tensor) -> Tensor:
    """`tokens` [batch, token, feature] followed by `prompt`."""
    return torch.cat([tokens, prompt.to(tokens.dtype).expand(len(tokens), -1, -1)], dim=1)


def _require_tokens(tokens: Tensor, accepted: tuple[int, ...]) -> None:
    """Raise ConceptBenchError when the number of tokens shows prompts installed twice or cut off too late."""
    if tokens.ndim != 3 or tokens.shape[1] not in accepted:
        raise ConceptBenchError(
            f"an image tower with prompts expects {' or '.join(map(str, accepted))} tokens here but got shape "
            f"{tuple(tokens.shape)}; install one set of prompts at a time and keep the prompt tokens between blocks."
        )


def _require_token_pooling(backbone: Backbone) -> None:
    """Raise ConceptBenchError for towers that pool before their final norm, where prompts could not be dropped."""
    visual = getattr(backbone.model, "visual", None)
    if getattr(visual, "attn_pool", None) is not None or getattr(visual, "final_ln_after_pool", False):
        raise ConceptBenchError(
            f"the image tower of backbone {backbone.name!r} pools its tokens before the final norm, so prompts cannot "
            "be kept out of the pooling; use a backbone with token or average pooling after the norm."
        )
