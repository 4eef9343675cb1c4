"""Adaptations of the configuration; the fields and defaults are those of `conceptbench.adaptation.specs`."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from conceptbench.config.sections import Count, Name, NonNegative, Positive, Section, Template

Start = Annotated[float, Field(gt=0.1, allow_inf_nan=False)]
"""A finite number above 0.1, where the grids of Tip-Adapter start."""

Place = Annotated[str, Field(pattern=r"^[^{}]*\{\}[^{}]*$")]
"""A prompt with one `{}` for the class name, which must be given."""

Proportion = Annotated[float, Field(ge=0, lt=1)]
"""A number from 0 to below 1."""


class ZeroShot(Section):
    """The backbone as it is: one prompt for each class."""

    method: Literal["zero-shot"]
    template: Template = None
    """Prompt with one `{}`; null takes the data set's own."""


class LinearProbe(Section):
    """Logistic regression on frozen image features, its L2 strength chosen on the validation shots (CLIP's recipe)."""

    method: Literal["linear-probe"]
    max_iter: Count = 1000
    """Iterations of L-BFGS, at most."""
    search_steps: Annotated[int, Field(ge=0)] = 8
    """Halvings of the interval around the best strength of the coarse grid."""


class _Cache(Section):
    """The cache of Tip-Adapter and the grid of its two numbers."""

    template: Template = None
    """Prompt with one `{}`; null takes the data set's own."""
    views: Count = 10
    """Augmented views of a training image whose mean feature is its key."""
    beta: Positive = 1.0
    """Sharpness of the affinity while keys are trained."""
    alpha: Positive = 1.17
    """Weight of the cache while keys are trained."""
    beta_max: Start = 7.0
    """Upper end of the grid of the sharpness, searched on the validation shots from 0.1 on."""
    alpha_max: Start = 3.0
    """Upper end of the grid of the weight, searched on the validation shots from 0.1 on."""
    beta_steps: Count = 200
    """Values on the grid of the sharpness."""
    alpha_steps: Count = 20
    """Values on the grid of the weight."""


class TipAdapter(_Cache):
    """Zero-shot logits plus votes of the training images (Tip-Adapter, arXiv 2207.09519); nothing is trained."""

    method: Literal["tip-adapter"]


class TipAdapterF(_Cache):
    """Tip-Adapter whose keys are fine-tuned (Tip-Adapter-F, arXiv 2207.09519); the last epoch is kept."""

    method: Literal["tip-adapter-f"]
    epochs: Count = 20
    """Passes over the shots; the authors take 100 on EuroSAT."""
    batch_size: Count = 256
    """Images per step of AdamW."""
    lr: Positive = 1e-3
    """Learning rate at the start of a cosine that ends at 0."""
    weight_decay: NonNegative = 0.01
    """Weight decay of AdamW."""


class _Sgd(Section):
    """The few-shot recipe of the CoOp family."""

    epochs: Count = 5
    """Passes over the shots; the last epoch's weights are kept."""
    batch_size: Count = 4
    """Images per step of SGD; incomplete batches are dropped."""
    lr: Positive = 0.0035
    """Learning rate at the start of the cosine, from the second epoch on."""
    warmup_lr: NonNegative = 1e-5
    """Constant learning rate of the first epoch."""
    momentum: Proportion = 0.9
    """Momentum of SGD."""
    weight_decay: NonNegative = 5e-4
    """Weight decay of SGD."""


class CoOp(_Sgd):
    """One learnt context in front of all class names (CoOp, arXiv 2109.01134)."""

    method: Literal["coop"]
    n_ctx: Count = 4
    """Learnt tokens; CoOp's few-shot protocol has 16 from a random start."""
    context: str = "a photo of a"
    """Words that the learnt tokens start from. Empty: a random start."""
    epochs: Count = 200
    """Passes over the shots; the last epoch's weights are kept."""
    batch_size: Count = 32
    """Images per step of SGD; incomplete batches are dropped."""
    lr: Positive = 0.002
    """Learning rate at the start of the cosine, from the second epoch on."""


class CoCoOp(_Sgd):
    """CoOp plus a shift of the context computed from each image (CoCoOp, arXiv 2203.05557)."""

    method: Literal["cocoop"]
    n_ctx: Count = 4
    """Learnt tokens."""
    context: str = "a photo of a"
    """Words that the learnt tokens start from. Empty: a random start."""
    reduction: Count = 16
    """Image features divided by this are the hidden units of the net that computes the shift."""
    epochs: Count = 10
    """Passes over the shots; the last epoch's weights are kept."""
    batch_size: Count = 1
    """Images per step of SGD; incomplete batches are dropped."""
    lr: Positive = 0.002
    """Learning rate at the start of the cosine, from the second epoch on."""


class VptDeep(_Sgd):
    """Learnt tokens in every image block; fixed texts, or without texts a linear head (VPT-deep, arXiv 2203.12119)."""

    method: Literal["vpt-deep"]
    n_ctx: Count = 8
    """Learnt tokens in each block."""
    depth: Count = 12
    """Blocks of the image tower with learnt tokens at their input."""
    template: Place = "a photo of a {}."
    """Prompt of the fixed texts, with one `{}`."""
    lr: Positive = 0.0025
    """Learning rate at the start of the cosine, from the second epoch on."""


