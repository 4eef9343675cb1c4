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
from conceptbench.figures.style import FORMATS, figure_look, new_sheet, require, save_empty, save_figure
from conceptbench.tables import atomic_write

ARRAYS = ("images", "maps", "latent", "image", "image_score", "score", "title")
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
    """[latent, k, height, width, 3]: top images, best first; slots without an image are zero."""
    maps: NDArray[np.float32]
    """[latent, k, grid row, grid column]: the latent on the patch tokens of each image (0 where it does not fire)."""
    latent: NDArray[np.int64]
    """[latent]: number of the latent."""
    image: NDArray[np.int64]
    """[latent, k]: image number in its data set; -1 for a slot without an image."""
    image_score: NDArray[np.float64]
    """[latent, k]: mean activation of the latent over all tokens of the image (definition A)."""
    score: NDArray[np.float64]
    """[latent]: the number the latent was chosen by; NaN when there is none."""
    title: NDArray[np.str_]
    """[latent]: what the latent was chosen for, in words, such as "colour = red"."""
    note: str = ""
    """Where latents and images come from and the rule of choice, in words."""

    def __post_init__(self) -> None:
        n, k = self.images.shape[:2]
        shapes = {"maps": (n, k), "latent": (n,), "image": (n, k), "image_score": (n, k), "score": (n,), "title": (n,)}
        wrong = [name for name, shape in shapes.items() if getattr(self, name).shape[: len(shape)] != shape]
        if self.images.ndim != 5 or self.images.dtype != np.uint8 or self.maps.ndim != 4 or wrong:
            raise ConceptBenchError(
                f"Exemplars need images uint8 [latent, k, height, width, 3] and arrays that match them; got images "
                f"{self.images.dtype} {self.images.shape} and unfit {', '.join(wrong) or 'maps'}."
            )

    def save(self, path: Path | str) -> None:
        """Write the sheet as one .npz file, complete or absent."""
        with atomic_write(path) as temporary:
            arrays = {name: getattr(self, name) for name in ARRAYS}
            np.savez_compressed(temporary, allow_pickle=False, note=np.array(self.note), **arrays)


