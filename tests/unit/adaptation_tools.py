"""Small backbones and data sets for the tests of adaptation: random weights, real structure."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import open_clip
import pandas as pd
import torch
from PIL import Image

from conceptbench.backbones import Backbone

PREPROCESS = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
    "fill_color": 0,
}
CLASSES = ("annual crop", "forest", "sea_lake", "highway", "river")


def clip_backbone(name: str = "small-clip", has_text: bool = True, seed: int = 0, context_length: int = 77) -> Backbone:
    """A CLIP with 4 image blocks of width 64 (17 tokens) and 3 text blocks of width 32, with OpenAI's vocabulary."""
    torch.manual_seed(seed)
    config = {
        "embed_dim": 24,
        "vision_cfg": {"image_size": 32, "layers": 4, "width": 64, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": context_length, "width": 32, "heads": 2, "layers": 3},
    }
    model = open_clip.model.CLIP(**config)
    with torch.no_grad():
        model.token_embedding.weight.mul_(10)
    tokenizer = open_clip.tokenizer.SimpleTokenizer(context_length=context_length)
    return Backbone(
        model,
        name=name,
        digest=f"{seed:064d}",
        model_config=config,
        preprocess_config=PREPROCESS | {"size": 32},
        make_tokenizer=lambda: tokenizer,
        has_text=has_text,
    )


def siglip_backbone() -> Backbone:
    """A SigLIP-like model: timm trunk with map pooling, bidirectional text of length 64 without a start token."""
    torch.manual_seed(0)
    config = {
        "embed_dim": 96,
        "init_logit_bias": -10,
        "vision_cfg": {"image_size": 160, "timm_model_name": "test_vit3", "timm_pool": "map", "timm_proj": "none"},
        "text_cfg": {
            "context_length": 64,
            "vocab_size": 49408,
            "width": 48,
            "heads": 2,
            "layers": 3,
            "no_causal_mask": True,
            "proj_bias": True,
            "pool_type": "last",
        },
    }
    tokenizer = open_clip.tokenizer.SimpleTokenizer(context_length=65)
    return Backbone(
        open_clip.model.CustomTextCLIP(**config),
        name="small-siglip",
        digest="5" * 64,
        model_config=config,
        preprocess_config=PREPROCESS | {"size": 160},
        make_tokenizer=lambda: lambda texts: tokenizer(texts)[:, 1:],
    )


def pixels(backbone: Backbone, n: int, seed: int = 1) -> torch.Tensor:
    """Random pixels of the backbone's size."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 3, backbone.image_size, backbone.image_size, generator=generator)


def explicit_clip_image(model: Any, x: torch.Tensor, prompts: list[torch.Tensor]) -> torch.Tensor:
    """A forward of a native image tower with prompts, written out without hooks."""
    visual, n = model.visual, len(prompts[0])
    x = visual.conv1(x).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1) + visual.positional_embedding
    x = visual.ln_pre(torch.cat([x, prompts[0].expand(len(x), -1, -1)], dim=1))
    for i, block in enumerate(visual.transformer.resblocks):
        if 0 < i < len(prompts):
            x = torch.cat([x[:, :-n], prompts[i].expand(len(x), -1, -1)], dim=1)
        x = block(x)
    return visual.ln_post(x[:, 0]) @ visual.proj


def explicit_clip_text(model: Any, tokens: torch.Tensor, prompts: list[torch.Tensor]) -> torch.Tensor:
    """A forward of a causal text tower with prompts after the start token, written out without hooks."""
    n = len(prompts[0])
    embedded = model.token_embedding(tokens)
    x = torch.cat([embedded[:, :1], prompts[0].expand(len(tokens), -1, -1), embedded[:, 1 + n :]], dim=1)
    x = x + model.positional_embedding[: tokens.shape[1]]
    mask = torch.full((tokens.shape[1], tokens.shape[1]), float("-inf")).triu(1)
    for i, block in enumerate(model.transformer.resblocks):
        if 0 < i < len(prompts):
            x = torch.cat([x[:, :1], prompts[i].expand(len(x), -1, -1), x[:, 1 + n :]], dim=1)
        x = block(x, attn_mask=mask)
    x = model.ln_final(x)
    ends = [(row == 49407).nonzero()[0, 0].item() for row in tokens]
    return torch.stack([x[i, end] for i, end in enumerate(ends)]) @ model.text_projection


@dataclass
class ColourDataset:
    """Noisy images of one hue per class, with the interface of `conceptbench.data.Dataset`."""

    train: int = 6
    val: int = 3
    test: int = 4
    name: str = "hues"
    classes: tuple[str, ...] = CLASSES
    card: dict[str, Any] = field(default_factory=dict)
    digest: str = "d" * 64
    size: int = 32

    def __post_init__(self) -> None:
        split = [name for name in ("train", "val", "test") for _ in range(getattr(self, name))]
        rows = [(label, part) for label in range(len(self.classes)) for part in split]
        self.manifest = pd.DataFrame(rows, columns=["label", "split"])
        self.manifest.insert(0, "image", np.arange(len(rows)))
        self.manifest["class_name"] = [self.classes[label] for label in self.manifest["label"]]
        self.manifest["path"] = [f"{row}.png" for row in range(len(rows))]
        self.manifest["captions"] = [[] for _ in rows]

    def rows(self, split: str) -> np.ndarray:
        return self.manifest.index[self.manifest["split"] == split].to_numpy()

    def labels(self, rows: Any) -> np.ndarray:
        return self.manifest["label"].to_numpy()[np.asarray(rows, dtype=int)]

    def images(self, rows: Any) -> np.ndarray:
        return np.stack([self._image(int(row)) for row in rows])

    def pil(self, row: int) -> Image.Image:
        return Image.fromarray(self._image(row))

    def _image(self, row: int) -> np.ndarray:
        label = int(self.manifest["label"].iloc[row])
        hue = np.random.default_rng(label).integers(40, 216, 3)
        noise = np.random.default_rng([label, row]).normal(0, 10, (self.size, self.size, 3))
        return np.clip(hue + noise, 0, 255).astype(np.uint8)
