"""Backbones by name: what must come out when one is loaded."""

from typing import Any

from conceptbench.backbones.backbone import Backbone
from conceptbench.backbones.folder import uses_quick_gelu
from conceptbench.backbones.trunks import trunk_name
from conceptbench.config.named_backbones import NAMED, NamedBackbone
from conceptbench.config.names import nearest
from conceptbench.errors import ConceptBenchError

_NO_TEXT = {"context_length": 4, "vocab_size": 2, "width": 8, "heads": 1, "layers": 1}
"""The smallest text tower, which open_clip's layout asks for and nothing uses."""


def named_backbone(name: str) -> NamedBackbone:
    """The published backbone of that name.

    Raises:
        ConceptBenchError: when there is none; the nearest name is given.
    """
    if name not in NAMED:
        raise ConceptBenchError(f"There is no published backbone '{name}'{nearest(name, tuple(NAMED))}")
    return NAMED[name]


def image_only_config(spec: NamedBackbone) -> dict[str, Any]:
    """open_clip's `model_cfg` of an image tower of timm: features as they are pooled, and a text tower without use."""
    vision = {
        "image_size": spec.image_size,
        "timm_model_name": trunk_name(spec),
        "timm_model_pretrained": False,
        "timm_pool": spec.pool,
        "timm_proj": "none",
    }
    return {"embed_dim": spec.width, "custom_text": True, "vision_cfg": vision, "text_cfg": dict(_NO_TEXT)}


def preprocess_config(spec: NamedBackbone) -> dict[str, Any]:
    """open_clip's `preprocess_cfg` of a published backbone."""
    return {
        "size": spec.image_size,
        "mean": list(spec.mean),
        "std": list(spec.std),
        "interpolation": "bicubic",
        "resize_mode": spec.resize,
    }


def require_named(backbone: Backbone, spec: NamedBackbone) -> None:
    """Raise ConceptBenchError unless a loaded backbone has the shape, preprocessing and activation of its name."""
    found = {
        "blocks": backbone.n_blocks,
        "width": backbone.width,
        "grid": backbone.grid,
        "prefix tokens": backbone.n_prefix,
        "image size": backbone.image_size,
        "mean": _rounded(backbone.preprocess_config["mean"]),
        "std": _rounded(backbone.preprocess_config["std"]),
        "interpolation": backbone.preprocess_config["interpolation"],
        "resizing": backbone.preprocess_config["resize_mode"],
        "QuickGELU": uses_quick_gelu(backbone.model),
        "text tower": backbone.has_text,
    }
    expected = {
        "blocks": spec.blocks,
        "width": spec.width,
        "grid": (spec.grid, spec.grid),
        "prefix tokens": spec.n_prefix,
        "image size": spec.image_size,
        "mean": _rounded(spec.mean),
        "std": _rounded(spec.std),
        "interpolation": "bicubic",
        "resizing": spec.resize,
        "QuickGELU": spec.quick_gelu,
        "text tower": spec.text,
    }
    wrong = [
        f"{fact} is {found[fact]} instead of {expected[fact]}" for fact in expected if found[fact] != expected[fact]
    ]
    if wrong:
        raise ConceptBenchError(
            f"Backbone {backbone.name}: what {spec.repository} holds is another model ({'; '.join(wrong)}); restore "
            "its weights and configuration."
        )


def _rounded(values: Any) -> list[float]:
    """Means and deviations as far as published configurations write them out."""
    return [round(float(value), 4) for value in values]
