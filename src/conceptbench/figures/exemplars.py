"""Exemplars: the top images of selected latents, plain and with the latent's activation on every patch."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import SubFigure
from numpy.typing import NDArray

from conceptbench.errors import ConceptBenchError
from conceptbench.figures.style import FORMATS, figure_look, new_sheet, save_empty, save_figure
from conceptbench.tables import atomic_write

NEEDED = ("images", "maps", "latent", "score")
OPTIONAL = ("image", "title")
HEAT = "inferno"
CELL = 0.86
"""Inches from one image to the next."""
LINE = 2 * CELL + 0.42
"""Inches of one latent: its name and two lines of images."""
GAP, BAR = 0.3, 0.95
"""Inches between latents side by side, and for the colour bar."""


@dataclass(frozen=True)
class ExemplarSheet:
    """What the exemplar figure shows; kept as an .npz file with arrays of these names (no pickles)."""

    images: NDArray[np.uint8]
    """[latent, rank, height, width, 3]: top images, best first; a slot without an image is black."""
    maps: NDArray[np.float32]
    """[latent, rank, grid row, grid column]: the latent on each patch token; NaN for a slot without an image."""
    latent: NDArray[np.int64]
    """[latent]: number of the latent."""
    score: NDArray[np.floating[Any]]
    """[latent, rank]: mean activation over all tokens of the image (definition A); NaN without an image."""
    image: NDArray[np.int64] | None = None
    """[latent, rank]: image number in its data set, for the CSV."""
    title: NDArray[np.str_] | None = None
    """[latent]: what the latent was chosen for, in words, such as "colour = red"."""
    note: str = ""
    """Where latents and images come from and the rule of choice, in words."""

    def __post_init__(self) -> None:
        n, k = self.images.shape[:2]
        shapes = {"maps": (n, k), "latent": (n,), "score": (n, k), "image": (n, k), "title": (n,)}
        arrays = {name: getattr(self, name) for name in shapes}
        wrong = [name for name, array in arrays.items() if array is not None and array.shape[:2] != shapes[name]]
        if self.images.ndim != 5 or self.images.dtype != np.uint8 or self.maps.ndim != 4 or wrong:
            raise ConceptBenchError(
                f"Exemplars need images uint8 [latent, rank, height, width, 3] and arrays that match them; got images "
                f"{self.images.dtype} {self.images.shape} and unfit {', '.join(wrong) or 'maps'}; measure them again."
            )

    def save(self, path: Path | str) -> None:
        """Write the sheet as one .npz file, complete or absent."""
        arrays = {name: getattr(self, name) for name in (*NEEDED, *OPTIONAL) if getattr(self, name) is not None}
        with atomic_write(path) as temporary:
            np.savez_compressed(temporary, allow_pickle=False, note=np.array(self.note), **arrays)

    def shown(self, index: int, rank: int) -> bool:
        """Whether a slot has an image."""
        return bool(np.isfinite(self.maps[index, rank]).all())

    def name(self, index: int) -> str:
        """The latent's title, or nothing."""
        return "" if self.title is None else str(self.title[index])


