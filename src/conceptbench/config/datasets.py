"""Data sets of the configuration: rendered ones, known collections of photographs, and any folder of images."""

from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import Field, model_validator

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


TEMPLATES: Final = {
    "imagenet": "a photo of a {}.",
    "caltech101": "a photo of a {}.",
    "oxford-pets": "a photo of a {}, a type of pet.",
    "stanford-cars": "a photo of a {}.",
    "food101": "a photo of {}, a type of food.",
    "fgvc-aircraft": "a photo of a {}, a type of aircraft.",
    "sun397": "a photo of a {}.",
    "dtd": "{} texture.",
    "ucf101": "a photo of a person doing {}.",
    "cub-200": "a photo of a {}, a type of bird.",
}
"""CoOp's prompt of each data set of its suite, and one for birds."""


class Published(_Photographs):
    """A data set of CoOp's suite besides EuroSAT and Flowers-102, or CUB-200 (birds), below `data_root`."""

    kind: Literal[
        "imagenet",
        "caltech101",
        "oxford-pets",
        "stanford-cars",
        "food101",
        "fgvc-aircraft",
        "sun397",
        "dtd",
        "ucf101",
        "cub-200",
    ]
    template: Template = None
    """Prompt of zero-shot classification; null takes CoOp's for this data set."""

    @model_validator(mode="before")
    @classmethod
    def _own_template(cls, options: Any) -> Any:
        """Fill in the data set's own prompt."""
        if isinstance(options, dict) and options.get("template") is None:
            return {**options, "template": TEMPLATES.get(options.get("kind", ""))}
        return options


class Unlabelled(_Photographs):
    """Images without classes below `data_root`: COCO with its captions, ADE20K with its masks."""

    kind: Literal["coco", "ade20k"]


class Captions(_Photographs):
    """Any folder of images with a caption file (a table, COCO's JSON, or a JSON of image to captions)."""

    kind: Literal["captions"]
    path: str
    """The folder of images, absolute or relative to `data_root`."""
    captions: str
    """The caption file, absolute or relative to `data_root`."""


DatasetSpec: TypeAlias = Annotated[
    Scenes | Flora | Terra | Eurosat | Flowers | Published | Unlabelled | Folder | Captions,
    Field(discriminator="kind"),
]
"""Every kind of data set, told apart by `kind`."""

TRAIN_SHARE = 0.5
"""Share of a class's images in the train split, where this project makes the split (CoOp's 50/20/30)."""


def train_images_per_class(spec: DatasetSpec) -> int | None:
    """Return how many training images a class has at most, or None when only the files can tell."""
    if isinstance(spec, Flora | Terra):
        return int(spec.images_per_class * TRAIN_SHARE)
    if isinstance(spec, _Photographs):
        return spec.limit_per_class
    return None


def has_classes(spec: DatasetSpec) -> bool:
    """Return whether the data set can be a task of adaptation."""
    return not isinstance(spec, Scenes | Unlabelled | Captions)


def needs_data_root(spec: DatasetSpec) -> bool:
    """Return whether the data set's files are looked for below `data_root`."""
    if isinstance(spec, Folder | Captions):
        return not spec.path.startswith("/") or (isinstance(spec, Captions) and not spec.captions.startswith("/"))
    return is_published(spec)


def is_published(spec: DatasetSpec) -> bool:
    """Return whether the data set is a published one, which can be looked for and often downloaded by its kind."""
    return isinstance(spec, Eurosat | Flowers | Published | Unlabelled)
