"""Backbones of the configuration: the small ones of the testbed, open_clip's, and local directories."""

import json
import re
from pathlib import Path
from typing import Annotated, Literal, Self, TypeAlias

from pydantic import AfterValidator, Field, model_validator

from conceptbench.config.named_backbones import NAMED
from conceptbench.config.names import nearest
from conceptbench.config.sections import Count, Index, Section

_LOCAL_PREFIX = "local-dir:"


def _without_prefix(path: str) -> str:
    """A folder without open_clip's prefix of folders."""
    return path.removeprefix(_LOCAL_PREFIX)


class Trained(Section):
    """A small backbone of the testbed; the shipped weights are used as long as this section matches what made them."""

    kind: Literal["trained"]
    recipe: Literal["clip", "image", "random"]
    """clip: scenes with captions; image: the same image tower without text; random: the same with random weights."""
    seed: Index = 0
    """Seed of initial weights and data; not the experiment's seed, so that the weights serve every experiment."""
    images: Count | None = None
    """Training images; null takes the recipe's own number."""


Revision: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{40}$")] | None
"""A commit of a repository on the Hugging Face hub."""


class Named(Section):
    """A published backbone by name: CLIP, SigLIP, SigLIP2, DINOv2, AIMv2 or BioCLIP (docs/real-data.md)."""

    kind: Literal["named"]
    model: str
    """Its name, for example clip-vit-b16-openai or dinov2-vit-b14-reg."""
    revision: Revision = None
    """Commit of its repository; null takes what `locks/` pins, and pins today's at the first fetch."""

    @model_validator(mode="after")
    def _is_known(self) -> Self:
        if self.model not in NAMED:
            raise ValueError(f"there is no published backbone '{self.model}'{nearest(self.model, tuple(NAMED))}")
        return self


class OpenClip(Section):
    """A model of open_clip by name; its weights are downloaded on first use and checked."""

    kind: Literal["open_clip"]
    model: str
    """Name of an open_clip model, for example ViT-B-16-quickgelu, or `hf-hub:<repository>`."""
    pretrained: str | None = None
    """Weight tag, for example openai; null only for hf-hub models."""
    revision: Revision = None
    """Commit of the repository of the weights; null takes what `locks/` pins, and pins today's at the first fetch."""

    @model_validator(mode="after")
    def _weights_and_activation_agree(self) -> Self:
        on_hub = self.model.startswith("hf-hub:")
        if self.model.startswith(_LOCAL_PREFIX):
            raise ValueError(f"a folder is another kind; write kind: local and path: {_without_prefix(self.model)}")
        if self.pretrained is None and not on_hub:
            raise ValueError(f"model {self.model} needs `pretrained`, the tag of its weights")
        if self.pretrained is not None and on_hub:
            raise ValueError("a model from hf-hub brings its weights; remove `pretrained`")
        native = re.fullmatch(r"ViT-[BL]-\d+(-336)?", self.model)
        if self.pretrained == "openai" and native:
            raise ValueError(f"the openai weights need the activation of {self.model}-quickgelu; use that model")
        return self


class Local(Section):
    """A directory saved by open_clip (open_clip_config.json and its weights)."""

    kind: Literal["local"]
    path: Annotated[str, AfterValidator(_without_prefix)]
    """The directory, absolute or relative to the folder the workflow runs in."""


BackboneSpec: TypeAlias = Annotated[Trained | Named | OpenClip | Local, Field(discriminator="kind")]
"""Every kind of backbone, told apart by `kind`."""

TRAINED_BLOCKS = 6
"""Blocks of the image tower of every trained backbone."""

TRAINED_TEXT_BLOCKS = 3
"""Blocks of the text tower of every trained backbone."""

_DEPTHS = (
    (r"ViT-(Ti|S|M|B)-", 12),
    (r"ViT-L-", 24),
    (r"ViT-SO400M-", 27),
    (r"ViT-H-", 32),
    (r"ViT-g-", 40),
    (r"ViT-bigG-", 48),
)


def known_blocks(spec: BackboneSpec) -> int | None:
    """Return the number of blocks of the image tower, or None when it cannot be told without loading the model."""
    if isinstance(spec, Trained):
        return TRAINED_BLOCKS
    if isinstance(spec, Named):
        return NAMED[spec.model].blocks
    if isinstance(spec, OpenClip):
        return next((depth for pattern, depth in _DEPTHS if re.match(pattern, spec.model)), None)
    try:
        saved = json.loads((Path(spec.path) / "open_clip_config.json").read_text(encoding="utf-8"))
        return int(saved["model_cfg"]["vision_cfg"]["layers"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def known_prompt_depth(spec: BackboneSpec) -> int | None:
    """Return in how many blocks of both towers prompts can be learnt, or None when it cannot be told."""
    if isinstance(spec, Trained):
        return min(TRAINED_BLOCKS, TRAINED_TEXT_BLOCKS)
    return known_blocks(spec)


def has_text(spec: BackboneSpec) -> bool:
    """Return whether the backbone may have a text tower: all but the image-only recipe and image models by name."""
    if isinstance(spec, Named):
        return NAMED[spec.model].text
    return not (isinstance(spec, Trained) and spec.recipe == "image")