def load_exemplars(path: Path | str) -> ExemplarSheet:
    """Read a sheet of exemplars.

    Raises:
        ConceptBenchError: when the file is missing, unreadable, or lacks an array.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in NEEDED} | {n: stored[n] for n in OPTIONAL if n in stored}
            return ExemplarSheet(**arrays, note=str(stored["note"].item()) if "note" in stored else "")
    except FileNotFoundError as error:
        raise ConceptBenchError(f"Exemplars {path} do not exist; run the rule that writes them.") from error
    except (OSError, ValueError, KeyError, BadZipFile, EOFError) as error:
        raise ConceptBenchError(f"Exemplars {path} are unreadable ({error}); delete the file and run again.") from error


@figure_look()
def draw_exemplars(
    exemplars: ExemplarSheet | Path | str,
    stem: Path,
    *,
    latents: int = 6,
    images: int = 5,
    formats: Sequence[str] = FORMATS,
    dpi: int = 150,
) -> None:
    """Draw two lines a latent: its top images, and the same images with the patch activations over them.

    Args:
        exemplars: the sheet, or the .npz file that holds it. latents, images: the most to show.
    """
    sheet = exemplars if isinstance(exemplars, ExemplarSheet) else load_exemplars(exemplars)
    count, width = min(latents, len(sheet.latent)), min(images, sheet.images.shape[1])
    title = "Exemplars: the images on which a latent is strongest, and where on them it fires"
    values = _values(sheet, count, width)
    if count == 0:
        save_empty(title, "No latent was selected.", values, stem, formats=formats, dpi=dpi)
        return
    columns = 1 if count == 1 or width > 6 else 2
    rows = -(-count // columns)
    size = (max(5.6, 0.15 + columns * (width * CELL + GAP) + BAR), rows * LINE)
    canvas = new_sheet(title, width=size[0], height=size[1], notes=_notes(sheet, width))
    for index in range(count):
        left = 0.15 + (index % columns) * (width * CELL + GAP)
        _latent(_Board(canvas.body, size, left, (index // columns) * LINE), sheet, index, width)
    board = _Board(canvas.body, size, size[0] - BAR + 0.1, 0.3)
    bar = canvas.figure.colorbar(
        ScalarMappable(Normalize(0, 1), mpl.colormaps[HEAT]), cax=board.axes(0, 0, 0.16, min(3.0, size[1] - 0.4))
    )
    bar.set_label("activation on the patch\n(share of the latent's maximum)", fontsize=8)
    save_figure(canvas, values, stem, formats=formats, dpi=dpi)


@dataclass(frozen=True)
class _Board:
    """A spot of the body, in inches from its upper left corner, where axes are placed by hand."""

    body: SubFigure
    size: tuple[float, float]
    left: float
    top: float

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        """Axes whose upper left corner is `x` right of and `y` below the spot."""
        lower = self.size[1] - self.top - y - height
        box = ((self.left + x) / self.size[0], lower / self.size[1], width / self.size[0], height / self.size[1])
        return self.body.add_axes(box)

    def text(self, words: str) -> None:
        """Bold words at the spot."""
        at = (self.left / self.size[0], 1 - (self.top + 0.15) / self.size[1])
        self.body.text(*at, words, fontsize=9, fontweight="bold", va="center")


def _latent(board: _Board, sheet: ExemplarSheet, index: int, width: int) -> None:
    """Both lines of one latent below its name."""
    name = textwrap.shorten(sheet.name(index), max(20, int(width * CELL * 9)), placeholder="…")
    board.text(f"latent {sheet.latent[index]}" + (f": {name}" if name else ""))
    present = [sheet.maps[index, rank] for rank in range(width) if sheet.shown(index, rank)]
    top = max([float(grid.max()) for grid in present], default=0.0) or 1.0
    for rank in range(width):
        plain, heated = (board.axes(rank * CELL, 0.3 + line * CELL, CELL - 0.05, CELL - 0.05) for line in (0, 1))
        for axes in (plain, heated):
            axes.set_axis_off()
        if not sheet.shown(index, rank):
            plain.text(0.5, 0.5, "no further\nimage", ha="center", va="center", fontsize=7, transform=plain.transAxes)
            continue
        picture = sheet.images[index, rank]
        _show(plain, picture)
        _show(heated, overlay(picture, sheet.maps[index, rank] / top))


def _show(axes: Axes, picture: NDArray[np.uint8]) -> None:
    axes.imshow(picture, interpolation="nearest")


def overlay(picture: NDArray[np.uint8], share: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    """A dimmed grey picture with every patch tinted by its share of the maximum (clipped to 0..1).

    Args:
        picture: [height, width, 3]. share: [grid row, grid column], stretched to the picture by nearest patch.
    """
    height, width = picture.shape[:2]
    row = np.arange(height) * share.shape[0] // height
    column = np.arange(width) * share.shape[1] // width
    strength = np.clip(share, 0, 1)[np.ix_(row, column)]
    grey = 0.6 * picture.astype(np.float64).mean(axis=-1, keepdims=True) / 255 + 0.12
    tint = mpl.colormaps[HEAT](strength)[..., :3]
    alpha = (0.25 * (strength > 0) + 0.5 * strength)[..., None]
    return np.asarray(np.round(255 * ((1 - alpha) * grey + alpha * tint)), dtype=np.uint8)


def _values(sheet: ExemplarSheet, count: int, width: int) -> pd.DataFrame:
    """One row an image shown: which latent, image, score and strongest patch (-1 when none fires)."""
    rows = []
    for index in range(count):
        for rank in [rank for rank in range(width) if sheet.shown(index, rank)]:
            grid = sheet.maps[index, rank]
            image = -1 if sheet.image is None else int(sheet.image[index, rank])
            patch = int(grid.argmax()) if grid.max() > 0 else -1
            row = (int(sheet.latent[index]), sheet.name(index), rank, image, float(sheet.score[index, rank]), patch)
            rows.append((*row, float(grid.max())))
    names = ["latent", "title", "rank", "image", "score", "patch", "patch_activation"]
    return pd.DataFrame(rows, columns=names)


def _notes(sheet: ExemplarSheet, width: int) -> list[str]:
    return [
        sheet.note,
        f"Upper line: the {width} top images, best first from the left. Lower line: the same images in grey, every "
        "patch tinted by the latent's activation there; untinted patches: the latent does not fire.",
    ]
