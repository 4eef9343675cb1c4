"""How many images and classes a data set has, before any file is opened: by its specification or as published."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from conceptbench.config.datasets import (
    TRAIN_SHARE,
    Captions,
    DatasetSpec,
    Flora,
    Folder,
    Scenes,
    Terra,
)
from conceptbench.config.stages import MEASURED_SPLITS
from conceptbench.errors import ConceptBenchError

FLORA_CLASSES: Final = 24
TERRA_CLASSES: Final = 10
VAL_SHARE: Final = 0.2
IMAGE_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".webp", ".tif", ".tiff"})


@dataclass(frozen=True)
class Images:
    """Images of a data set by split."""

    splits: Mapping[str, int]
    classes: int = 0
    """Classes of a task; 0 when it has none."""
    files: bool = False
    """Whether images are files, which have to be read and decoded, and not rendered."""

    @property
    def all(self) -> int:
        """Images of every split."""
        return sum(self.splits.values())

    @property
    def measured(self) -> int:
        """Images of the splits on which something is measured."""
        return sum(self.splits.get(split, 0) for split in MEASURED_SPLITS)

    def trained_classes(self, setting: str) -> int:
        """Classes that an adaptation sees: the first half, or all."""
        return -(-self.classes // 2) if setting == "base-to-novel" else self.classes


def _published(train: int, val: int, test: int, classes: int) -> Images:
    return Images({"train": train, "val": val, "test": test}, classes, files=True)


PUBLISHED: Final[dict[str, Images]] = {
    "imagenet": _published(1_281_167, 25_000, 25_000, 1000),
    "caltech101": _published(4_128, 1_649, 2_465, 100),
    "oxford-pets": _published(2_944, 736, 3_669, 37),
    "stanford-cars": _published(6_509, 1_635, 8_041, 196),
    "flowers": _published(4_093, 1_633, 2_463, 102),
    "food101": _published(50_500, 20_200, 30_300, 101),
    "fgvc-aircraft": _published(3_334, 3_333, 3_333, 100),
    "sun397": _published(15_880, 3_970, 19_850, 397),
    "dtd": _published(2_820, 1_128, 1_692, 47),
    "eurosat": _published(13_500, 5_400, 8_100, 10),
    "ucf101": _published(7_639, 1_898, 3_783, 101),
    "cub-200": _published(4_795, 1_199, 5_794, 200),
    "coco": _published(118_287, 2_500, 2_500, 0),
    "ade20k": _published(20_210, 1_000, 1_000, 0),
}
"""Images of published data sets: CoOp's splits (Zhou et al., arXiv 2109.01134), and those of this project elsewhere."""


def images_of(name: str, spec: DatasetSpec, data_root: Path | None = None) -> Images:
    """Count the images of a data set; of a folder of the user's own, by looking into it.

    Raises:
        ConceptBenchError: when the folder is not there.
    """
    match spec:
        case Scenes():
            sizes = spec.sizes.model_dump(by_alias=True)
            drawn = {split: size for split, size in sizes.items() if size is not None}
            return Images({**drawn, "pairs": 2 * spec.pairs})
        case Flora():
            return _split(spec.images_per_class, FLORA_CLASSES, files=False)
        case Terra():
            return _split(spec.images_per_class, TERRA_CLASSES, files=False)
        case Folder() | Captions():
            return _limited(_look_into((data_root or Path()) / spec.path, name), spec.limit_per_class)
        case _:
            return _limited(PUBLISHED[spec.kind], spec.limit_per_class)


def _split(per_class: int, classes: int, *, files: bool) -> Images:
    train, val = round(per_class * TRAIN_SHARE), round(per_class * VAL_SHARE)
    counts = {"train": train, "val": val, "test": per_class - train - val}
    return Images({split: count * classes for split, count in counts.items()}, classes, files)


def _look_into(folder: Path, name: str) -> Images:
    if not folder.is_dir():
        raise ConceptBenchError(f"Data set {name} cannot be planned: there is no folder {folder}; correct its path.")
    count = sum(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.rglob("*"))
    classes = sum(path.is_dir() for path in folder.iterdir())
    return Images(_split(count, 1, files=True).splits, classes, files=True)


def _limited(found: Images, limit: int | None) -> Images:
    if limit is None:
        return found
    most = limit * max(found.classes, 1)
    return Images({split: min(count, most) for split, count in found.splits.items()}, found.classes, found.files)
