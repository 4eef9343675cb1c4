"""Adaptations of the configuration; the fields and defaults are those of `conceptbench.adaptation.specs`."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from conceptbench.config.sections import Count, Name, NonNegative, Positive, Section, Template


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


class Maple(Section):
    """Multi-modal prompt learning (MaPLe, arXiv 2210.03117)."""

    method: Literal["maple"]
    n_ctx: Count = 2
    """Learnt tokens in each tower and block."""
    depth: Count = 9
    """Blocks with learnt tokens at their input."""
    context: str = "a photo of a"
    """Text before the class name; its first `n_ctx` words become learnable. Empty: a random start."""
    epochs: Count = 5
    """Passes over the shots; the last epoch's weights are kept."""
    batch_size: Count = 4
    """Images per step of SGD; incomplete batches are dropped."""
    lr: Positive = 0.0035
    """Learning rate at the start of the cosine, from the second epoch on."""
    warmup_lr: NonNegative = 1e-5
    """Constant learning rate of the first epoch."""
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    """Momentum of SGD."""
    weight_decay: NonNegative = 5e-4
    """Weight decay of SGD."""


AdaptationMethod: TypeAlias = Annotated[ZeroShot | LinearProbe | Maple, Field(discriminator="method")]
"""Every method, told apart by `method`."""


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
