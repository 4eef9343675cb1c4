"""Image towers of timm at another size than timm's own, under names that open_clip's configurations can use.

open_clip builds a timm tower by its name alone, so a tower with other sizes needs a name. DINOv2 is used at 224 pixels
(16 x 16 patches), while timm's models have 518. Importing this module makes the names known to timm.
"""

from typing import Any, cast

import timm
from timm.models import is_model, register_model
from timm.models.vision_transformer import VisionTransformer

from conceptbench.config.named_backbones import NAMED, NamedBackbone

_NOT_PASSED_ON = ("pretrained_cfg", "pretrained_cfg_overlay", "cache_dir")


def trunk_name(spec: NamedBackbone) -> str:
    """timm's name of the image tower of a backbone, or ours where timm's has another size."""
    return f"{spec.model}_at_{spec.image_size}" if spec.model.endswith("_dinov2") else spec.model


def register_trunk(name: str, base: str, **shape: Any) -> None:
    """Make timm build `base` with other options (img_size, depth, ...) under `name`; a known name stays as it is."""
    if is_model(name):
        return

    def build(pretrained: bool = False, **options: Any) -> VisionTransformer:
        """timm's own builder; the weights come from a folder or file, never from here."""
        if pretrained:
            raise ValueError(f"{name} has no weights of its own")
        kept = {key: value for key, value in options.items() if key not in _NOT_PASSED_ON}
        return cast(VisionTransformer, timm.create_model(base, pretrained=False, **{**shape, **kept}))

    build.__name__ = name
    build.__module__ = __name__
    register_model(build)


for _spec in NAMED.values():
    if _spec.library == "timm":
        register_trunk(trunk_name(_spec), _spec.model, img_size=_spec.image_size)
