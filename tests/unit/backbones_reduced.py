"""Reduced models with random weights, saved as folders in open_clip's layout, for the tests of backbones."""

from copy import deepcopy
from pathlib import Path
from typing import Any

import open_clip
import torch

from conceptbench.backbones.folder import save_backbone_folder
from conceptbench.backbones.tokenizer import write_vocabulary

CORPUS = ["a photo of a red circle.", "a blue square on a green background", "two yellow stars"]
N_MERGES = 40
VOCABULARY = 512 + N_MERGES + 2

CLIP_PREPROCESS = {"mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28], "interpolation": "bicubic"}
SIGLIP_PREPROCESS = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}

CLIP = {
    "embed_dim": 24,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 4, "width": 48, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 12, "vocab_size": VOCABULARY, "width": 32, "heads": 2, "layers": 2},
}
SIGLIP = {
    "embed_dim": 64,
    "init_logit_bias": -10,
    "custom_text": True,
    "vision_cfg": {
        "image_size": 32,
        "timm_model_name": "vit_reduced_siglip_32",
        "timm_model_pretrained": False,
        "timm_pool": "map",
        "timm_proj": "none",
    },
    "text_cfg": {
        "context_length": 12,
        "vocab_size": VOCABULARY,
        "width": 32,
        "heads": 2,
        "layers": 2,
        "no_causal_mask": True,
        "proj_bias": True,
        "pool_type": "last",
    },
}
REGISTERS = {
    **SIGLIP,
    "vision_cfg": {**SIGLIP["vision_cfg"], "timm_model_name": "vit_reduced_reg_32", "timm_pool": "avg"},
}
"""A timm trunk with a class token and two registers, pooled over its patches."""

MODELS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "clip": (CLIP, CLIP_PREPROCESS),
    "siglip": (SIGLIP, SIGLIP_PREPROCESS),
    "registers": (REGISTERS, SIGLIP_PREPROCESS),
}


def register_trunks() -> None:
    """Make the reduced timm trunks known to timm, once."""
    from timm.models import is_model, register_model
    from timm.models.vision_transformer import VisionTransformer

    shape = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 2}

    def vit_reduced_siglip_32(pretrained: bool = False, **options: Any) -> VisionTransformer:
        return VisionTransformer(**{**shape, "class_token": False, **_known(options)})

    def vit_reduced_reg_32(pretrained: bool = False, **options: Any) -> VisionTransformer:
        return VisionTransformer(**{**shape, "reg_tokens": 2, "init_values": 0.1, **_known(options)})

    for build in (vit_reduced_siglip_32, vit_reduced_reg_32):
        if not is_model(build.__name__):
            build.__module__ = "timm.models.vision_transformer"
            register_model(build)


def _known(options: dict[str, Any]) -> dict[str, Any]:
    return {key: options[key] for key in ("num_classes", "global_pool") if key in options}


def build(kind: str, seed: int = 0) -> torch.nn.Module:
    """The reduced model of a kind, with random weights."""
    register_trunks()
    config = deepcopy(MODELS[kind][0])
    model_class = open_clip.CustomTextCLIP if config.pop("custom_text", False) else open_clip.CLIP
    torch.manual_seed(seed)
    return model_class(**config)


def save(kind: str, folder: Path, **card: Any) -> Path:
    """Save the reduced model of a kind with its vocabulary; returns its folder."""
    config, preprocess = MODELS[kind]
    write_vocabulary(CORPUS, N_MERGES, folder / "merges.txt.gz")
    save_backbone_folder(folder, build(kind), config, preprocess, card)
    return folder
