"""Methods that learn prompts: tokens in the text tower, in the image tower, or in both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from conceptbench.adaptation.specs.base import DEFAULT_TEMPLATE, Recipe, require_place, require_prompts
from conceptbench.errors import ConceptBenchError


@dataclass(frozen=True)
class CoOpSpec(Recipe):
    """Context optimisation (CoOp, Zhou et al. 2022): one learned context for all classes, in front of the name."""

    epochs: int = 200
    batch_size: int = 32
    lr: float = 0.002
    name: str = "coop"
    method: Literal["coop"] = "coop"
    n_ctx: int = 4
    """Learned tokens: 4 from words in the base-to-novel protocol, 16 from random in CoOp's few-shot protocol."""
    context: str = "a photo of a"
    """Words that the context starts from; its first `n_ctx` tokens become learnable. Empty: a random start."""

    def __post_init__(self) -> None:
        """Refuse an empty prompt."""
        super().__post_init__()
        require_prompts(self.name, self.n_ctx)


@dataclass(frozen=True)
class CoCoOpSpec(Recipe):
    """Conditional context (CoCoOp, Zhou et al. 2022): CoOp plus a shift of the context computed from each image."""

    epochs: int = 10
    batch_size: int = 1
    lr: float = 0.002
    name: str = "cocoop"
    method: Literal["cocoop"] = "cocoop"
    n_ctx: int = 4
    """Learned tokens."""
    context: str = "a photo of a"
    """Words that the context starts from. Empty: a random start."""
    reduction: int = 16
    """The hidden layer of the meta-net has embed_dim / reduction units, and at least one."""

    def __post_init__(self) -> None:
        """Refuse an empty prompt."""
        super().__post_init__()
        require_prompts(self.name, self.n_ctx, self.reduction)


@dataclass(frozen=True)
class VptSpec(Recipe):
    """Visual prompt tuning in every block (VPT-deep, Jia et al. 2022) against the features of fixed texts."""

    lr: float = 0.0025
    name: str = "vpt-deep"
    method: Literal["vpt-deep"] = "vpt-deep"
    n_ctx: int = 8
    """Learned tokens per position of the image tower."""
    depth: int = 12
    """Blocks with learned tokens at their input."""
    template: str = DEFAULT_TEMPLATE
    """Prompt with `{}` of the fixed text side."""

    def __post_init__(self) -> None:
        """Refuse an empty prompt."""
        super().__post_init__()
        require_prompts(self.name, self.n_ctx, self.depth)
        require_place(self.name, self.template)


@dataclass(frozen=True)
class IvlpSpec(Recipe):
    """Independent prompts in both towers (IVLP of Khattak et al. 2023): MaPLe without its coupling."""

    name: str = "ivlp"
    method: Literal["ivlp"] = "ivlp"
    n_ctx: int = 2
    """Learned tokens per position of the text tower."""
    n_image: int = 2
    """Learned tokens per position of the image tower."""
    text_depth: int = 12
    image_depth: int = 12
    context: str = "a photo of a"
    """Text before the class name; its first `n_ctx` tokens become learnable. Empty: a random start."""

    def __post_init__(self) -> None:
        """Refuse an empty prompt."""
        super().__post_init__()
        require_prompts(self.name, self.n_ctx, self.n_image, self.text_depth, self.image_depth)


@dataclass(frozen=True)
class MapleSpec(Recipe):
    """Multi-modal prompt learning (MaPLe, Khattak et al. 2023): text prompts and their images in the image tower."""

    name: str = "maple"
    method: Literal["maple"] = "maple"
    n_ctx: int = 2
    """Learned tokens per tower and position."""
    depth: int = 9
    """Blocks with learned tokens at their input: one shallow position and `depth - 1` deep ones."""
    context: str = "a photo of a"
    """Text before the class name; its first `n_ctx` tokens become learnable. Empty: a random start."""

    def __post_init__(self) -> None:
        """Refuse an empty prompt."""
        super().__post_init__()
        require_prompts(self.name, self.n_ctx, self.depth)


@dataclass(frozen=True)
class PromptSrcSpec(Recipe):
    """Self-regulating prompts (PromptSRC, Khattak et al. 2023): IVLP held near the frozen model."""

    epochs: int = 20
    lr: float = 0.0025
    name: str = "promptsrc"
    method: Literal["promptsrc"] = "promptsrc"
    n_ctx: int = 4
    """Learned tokens per position of the text tower."""
    n_image: int = 4
    """Learned tokens per position of the image tower."""
    text_depth: int = 9
    image_depth: int = 9
    context: str = "a photo of a"
    """Text before the class name; its first `n_ctx` tokens become learnable. Empty: a random start."""
    text_weight: float = 25.0
    """Weight of the mean absolute difference of the class vectors to the frozen ones."""
    image_weight: float = 10.0
    """Weight of the mean absolute difference of the image features to the frozen ones."""
    mean_epoch: float = 15.0
    """Epoch whose prompts weigh most in the average over epochs."""
    epoch_deviation: float = 1.0
    """Standard deviation, in epochs, of the Gaussian weights of that average."""
    templates: tuple[str, ...] = ()
    """Prompts with `{}` whose mean is the frozen text side; none takes the 60 of the original."""

    def __post_init__(self) -> None:
        """Refuse empty prompts, templates without a place, and weights that cannot be."""
        super().__post_init__()
        object.__setattr__(self, "templates", tuple(self.templates))
        require_prompts(self.name, self.n_ctx, self.n_image, self.text_depth, self.image_depth)
        for template in self.templates:
            require_place(self.name, template)
        if min(self.text_weight, self.image_weight) < 0 or not self.epoch_deviation > 0:
            raise ConceptBenchError(f"{self.name}: needs weights >= 0 and epoch_deviation > 0; correct it.")
