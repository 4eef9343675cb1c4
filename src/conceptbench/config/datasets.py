"""Data sets of the configuration: rendered ones, known collections of photographs, and any folder of images."""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from conceptbench.config.sections import Count, Section, Template


class Sizes(Section):
    """Number of images of each split."""

    train: Count = 8192
    """Images that dictionaries learn from."""
    val: Count = 1024
    """Images on which something is chosen (split A)."""
    test: Count = 4096
    """Images on which it is scored (split B)."""
    held_out: Count | None = Field(default=None, alias="held-out")
    """Images of the combinations of shape and colour that appear nowhere else; null draws none."""


class Scenes(Section):
    """Rendered scenes of one to three objects whose factors, masks and counterfactuals are known."""

    kind: Literal["scenes"]
    sizes: Sizes = Sizes()
    """Images of each split."""
    pairs: Count = 1024
    """Counterfactual pairs: the same scene with one factor of one object changed."""


class Flora(Section):
    """Rendered flowers: 24 fine-grained classes whose neighbours differ in one factor."""

    kind: Literal["flora"]
    images_per_class: Count = 120
    """Images of each class, split 50/20/30 into train, val and test."""
    template: Template = "a photo of a {}, a type of flower."
    """Prompt of zero-shot classification."""


class Terra(Section):
    """Rendered aerial textures: 10 classes, a shift of domain from the scenes."""

    kind: Literal["terra"]
    images_per_class: Count = 160
    """Images of each class, split 50/20/30 into train, val and test."""
    template: Template = "a centered satellite photo of {}."
    """Prompt of zero-shot classification."""


class _Photographs(Section):
    """What every collection of photographs can be given."""

    limit_per_class: Count | None = None
    """Keep at most this many images of each class in each split (drawn by the experiment's seed); null keeps all."""


class Eurosat(_Photographs):
    """EuroSAT RGB: 27,000 satellite images of 64 x 64 pixels in 10 classes, below `data_root`."""

    kind: Literal["eurosat"]
    template: Template = "a centered satellite photo of {}."
    """Prompt of zero-shot classification."""


class Flowers(_Photographs):
    """Oxford Flowers-102: photographs in 102 classes, below `data_root`."""

    kind: Literal["flowers"]
    template: Template = "a photo of a {}, a type of flower."
    """Prompt of zero-shot classification."""


class Folder(_Photographs):
    """Any folder of images with one sub-folder for each class."""

    kind: Literal["folder"]
    path: str
    """The folder, absolute or relative to `data_root`."""
    template: Template = "a photo of a {}."
    """Prompt of zero-shot classification."""


DatasetSpec: TypeAlias = Annotated[Scenes | Flora | Terra | Eurosat | Flowers | Folder, Field(discriminator="kind")]
"""Every kind of data set, told apart by `kind`."""

TRAIN_SHARE = 0.5
"""Share of a class's images in the train split, where this project makes the split (CoOp's 50/20/30)."""


def train_images_per_class(spec: DatasetSpec) -> int | None:
    """Return how many training images a class has at most, or None when only the files can tell."""
    if isinstance(spec, Flora | Terra):
        return int(spec.images_per_class * TRAIN_SHARE)
    if isinstance(spec, Eurosat | Flowers | Folder):
        return spec.limit_per_class
    return None


def has_classes(spec: DatasetSpec) -> bool:
    """Return whether the data set can be a task of adaptation."""
    return not isinstance(spec, Scenes)


def needs_data_root(spec: DatasetSpec) -> bool:
    """Return whether the data set's files are looked for below `data_root`."""
    return isinstance(spec, Eurosat | Flowers) or (isinstance(spec, Folder) and not spec.path.startswith("/"))
