"""Sizes of a backbone's two towers, known without loading it, and the operations of a pass through them."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from conceptbench.config.backbones import BackboneSpec, Local, Named, OpenClip, Trained
from conceptbench.config.named_backbones import NAMED
from conceptbench.errors import ConceptBenchError

GIGA: Final = 1e9


@dataclass(frozen=True)
class Transformer:
    """A stack of transformer blocks."""

    blocks: int
    width: int
    tokens: int
    """Positions of one image or text."""

    def gflop(self, blocks: int | None = None) -> float:
        """Operations of a forward pass through the first blocks, in 1e9, a multiplication and an addition being two.

        A block has 12 width^2 weights (attention 4, multilayer perceptron of 4 times the width 8), each used twice a
        token, and two products of tokens x tokens x width in its attention.
        """
        n, d = self.tokens, self.width
        depth = self.blocks if blocks is None else min(blocks, self.blocks)
        return depth * (24 * n * d**2 + 4 * n**2 * d) / GIGA

    @property
    def parameters(self) -> int:
        """Weights of the blocks."""
        return 12 * self.blocks * self.width**2


@dataclass(frozen=True)
class Tower:
    """A backbone: its image tower, and its text tower if there is one."""

    image: Transformer
    patch: int
    """Side of a patch in pixels."""
    n_prefix: int
    image_size: int
    weights: int
    """Parameters of both towers."""
    weight_bytes: int = 4
    """Bytes of a stored parameter."""
    text: Transformer | None = None

    def image_gflop(self, deepest: int | None = None) -> float:
        """Operations of one image up to the output of block `deepest`, or of all blocks, in 1e9."""
        patches = self.image.tokens - self.n_prefix
        embedding = 2 * patches * 3 * self.patch**2 * self.image.width / GIGA
        return embedding + self.image.gflop(None if deepest is None else deepest + 1)

    def text_gflop(self) -> float:
        """Operations of one text, in 1e9; 0 without a text tower."""
        return self.text.gflop() if self.text else 0.0


_TRAINED: Final = Tower(
    image=Transformer(6, 128, 65),
    patch=8,
    n_prefix=1,
    image_size=64,
    weights=1_500_000,
    weight_bytes=2,
    text=Transformer(3, 128, 48),
)
"""The small backbones (`conceptbench.backbones.recipes`)."""

_FAMILIES: Final = {"Ti": (12, 192), "S": (12, 384), "M": (12, 512), "B": (12, 768), "L": (24, 1024)}
_FAMILIES_LARGE: Final = {"SO400M": (27, 1152), "H": (32, 1280), "g": (40, 1408), "bigG": (48, 1664)}
_TEXT_WIDTH: Final = 512
_TEXT_BLOCKS: Final = 12
_TEXT_POSITIONS: Final = 77


def tower_of(name: str, spec: BackboneSpec) -> Tower:
    """Return the sizes of a backbone of the configuration.

    Raises:
        ConceptBenchError: when they are known only after it was fetched.
    """
    match spec:
        case Trained():
            return _TRAINED
        case Named():
            return _named(spec.model)
        case OpenClip():
            return _by_name(name, spec.model)
        case Local():
            return _local(name, Path(spec.path))


def _named(model: str) -> Tower:
    facts = NAMED[model]
    tokens = facts.n_prefix + facts.grid**2
    patch = facts.image_size // facts.grid
    image = Transformer(facts.blocks, facts.width, tokens)
    text = _text_of(facts.width) if facts.text else None
    return Tower(image, patch, facts.n_prefix, facts.image_size, int(facts.millions * 1e6), text=text)


def _text_of(width: int) -> Transformer:
    """CLIP's text tower grows with its image tower: 512 wide beside 768, 768 beside 1024."""
    return Transformer(_TEXT_BLOCKS, _TEXT_WIDTH if width <= 768 else 768, _TEXT_POSITIONS)


def _by_name(name: str, model: str) -> Tower:
    found = re.match(r"ViT-([A-Za-z0-9]+?)-(\d+)(?:.*?-(\d{3}))?(?:-|$)", model)
    families = {**_FAMILIES, **_FAMILIES_LARGE}
    if found is None or found[1] not in families:
        raise ConceptBenchError(
            f"Backbone {name} cannot be planned: the size of {model} is not known from its name; fetch it first and "
            "give its folder as kind local."
        )
    (blocks, width), patch, size = families[found[1]], int(found[2]), int(found[3] or 224)
    image, text = Transformer(blocks, width, (size // patch) ** 2 + 1), _text_of(width)
    return Tower(image, patch, 1, size, image.parameters + text.parameters + 49408 * text.width, text=text)


def _local(name: str, folder: Path) -> Tower:
    path = folder / "open_clip_config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["model_cfg"]
        vision, words = config["vision_cfg"], config["text_cfg"]
        size, patch = int(vision["image_size"]), int(vision["patch_size"])
        image = Transformer(int(vision["layers"]), int(vision["width"]), (size // patch) ** 2 + 1)
        text = Transformer(int(words["layers"]), int(words["width"]), int(words.get("context_length", _TEXT_POSITIONS)))
        vocabulary = int(words.get("vocab_size", 49408))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConceptBenchError(
            f"Backbone {name} cannot be planned: {path} does not give its sizes ({type(error).__name__}: {error}); "
            "give a folder saved by open_clip."
        ) from error
    return Tower(image, patch, 1, size, image.parameters + text.parameters + vocabulary * text.width, text=text)
