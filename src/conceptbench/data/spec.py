"""What a data set is to be: the frozen specification that `prepare_dataset` builds from."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from conceptbench.errors import ConceptBenchError

CoopKind = Literal[
    "imagenet",
    "caltech101",
    "oxford-pets",
    "stanford-cars",
    "food101",
    "fgvc-aircraft",
    "sun397",
    "dtd",
    "ucf101",
]
"""CoOp's suite without EuroSAT and Flowers-102."""
Kind = (
    Literal["scenes", "flora", "terra", "folder", "captions", "eurosat", "flowers", "coco", "ade20k", "cub-200"]
    | CoopKind
)
KINDS: tuple[str, ...] = tuple(name for part in get_args(Kind) for name in get_args(part))
"""Every kind of data set."""
RENDERED: frozenset[str] = frozenset({"scenes", "flora", "terra"})
"""Kinds whose images are drawn on demand and never stored."""


@dataclass(frozen=True)
class DatasetSpec:
    """One entry of the section `datasets` of the configuration."""

    name: str
    kind: Kind
    sizes: Mapping[str, int] = field(default_factory=dict)
    """Images a split (scenes): train, val, test and, if wanted, held-out (only held-out compositions)."""
    pairs: int = 0
    """Counterfactual pairs (scenes), in the split `pairs`: two rows each."""
    images_per_class: int = 120
    """Images of each class over all splits (flora, terra)."""
    path: str | None = None
    """Folder of images (captions), with one sub-folder a class (folder); relative paths start at `data_root`."""
    captions: str | None = None
    """File that gives each image its captions (captions); relative paths start at `data_root`."""
    limit_per_class: int | None = None
    """Keep at most so many images of a class in each split: for quick runs."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            known = ", ".join(KINDS)
            raise ConceptBenchError(f"Data set {self.name} has the unknown kind '{self.kind}'; choose one of {known}.")
        numbers = {"pairs": self.pairs, **{f"sizes.{split}": size for split, size in self.sizes.items()}}
        for option, number in numbers.items():
            if number < 0:
                raise ConceptBenchError(f"Data set {self.name} has {option} = {number}; give a number of images >= 0.")
        if self.images_per_class < 4:
            raise ConceptBenchError(f"Data set {self.name} needs images_per_class >= 4 to fill three splits.")
        if self.limit_per_class is not None and self.limit_per_class < 1:
            raise ConceptBenchError(f"Data set {self.name} has limit_per_class < 1; give at least 1 or leave it out.")
        if self.kind == "folder" and not self.path:
            raise ConceptBenchError(f"Data set {self.name} is of kind folder and needs a path to its images.")
        if self.kind == "captions" and not (self.path and self.captions):
            raise ConceptBenchError(f"Data set {self.name} is of kind captions and needs path and captions.")

    @classmethod
    def of(cls, name: str, options: Mapping[str, Any]) -> "DatasetSpec":
        """The specification from the configuration's plain values; what is None keeps its default."""
        known = set(cls.__dataclass_fields__) - {"name"}
        unknown = sorted(set(options) - known)
        if unknown:
            raise ConceptBenchError(f"Data set {name} has the unknown option(s) {', '.join(unknown)}; remove them.")
        given = {key: value for key, value in options.items() if value is not None}
        if "sizes" in given:
            given["sizes"] = {split: size for split, size in given["sizes"].items() if size is not None}
        return cls(name=name, **given)

    def record(self) -> dict[str, Any]:
        """The options that matter for this kind, as they go into the card."""
        options = {
            "scenes": ("sizes", "pairs"),
            "flora": ("images_per_class",),
            "terra": ("images_per_class",),
            "folder": ("path",),
            "captions": ("path", "captions"),
        }.get(self.kind, ())
        values = asdict(self)
        kept = {key: values[key] for key in ("name", "kind", "limit_per_class", *options)}
        return {key: value.as_posix() if isinstance(value, Path) else value for key, value in kept.items()}
