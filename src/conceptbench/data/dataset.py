"""A prepared data set: its manifest, and its images by row."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Int, UInt8
from PIL import Image

from conceptbench.data.files import read_image
from conceptbench.data.spec import RENDERED
from conceptbench.errors import ConceptBenchError
from conceptbench.seeds import rng
from conceptbench.tables import read_json, read_table

COLUMNS = ("image", "path", "stream", "index", "label", "class_name", "split", "captions", "sha256")
"""Columns of every manifest; rendered kinds add their factors."""


@dataclass(frozen=True)
class Dataset:
    """Images with labels and splits; row number and `image` are the same."""

    name: str
    kind: str
    classes: tuple[str, ...]
    manifest: pd.DataFrame
    card: dict[str, Any]
    root: Path | None
    """Folder of the image files; None for rendered kinds."""

    def __len__(self) -> int:
        return len(self.manifest)

    @property
    def digest(self) -> str:
        """Digest of the manifest's content, which covers every pixel by its checksum."""
        return str(self.card["digest"])

    def rows(self, split: str) -> Int[np.ndarray, " n"]:
        """The rows of a split, in order.

        Raises:
            ConceptBenchError: when the split is unknown.
        """
        found = np.flatnonzero(self.manifest["split"].to_numpy() == split)
        if not len(found):
            known = ", ".join(self.manifest["split"].unique())
            raise ConceptBenchError(f"Data set {self.name} has no split '{split}'; it has {known}.")
        return found

    def sample(self, split: str, n: int | None, seed: int) -> Int[np.ndarray, " n"]:
        """At most ``n`` rows of a split, drawn without replacement and put in order; all of them for None.

        Files are often listed class by class, so the first n would be a few classes only.
        """
        rows = self.rows(split)
        if n is None or n >= len(rows):
            return rows
        return np.sort(rng(seed, "sample", self.name, split).choice(rows, n, replace=False))

    def labels(self, rows: Sequence[int] | np.ndarray) -> Int[np.ndarray, " n"]:
        """Labels of rows (-1: none)."""
        labels: np.ndarray = self.manifest["label"].to_numpy()[np.asarray(rows, dtype=np.int64)]
        return labels

    def images(self, rows: Sequence[int] | np.ndarray) -> UInt8[np.ndarray, "n height width 3"]:
        """Pixels of rows, which must be of one size.

        Raises:
            ConceptBenchError: when the images have different sizes, or a file is missing, damaged or changed.
        """
        wanted = self._checked(rows)
        if self.kind in RENDERED:
            from conceptbench.data.rendered import draw  # starts the renderers' compiler, so only when needed

            return draw(self.kind, self.manifest.iloc[wanted], int(self.card["world_seed"]))
        arrays = [np.asarray(self._read(row)) for row in wanted]
        sizes = {array.shape[:2] for array in arrays}
        if len(sizes) > 1:
            raise ConceptBenchError(f"Images of data set {self.name} differ in size; read them one by one with pil().")
        height, width = sizes.pop() if sizes else (0, 0)
        return np.stack(arrays) if arrays else np.empty((0, height, width, 3), dtype=np.uint8)

    def pil(self, row: int) -> Image.Image:
        """One image in RGB."""
        if self.kind in RENDERED:
            return Image.fromarray(self.images([row])[0])
        return self._read(int(self._checked([row])[0]))

    def pictures(self, rows: Sequence[int] | np.ndarray) -> "UInt8[np.ndarray, 'n height width 3'] | list[Image.Image]":
        """Images of rows for a backbone's preprocessing: one array where all have one size (fast), else a list."""
        if self.card["image_size"] is not None:
            return self.images(rows)
        return [self.pil(int(row)) for row in rows]

    def thumbnails(self, rows: Sequence[int] | np.ndarray, side: int = 64) -> UInt8[np.ndarray, "n side side 3"]:
        """Small square pictures of rows, for figures: images of another size are squashed."""
        small = [self.pil(int(row)).resize((side, side), Image.Resampling.BICUBIC) for row in rows]
        return np.stack([np.asarray(image) for image in small])

    def _checked(self, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        wanted = np.asarray(rows, dtype=np.int64).reshape(-1)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise ConceptBenchError(
                f"Data set {self.name} has rows 0 to {len(self) - 1}; row {wanted.max()} was asked for."
            )
        return wanted

    def _read(self, row: int) -> Image.Image:
        if self.root is None:
            raise ConceptBenchError(
                f"Data set {self.name} was opened without its images; set data_root and open it again."
            )
        return read_image(self.root / self.manifest["path"].iloc[row], self.manifest["sha256"].iloc[row])[0]


def manifest_digest(manifest: pd.DataFrame) -> str:
    """SHA-256 of the content of a manifest, whatever file it is in: each column's name and values as JSON, by name."""
    total = hashlib.sha256()
    for name in sorted(manifest.columns):
        values = manifest[name].tolist()
        plain = [list(texts) for texts in values] if name == "captions" else values
        total.update(json.dumps([name, plain], ensure_ascii=False, allow_nan=False).encode())
    return total.hexdigest()


def open_dataset(folder: Path, data_root: Path | None = None) -> Dataset:
    """Open what `prepare_dataset` wrote; image files are looked for under `data_root`.

    Raises:
        ConceptBenchError: when a file is missing or does not match its card, or the images cannot be found.
    """
    folder = Path(folder)
    card = read_json(folder / "card.json")
    manifest = read_table(folder / "manifest.parquet", COLUMNS)
    if manifest_digest(manifest) != card.get("digest"):
        raise ConceptBenchError(
            f"Manifest {folder / 'manifest.parquet'} does not match its card.json; prepare it again."
        )
    root = _image_root(card, data_root)
    return Dataset(card["name"], card["kind"], tuple(card["classes"]), manifest, card, root)


def _image_root(card: dict[str, Any], data_root: Path | None) -> Path | None:
    """Where the files are; None for rendered kinds, and where only the manifest is wanted (no data_root)."""
    relative: str | None = card["image_root"]
    if relative is None:
        return None
    if data_root is None and not Path(relative).is_absolute() and card["kind"] not in ("folder", "captions"):
        return None
    root = Path(data_root or "") / relative
    if not root.is_dir():
        raise ConceptBenchError(f"Images of data set {card['name']} are not in {root}; set data_root to their folder.")
    return root
