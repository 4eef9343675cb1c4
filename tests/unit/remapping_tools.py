"""A small CLIP with random weights, class vectors of its own, a dictionary, and activations of random images."""

from contextlib import nullcontext

import numpy as np
import torch
from open_clip import CLIP
from torch.nn import functional as F

from conceptbench.adaptation.prompts.hooks import image_prompts
from conceptbench.backbones.backbone import Backbone
from conceptbench.dictionaries import Codes, Dictionary, Normaliser
from conceptbench.dictionaries.rules import KeepLargest
from conceptbench.measures.readout import Activations, Readout

BLOCK, WIDTH, LATENTS = 1, 32, 48
CLASSES = ("a", "b", "c", "d")


class StandIn:
    """An adapter: image prompts (one tensor a depth, none for a plain image side) and its own class vectors."""

    def __init__(self, texts: torch.Tensor, prompts: list[torch.Tensor] | None = None) -> None:
        self.texts, self.prompts = F.normalize(texts, dim=-1), prompts

    @property
    def moves_images(self) -> bool:
        return self.prompts is not None

    def image_context(self, backbone: Backbone):
        return nullcontext() if self.prompts is None else image_prompts(backbone, self.prompts)

    def text_features(self, backbone: Backbone, class_names) -> torch.Tensor:
        return self.texts[[CLASSES.index(name) for name in class_names]]

    def classify(self, backbone: Backbone, features: torch.Tensor, class_names) -> torch.Tensor:
        return backbone.logit_scale * F.normalize(features, dim=-1) @ self.text_features(backbone, class_names).T

    def missing_note(self, class_names) -> str:
        return ""

    def require_classes(self, dataset, trained) -> None:
        assert tuple(trained) == CLASSES, dataset


def small_backbone() -> Backbone:
    torch.manual_seed(0)
    vision = {"image_size": 16, "layers": 4, "width": WIDTH, "patch_size": 8, "head_width": 16}
    text = {"context_length": 8, "vocab_size": 32, "width": 16, "heads": 2, "layers": 1}
    preprocess = {"size": (16, 16), "mode": "RGB", "mean": (0.5,) * 3, "std": (0.5,) * 3}
    preprocess |= {"interpolation": "bicubic", "resize_mode": "shortest", "fill_color": 0}
    return Backbone(
        CLIP(embed_dim=24, vision_cfg=vision, text_cfg=text),
        name="small",
        digest="0" * 64,
        model_config={"embed_dim": 24},
        preprocess_config=preprocess,
        make_tokenizer=lambda: lambda texts: torch.zeros(len(texts), 8, dtype=torch.long),
    )


def adapter(seed: int = 1, depth: int = 0) -> StandIn:
    generator = torch.Generator().manual_seed(seed)
    texts = torch.randn(len(CLASSES), 24, generator=generator)
    prompts = [torch.randn(2, WIDTH, generator=generator) for _ in range(depth)]
    return StandIn(texts, prompts or None)


def dictionary(tokens: np.ndarray, k: int = 6, seed: int = 3) -> Dictionary:
    """Unit atoms, tied encoder, as many latents a token as `k`."""
    rng = np.random.default_rng(seed)
    atoms = rng.normal(size=(LATENTS, WIDTH)).astype(np.float32)
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    zeros = np.zeros(LATENTS, np.float32)
    normaliser = Normaliser.fit(tokens.reshape(-1, WIDTH))
    return Dictionary(atoms, 0.5 * atoms, zeros, np.full(WIDTH, 0.1, np.float32), normaliser, KeepLargest(k))


def world(n: int = 12, depth: int = 0) -> tuple[Readout, Activations, Dictionary, Codes]:
    """Readout, activations, dictionary and codes of `n` random images whose classes take turns."""
    backbone, model = small_backbone(), adapter(depth=depth)
    pixels = torch.randn(n, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad(), model.image_context(backbone):
        own, prompts = backbone.split_prompts(backbone.lower(pixels, BLOCK))
    activations = Activations(np.arange(n), np.arange(n) % len(CLASSES), own, prompts)
    learnt = dictionary(activations.numpy())
    return Readout(backbone, model, BLOCK, CLASSES), activations, learnt, learnt.encode(activations.numpy())
