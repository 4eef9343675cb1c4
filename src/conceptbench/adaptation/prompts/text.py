"""Classes as text: prompts to tokens, tokens to features, without computing padding that nothing can see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from jaxtyping import Float, Int
from open_clip.transformer import text_global_pool
from torch import Tensor, nn

from conceptbench.adaptation.prompts.hooks import text_offset, text_tower
from conceptbench.errors import ConceptBenchError

if TYPE_CHECKING:
    from conceptbench.backbones import Backbone


def plain_name(class_name: str) -> str:
    """A class name as it is written in a prompt."""
    return class_name.replace("_", " ")


def context_prompts(context: str, n_ctx: int, class_names: Sequence[str]) -> list[str]:
    """One prompt per class, `<context> <class>.`; without a context, `n_ctx` placeholders stand in its place."""
    before = context or " ".join(["X"] * n_ctx)
    return [f"{before} {plain_name(name)}." for name in class_names]


def require_distinct(backbone: Backbone, prompts: Sequence[str], tokens: Int[Tensor, "text token"]) -> None:
    """Raise ConceptBenchError when two different prompts have the same tokens: they were cut before the class name."""
    first: dict[tuple[int, ...], str] = {}
    for prompt, ids in zip(prompts, tokens.tolist(), strict=True):
        other = first.setdefault(tuple(ids), prompt)
        if other != prompt:
            raise ConceptBenchError(
                f"the prompts {other!r} and {prompt!r} are the same {tokens.shape[1]} tokens to backbone "
                f"{backbone.name!r}, which cuts longer texts; shorten the context or the template."
            )


def prompt_tokens(backbone: Backbone, prompts: Sequence[str]) -> Int[Tensor, "text token"]:
    """Tokens of the prompts, one for each class, on the backbone's device.

    Raises ConceptBenchError when the backbone has no text tower or cannot tell two of the prompts apart.
    """
    text_tower(backbone)
    tokens = backbone.tokenize(prompts)
    require_distinct(backbone, prompts, tokens)
    return tokens.to(backbone.device)


def template_prompts(template: str, class_names: Sequence[str]) -> list[str]:
    """One prompt per class, the name in the place of `{}`."""
    return [template.replace("{}", plain_name(name)) for name in class_names]


def context_tokens(backbone: Backbone, context: str, n_ctx: int) -> Int[Tensor, " prompt"]:
    """The ids of the first `n_ctx` tokens of `context`: those whose embeddings become learnable.

    Raises ConceptBenchError when the context is shorter, since the class name would be overwritten.
    """
    start = text_offset(backbone)
    ids = backbone.tokenize([f"{context} a", f"{context} the"])
    n_context = int((ids[0] != ids[1]).int().argmax()) - start
    if n_ctx > n_context:
        raise ConceptBenchError(
            f"n_ctx is {n_ctx} but the context {context!r} has {n_context} tokens in the vocabulary of backbone "
            f"{backbone.name!r}, so the class name would be overwritten; lower n_ctx or lengthen the context."
        )
    return ids[0, start : start + n_ctx]


def encode_tokens(backbone: Backbone, tokens: Int[Tensor, "text token"]) -> Float[Tensor, "text embed"]:
    """Text features of `tokens` (not normalised), with gradients to whatever hooks put into the tower.

    In a causal tower no position sees a later one, so what stands behind the last pooled position is left out; the
    features are the same up to the rounding of differently shaped products. A bidirectional tower runs in full.
    """
    tower = text_tower(backbone)
    pool = getattr(tower, "text_pool_type", None) or tower.pool_type
    if getattr(tower, "attn_mask", None) is None or getattr(tower, "cls_emb", None) is not None or pool != "argmax":
        return backbone.encode_text(tokens)
    return _encode_causal(tower, tokens[:, : int(tokens.argmax(dim=-1).max()) + 1])


def _encode_causal(tower: Any, tokens: Tensor) -> Tensor:
    """The forward pass of a causal text tower that pools at the end-of-text token, for sequences of any length."""
    length, dtype = tokens.shape[1], tower.transformer.get_cast_dtype()
    x = tower.token_embedding(tokens).to(dtype) + tower.positional_embedding[:length].to(dtype)
    x = tower.transformer(x, attn_mask=tower.attn_mask[:length, :length])
    pooled: Tensor = text_global_pool(tower.ln_final(x), tokens, "argmax")
    if tower.text_projection is None:
        return pooled
    projection = tower.text_projection
    projected: Tensor = projection(pooled) if isinstance(projection, nn.Linear) else pooled @ projection
    return projected