class Ivlp(_Sgd):
    """Independent prompts in both towers (IVLP of arXiv 2210.03117): MaPLe without its coupling."""

    method: Literal["ivlp"]
    n_ctx: Count = 2
    """Learnt tokens in each block of the text tower."""
    n_image: Count = 2
    """Learnt tokens in each block of the image tower."""
    text_depth: Count = 12
    """Blocks of the text tower with learnt tokens at their input."""
    image_depth: Count = 12
    """Blocks of the image tower with learnt tokens at their input."""
    context: str = "a photo of a"
    """Text before the class name; its first `n_ctx` words become learnable. Empty: a random start."""


class Maple(_Sgd):
    """Multi-modal prompt learning (MaPLe, arXiv 2210.03117)."""

    method: Literal["maple"]
    n_ctx: Count = 2
    """Learnt tokens in each tower and block."""
    depth: Count = 9
    """Blocks with learnt tokens at their input."""
    context: str = "a photo of a"
    """Text before the class name; its first `n_ctx` words become learnable. Empty: a random start."""


class PromptSrc(_Sgd):
    """Independent prompts held near the frozen model (PromptSRC, arXiv 2307.06948)."""

    method: Literal["promptsrc"]
    n_ctx: Count = 4
    """Learnt tokens in each block of the text tower."""
    n_image: Count = 4
    """Learnt tokens in each block of the image tower."""
    text_depth: Count = 9
    """Blocks of the text tower with learnt tokens at their input."""
    image_depth: Count = 9
    """Blocks of the image tower with learnt tokens at their input."""
    context: str = "a photo of a"
    """Text before the class name; its first `n_ctx` words become learnable. Empty: a random start."""
    epochs: Count = 20
    """Passes over the shots; their prompts are averaged."""
    lr: Positive = 0.0025
    """Learning rate at the start of the cosine, from the second epoch on."""
    text_weight: NonNegative = 25.0
    """Weight of the distance of the class vectors to the frozen ones."""
    image_weight: NonNegative = 10.0
    """Weight of the distance of the image features to the frozen ones."""
    mean_epoch: Positive = 15.0
    """Epoch that weighs most in the average (the few-shot setting has 30, or 45 on some data sets)."""
    epoch_deviation: Positive = 1.0
    """Standard deviation of the Gaussian weights, in epochs (30 or 5 in the few-shot setting)."""
    templates: tuple[Place, ...] = ()
    """Prompts with `{}` whose mean is the frozen text side; empty takes the 60 of the original."""


class ClipLora(Section):
    """Low-rank changes of the attention weights (CLIP-LoRA, arXiv 2405.18541)."""

    method: Literal["clip-lora"]
    towers: Literal["both", "image", "text"] = "both"
    """Towers that learn; a backbone without texts takes image, and learns a linear head with it."""
    projections: tuple[Literal["q", "k", "v"], ...] = ("q", "k", "v")
    """Input projections that learn."""
    rank: Count = 2
    """Rank of a change."""
    alpha: Positive = 1.0
    """A change is alpha / sqrt(rank) times the product of its factors."""
    dropout: Proportion = 0.25
    """Share of the factors' inputs dropped in training."""
    iterations_per_shot: Count = 500
    """Steps of AdamW for each shot."""
    batch_size: Count = 32
    """Images per step; incomplete batches are dropped."""
    lr: Positive = 2e-4
    """Learning rate at the start of the cosine."""
    min_lr: NonNegative = 1e-6
    """Learning rate at its end."""
    weight_decay: NonNegative = 0.01
    """Weight decay of AdamW."""
    template: Template = None
    """Prompt with one `{}`; null takes the data set's own."""


AdaptationMethod: TypeAlias = Annotated[
    ZeroShot | LinearProbe | TipAdapter | TipAdapterF | CoOp | CoCoOp | VptDeep | Ivlp | Maple | PromptSrc | ClipLora,
    Field(discriminator="method"),
]
"""Every method, told apart by `method`."""


def needs_text(method: AdaptationMethod) -> bool:
    """Return whether the method needs a text tower: not those that learn a linear head where there is none."""
    match method:
        case LinearProbe() | VptDeep():
            return False
        case ClipLora():
            return method.towers != "image"
        case _:
            return True


def prompt_depths(method: AdaptationMethod) -> dict[str, Literal["image", "both"]]:
    """Return the fields of the method that are depths, and whether the image tower alone or both must be as deep."""
    match method:
        case VptDeep():
            return {"depth": "image"}
        case Maple():
            return {"depth": "both"}
        case Ivlp() | PromptSrc():
            return {"image_depth": "image", "text_depth": "both"}
        case _:
            return {}


class Adaptations(Section):
    """Adaptations of one backbone to tasks, from few images a class."""

    backbone: Name
    """The backbone that is adapted."""
    tasks: tuple[Name, ...] = ()
    """Data sets with classes; empty leaves out adaptation and everything after it."""
    shots: Count = 16
    """Training images of each class."""
    setting: Literal["base-to-novel", "all-classes"] = "base-to-novel"
    """Train on the base half and test on each half with its own candidates, or train and test on all classes."""
    methods: dict[Name, AdaptationMethod] = Field(default_factory=dict)
    """Adaptations by name."""
