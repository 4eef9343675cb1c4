"""A loaded backbone: its facts, its two encoders, and the two halves of its image tower."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from conceptbench.backbones.cut import describe_tower, features_from, require_block, require_dtype, tokens_at
from conceptbench.backbones.preprocess import Preprocess
from conceptbench.errors import ConceptBenchError

Tokenizer = Callable[[list[str]], Tensor]
"""Texts -> token ids [text, position]."""


def inference() -> torch.no_grad:
    """Context in which no gradients are recorded. Callers choose it; the methods of `Backbone` never do."""
    return torch.no_grad()


class Backbone:
    """A pretrained open_clip model in evaluation mode with frozen weights.

    Methods follow the module hooks that are installed when they are called, so an adapted model is the same object
    inside the adapter's context. None of them switches gradients off: the weights ask for none, and tensors that do
    (prompts, edited tokens) get theirs.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        name: str,
        digest: str,
        model_config: Mapping[str, Any],
        preprocess_config: Mapping[str, Any],
        make_tokenizer: Callable[[], Tokenizer],
        has_text: bool = True,
        merges: Path | None = None,
        tokenizer_files: Path | None = None,
    ) -> None:
        """Describe `model`; `load_backbone` is the usual way to get one.

        Raises ConceptBenchError when the image tower cannot be cut or takes images that are not square.
        """
        visual = model.get_submodule("visual")
        self.tower = describe_tower(visual, name)
        self.preprocess_images = Preprocess(preprocess_config)
        height, width = self.preprocess_images.size
        if height != width:
            raise ConceptBenchError(f"{name}: takes {height} x {width} images; only square images are supported.")
        self.model: Any = model.eval().requires_grad_(False)
        self.name = name
        self.digest = digest
        self.model_config = dict(model_config)
        self.preprocess_config: dict[str, Any] = self.preprocess_images.config
        self.has_text = has_text
        self.merges = merges
        self.tokenizer_files = tokenizer_files
        self.image_size = height
        self.embed_dim = int(model_config["embed_dim"])
        self._make_tokenizer = make_tokenizer

    def __repr__(self) -> str:
        """Name, size and the first digits of the digest."""
        rows, columns = self.grid
        tokens = f"{self.n_prefix} + {rows} x {columns} tokens"
        return f"Backbone({self.name}: {self.n_blocks} blocks, {tokens} of width {self.width}, {self.digest[:12]})"

    @property
    def n_blocks(self) -> int:
        """Number of transformer blocks of the image tower."""
        return len(self.tower.blocks)

    @property
    def width(self) -> int:
        """Features of an image token."""
        return self.tower.width

    @property
    def n_prefix(self) -> int:
        """Prefix tokens (CLS, registers), which come before the patch tokens."""
        return self.tower.n_prefix

    @property
    def grid(self) -> tuple[int, int]:
        """Patch tokens: rows, columns."""
        return self.tower.grid

    @property
    def n_tokens(self) -> int:
        """Prefix and patch tokens of one image; prompts of an adaptation are not counted."""
        return self.tower.n_own_tokens

    @property
    def vision_blocks(self) -> list[nn.Module]:
        """Transformer blocks of the image tower, in order."""
        return list(self.tower.blocks)

    @property
    def pre_norm(self) -> nn.Module:
        """Module called on the embedded tokens before the first block (`ln_pre` or `trunk.norm_pre`)."""
        return self.tower.pre_norm

    @property
    def post_norm(self) -> nn.Module:
        """Module called on the tokens after the last block (`ln_post` or `trunk.norm`)."""
        return self.tower.post_norm

    @property
    def text(self) -> Any:
        """Module that holds token_embedding, positional_embedding, transformer, ln_final and text_projection."""
        self._require_text()
        return self.model.text if hasattr(self.model, "text") else self.model

    @property
    def logit_scale(self) -> float:
        """Factor of the cosine similarity in the logits, exp(the model's parameter): 100 for OpenAI's models."""
        return float(self.model.logit_scale.detach().exp())

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        device: torch.device = self.model.logit_scale.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the image tower."""
        return next(self.tower.visual.parameters()).dtype

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The model's tokenizer, made on first use: an image-only use never needs its files."""
        self._require_text()
        return self._make_tokenizer()

    def preprocess(
        self, images: UInt8[np.ndarray, "image height width 3"] | Sequence[Image.Image]
    ) -> Float[Tensor, "image 3 size size"]:
        """Pixels of PIL images or of one uint8 array, on the CPU, by the model's own preprocessing."""
        return self.preprocess_images(images)

    def tokenize(self, texts: Sequence[str]) -> Int[Tensor, "text position"]:
        """Token ids of `texts`, on the CPU."""
        return self.tokenizer(list(texts))

    def tokens(
        self, pixels: Float[Tensor, "image 3 size size"], blocks: Sequence[int]
    ) -> dict[int, Float[Tensor, "image token feature"]]:
        """Outputs of `blocks` in one pass that stops after the deepest.

        Prompts of an installed adaptation are part of the result, at the end (see `split_prompts`). The tensors are
        those that flow through the tower: change a copy, not them.
        """
        for block in blocks:
            require_block(block, self.n_blocks, self.name)
        return tokens_at(self.tower, self._pixels(pixels), blocks)

    def lower(self, pixels: Float[Tensor, "image 3 size size"], block: int) -> Float[Tensor, "image token feature"]:
        """Output of `block`; no later block runs."""
        return self.tokens(pixels, [block])[block]

    def upper(self, tokens: Float[Tensor, "image token feature"], block: int) -> Float[Tensor, "image embedding"]:
        """Image features (not normalised) of the output of `block`; only the blocks above it run.

        `upper(lower(pixels, block), block)` has the bits of `encode_image(pixels)`, both with gradients or both
        without: torch's attention rounds differently when a gradient is asked for.
        """
        require_block(block, self.n_blocks, self.name)
        require_dtype(tokens, self.dtype, "tokens", self.name)
        if tokens.ndim != 3 or tokens.shape[2] != self.width or tokens.shape[1] < self.n_tokens:
            raise ConceptBenchError(
                f"Backbone {self.name} takes tokens [image, {self.n_tokens} or more, {self.width}], not "
                f"{list(tokens.shape)}; use the activations of this backbone."
            )
        return features_from(self.tower, tokens.to(self.device), block)

    def split_prompts(
        self, tokens: Float[Tensor, "image token feature"]
    ) -> tuple[Float[Tensor, "image own feature"], Float[Tensor, "image prompt feature"]]:
        """Prefix and patch tokens, and the prompt tokens behind them (none on a plain model)."""
        return tokens[:, : self.n_tokens], tokens[:, self.n_tokens :]

    def encode_image(self, pixels: Float[Tensor, "image 3 size size"]) -> Float[Tensor, "image embedding"]:
        """Image features of the plain forward, not normalised."""
        features: Tensor = self.model.encode_image(self._pixels(pixels))
        return features

    def encode_text(self, ids: Int[Tensor, "text position"]) -> Float[Tensor, "text embedding"]:
        """Text features of token ids, not normalised."""
        self._require_text()
        features: Tensor = self.model.encode_text(ids.to(self.device))
        return features

    def embed_images(
        self, pixels: Float[Tensor, "image 3 size size"], batch_size: int = 256
    ) -> Float[Tensor, "image embedding"]:
        """L2-normalised image features, computed `batch_size` images at a time."""
        parts = [F.normalize(self.encode_image(part), dim=-1) for part in _batches(pixels, batch_size)]
        return torch.cat(parts)

    def embed_text(self, texts: Sequence[str], batch_size: int = 256) -> Float[Tensor, "text embedding"]:
        """L2-normalised text features, computed `batch_size` texts at a time."""
        parts = [F.normalize(self.encode_text(part), dim=-1) for part in _batches(self.tokenize(texts), batch_size)]
        return torch.cat(parts)

    def _pixels(self, pixels: Tensor) -> Tensor:
        """`pixels` on the model's device, after a check of their shape and dtype."""
        require_dtype(pixels, self.dtype, "pixels", self.name)
        expected = [3, self.image_size, self.image_size]
        if list(pixels.shape[1:]) != expected:
            raise ConceptBenchError(
                f"Backbone {self.name} takes pixels [image, {', '.join(map(str, expected))}], not "
                f"{list(pixels.shape)}; pass images through its preprocess."
            )
        return pixels.to(self.device)

    def _require_text(self) -> None:
        if not self.has_text:
            raise ConceptBenchError(f"Backbone {self.name} has no text tower; use a CLIP-like backbone for texts.")


def _batches(values: Tensor, size: int) -> list[Tensor]:
    """`values` in pieces of at most `size` rows; one empty piece when there are none."""
    return [values[start : start + size] for start in range(0, max(len(values), 1), size)]