def load_exemplars(path: Path | str) -> ExemplarSheet:
    """Read a sheet of exemplars.

    Raises:
        ConceptBenchError: when the file is missing, unreadable, or lacks an array.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            return ExemplarSheet(**{name: stored[name] for name in ARRAYS}, note=str(stored["note"].item()))
    except FileNotFoundError as error:
        raise ConceptBenchError(f"Exemplars {path} do not exist; run the rule that writes them.") from error
    except (OSError, ValueError, KeyError, BadZipFile, EOFError) as error:
        raise ConceptBenchError(f"Exemplars {path} are unreadable ({error}); delete the file and run again.") from error


def choose_by_factor(
    truth_factors: pd.DataFrame, *, backbone: str, block: int, dictionary: str, seed: str = "0", count: int = 6
) -> pd.DataFrame:
    """Latents for the figure where factors are known: the rule is fixed before anyone looks at the images.

    Factors take turns in the order of the table; each turn takes the factor's value with the largest AUROC on split A
    whose latent is not taken yet. Only latents that fire for the value (sign +1) can be shown.

    Returns:
        latent, title ("colour = red"), score (AUROC on split A), in the order chosen; at most `count` rows.
    """
    columns = ("backbone", "block", "dictionary", "seed", "factor", "value", "metric", "latent", "sign", "selected")
    table = require(truth_factors, "truth_factors", columns)
    of_dictionary = (table["backbone"] == backbone) & (table["block"] == block) & (table["dictionary"] == dictionary)
    usable = (table["metric"] == "auroc") & (table["sign"] > 0) & (table["latent"] >= 0) & table["selected"].notna()
    rows = table[of_dictionary & usable & (table["seed"] == str(seed))]
    queues = {
        factor: frame.sort_values("selected", ascending=False, kind="stable").to_dict("records")
        for factor, frame in rows.groupby("factor", sort=False)
    }
    taken: dict[int, dict[str, object]] = {}
    while len(taken) < count and any(queues.values()):
        for factor, queue in queues.items():
            while queue and queue[0]["latent"] in taken:
                queue.pop(0)
            if queue and len(taken) < count:
                best = queue.pop(0)
                title = f"{factor!s} = {best['value']}"
                taken[int(best["latent"])] = {"latent": int(best["latent"]), "title": title, "score": best["selected"]}
    return pd.DataFrame(list(taken.values()), columns=["latent", "title", "score"])


def choose_by_labels(
    latents: pd.DataFrame,
    *,
    backbone: str,
    block: int,
    dictionary: str,
    dataset: str,
    seed: str = "0",
    count: int = 6,
    most_frequent: float = 0.5,
) -> pd.DataFrame:
    """Latents for the figure where no factors are known: those whose exemplars share a class, the strongest first.

    Kept: alive, not dense, firing on at most `most_frequent` of the images, with a full list of exemplars. Sorted by
    label entropy (two decimals), then by mean activation; without labels by mean activation alone.

    Returns:
        latent, title, score (label entropy), in the order chosen; at most `count` rows.
    """
    columns = ("backbone", "block", "dictionary", "seed", "dataset", "latent", "frequency_image", "mean_activation",
               "label_entropy", "n_reference", "dead", "dense")  # fmt: skip
    table = require(latents, "latents", columns)
    of_dictionary = (table["backbone"] == backbone) & (table["block"] == block) & (table["dictionary"] == dictionary)
    rows = table[of_dictionary & (table["seed"] == str(seed)) & (table["dataset"] == dataset)]
    rows = rows[~rows["dead"].astype(bool) & ~rows["dense"].astype(bool) & (rows["frequency_image"] <= most_frequent)]
    rows = rows[rows["n_reference"] == rows["n_reference"].max()]
    rows = rows.assign(rounded=rows["label_entropy"].round(2))
    rows = rows.sort_values(["rounded", "mean_activation"], ascending=[True, False], kind="stable").head(count)
    title = [
        "no labels" if pd.isna(entropy) else f"label entropy {entropy:.2f} nats" for entropy in rows["label_entropy"]
    ]
    return pd.DataFrame({"latent": rows["latent"].astype(int), "title": title, "score": rows["label_entropy"]})


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
    chosen = "" if np.isnan(sheet.score[index]) else f" ({sheet.score[index]:.2f})"
    name = textwrap.shorten(str(sheet.title[index]), max(20, int(width * CELL * 9)), placeholder="…")
    board.text(f"latent {sheet.latent[index]}: {name}{chosen}")
    top = max(float(sheet.maps[index, :width].max()), 1e-12)
    for rank in range(width):
        plain, heated = (board.axes(rank * CELL, 0.3 + line * CELL, CELL - 0.05, CELL - 0.05) for line in (0, 1))
        for axes in (plain, heated):
            axes.set_axis_off()
        if sheet.image[index, rank] < 0:
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
    """One row an image shown: which latent, image, score and strongest patch."""
    rows = []
    for index in range(count):
        for rank in range(width):
            grid = sheet.maps[index, rank]
            shown = bool(sheet.image[index, rank] >= 0)
            rows.append(
                {
                    "latent": int(sheet.latent[index]), "title": str(sheet.title[index]),
                    "score": float(sheet.score[index]), "rank": rank, "image": int(sheet.image[index, rank]),
                    "image_score": float(sheet.image_score[index, rank]),
                    "patch": int(grid.argmax()) if shown and grid.max() > 0 else -1,
                    "patch_activation": float(grid.max()) if shown else float("nan"),
                }
            )  # fmt: skip
    names = ["latent", "title", "score", "rank", "image", "image_score", "patch", "patch_activation"]
    return pd.DataFrame(rows, columns=names)


def _notes(sheet: ExemplarSheet, width: int) -> list[str]:
    return [
        sheet.note,
        f"Upper line: the {width} top images, best first from the left. Lower line: the same images in grey, every "
        "patch tinted by the latent's activation there; untinted patches: the latent does not fire.",
    ]
