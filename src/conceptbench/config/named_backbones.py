"""Published backbones by name: which library builds them, where their weights are, and what must come out.

Nothing is imported here, so that the configuration can be read without any library of models. What stands here is
checked against open_clip's and timm's own tables (tests/unit/test_backbones_names.py), and every loaded backbone is
checked against what stands here (`conceptbench.backbones.names`).
"""

from dataclasses import dataclass
from typing import Final, Literal

OPENAI_MEAN: Final = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD: Final = (0.26862954, 0.26130258, 0.27577711)
IMAGENET_MEAN: Final = (0.485, 0.456, 0.406)
IMAGENET_STD: Final = (0.229, 0.224, 0.225)
HALF: Final = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class NamedBackbone:
    """A published backbone."""

    library: Literal["open_clip", "timm", "hub"]
    """Who builds it; `hub` for a repository that brings its configuration."""
    model: str
    """The library's name of the architecture; for `hub` open_clip's name of the same architecture."""
    tag: str
    """The library's name of the weights."""
    repository: str
    """Where the weights are on the Hugging Face hub."""
    blocks: int
    """Transformer blocks of the image tower."""
    width: int
    """Features of a token."""
    grid: int
    """Patches along a side."""
    n_prefix: int
    """Prefix tokens: CLS and registers."""
    millions: float
    """Parameters in millions at this size of image, text tower included."""
    quick_gelu: bool = False
    """Whether the weights were trained with x * sigmoid(1.702 x) in place of GELU."""
    text: bool = True
    """Whether there is a text tower."""
    pool: Literal["", "token", "avg"] = ""
    """What timm makes the image feature of: the class token or the mean of the patches."""
    mean: tuple[float, float, float] = OPENAI_MEAN
    """Mean of the pixels that the weights expect."""
    std: tuple[float, float, float] = OPENAI_STD
    """Standard deviation of the pixels that the weights expect."""
    resize: Literal["shortest", "squash"] = "shortest"
    """Shortest side to the model's size and centre crop, or both sides to it."""
    image_size: int = 224
    """Side of the model's input."""
    revision: str | None = None
    """Commit of the repository, where it is known; else it is noted at the first fetch."""


def _clip(model: str, tag: str, repository: str, **changes: object) -> NamedBackbone:
    """A CLIP of open_clip: B/16, or L/14 by its name."""
    large = "L-14" in model
    facts = (24, 1024, 16, 1, 427.6) if large else (12, 768, 14, 1, 149.6)
    return NamedBackbone("open_clip", model, tag, repository, *facts, **changes)  # type: ignore[arg-type]


def _siglip(model: str, millions: float) -> NamedBackbone:
    facts = (12, 768, 14, 0, millions)
    return NamedBackbone(
        "open_clip",
        model,
        "webli",
        f"timm/{model}",
        *facts,
        mean=HALF,
        std=HALF,
        resize="squash",
    )


def _dinov2(size: str, registers: bool, blocks: int, width: int, millions: float) -> NamedBackbone:
    model = f"vit_{size}_patch14{'_reg4' if registers else ''}_dinov2"
    return NamedBackbone(
        library="timm",
        model=model,
        tag="lvd142m",
        repository=f"timm/{model}.lvd142m",
        blocks=blocks,
        width=width,
        grid=16,
        n_prefix=5 if registers else 1,
        millions=millions,
        text=False,
        pool="token",
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
    )


NAMED: Final[dict[str, NamedBackbone]] = {
    "clip-vit-b32-openai": NamedBackbone(
        "open_clip",
        "ViT-B-32-quickgelu",
        "openai",
        "timm/vit_base_patch32_clip_224.openai",
        blocks=12,
        width=768,
        grid=7,
        n_prefix=1,
        millions=151.3,
        quick_gelu=True,
    ),
    "clip-vit-b16-openai": _clip(
        "ViT-B-16-quickgelu", "openai", "timm/vit_base_patch16_clip_224.openai", quick_gelu=True
    ),
    "clip-vit-l14-openai": _clip(
        "ViT-L-14-quickgelu", "openai", "timm/vit_large_patch14_clip_224.openai", quick_gelu=True
    ),
    "clip-vit-b16-laion2b": _clip("ViT-B-16", "laion2b_s34b_b88k", "laion/CLIP-ViT-B-16-laion2B-s34B-b88K"),
    "clip-vit-l14-laion2b": _clip(
        "ViT-L-14", "laion2b_s32b_b82k", "laion/CLIP-ViT-L-14-laion2B-s32B-b82K", mean=HALF, std=HALF
    ),
    "clip-vit-b16-datacomp": _clip("ViT-B-16", "datacomp_xl_s13b_b90k", "laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K"),
    "clip-vit-l14-datacomp": _clip("ViT-L-14", "datacomp_xl_s13b_b90k", "laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K"),
    "siglip-vit-b16": _siglip("ViT-B-16-SigLIP", 203.2),
    "siglip2-vit-b16": _siglip("ViT-B-16-SigLIP2", 375.2),
    "dinov2-vit-s14": _dinov2("small", False, 12, 384, 21.6),
    "dinov2-vit-b14": _dinov2("base", False, 12, 768, 85.7),
    "dinov2-vit-l14": _dinov2("large", False, 24, 1024, 303.2),
    "dinov2-vit-b14-reg": _dinov2("base", True, 12, 768, 85.7),
    "dinov2-vit-l14-reg": _dinov2("large", True, 24, 1024, 303.2),
    "aimv2-vit-l14": NamedBackbone(
        library="timm",
        model="aimv2_large_patch14_224",
        tag="apple_pt",
        repository="timm/aimv2_large_patch14_224.apple_pt",
        blocks=24,
        width=1024,
        grid=16,
        n_prefix=0,
        millions=309.2,
        text=False,
        pool="avg",
    ),
    "bioclip-vit-b16": NamedBackbone(
        library="hub",
        model="ViT-B-16",
        tag="",
        repository="imageomics/bioclip",
        blocks=12,
        width=768,
        grid=14,
        n_prefix=1,
        millions=149.6,
    ),
}
"""Every published backbone that has a name here."""
