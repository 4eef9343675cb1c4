"""What speaks for a class before and after adaptation: the latents whose effect rose and fell, with their exemplars."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from numpy.typing import NDArray

from conceptbench.errors import ConceptBenchError
from conceptbench.figures.exemplars import overlay
from conceptbench.figures.style import (
    FORMATS,
    INTERVAL,
    PALETTE,
    POOLED_SEED,
    Key,
    figure_look,
    in_order,
    mark,
    missing_text,
    new_sheet,
    require,
    save_empty,
    save_figure,
    tidy,
)

COLUMNS = (
    "task", "method", "label", "class_name", "latent", "change", "model", "effect", "estimate", "low", "high", "n",
    "seed", "note",
)  # fmt: skip
REMAPPING = (
    "task", "method", "dictionary", "label", "class_name", "seed", "estimate", "low", "high", "n", "note",
)  # fmt: skip
VALIDITY = ("task", "method", "dictionary", "statistic", "seed", "estimate", "margin", "exceeds")
SIDES = {
    "zero-shot": Key("before adaptation", PALETTE[0], "s", ""),
    "adapted": Key("after adaptation", PALETTE[1], "D", ""),
}
EXACT = Key("by removing the latent (bars: to first order)", "#000000", "x", "")
FOLLOWED = "followed"
KINDS = ("rose", "fell")
HEADS = {"rose": "rose: speaks more for the class", "fell": "fell: speaks less for it, or against it"}
ENDS = 6
"""Of more than twice as many classes, this many of either end are shown."""
PICTURES = ("images", "maps", "latent", "change", "model", "label", "method", "task")


@figure_look()
def draw_association(
    association_shown: pd.DataFrame,
    remapping: pd.DataFrame,
    validity: pd.DataFrame,
    pictures: Path,
    stem: Path,
    *,
    formats: Sequence[str] = FORMATS,
    dpi: int = 150,
) -> None:
    """Draw a row a task: remapping of every class under the adaptation that is shown, and one class in detail.

    Args:
        association_shown, remapping, validity: tables. pictures: .npz with the exemplars of the latents shown.
    """
    table = require(association_shown, "association_shown", COLUMNS)[list(COLUMNS)]
    remapped = require(remapping, "remapping", REMAPPING)
    remapped = remapped.loc[remapped["seed"] == POOLED_SEED, list(REMAPPING)].reset_index(drop=True)
    fits = require(validity, "validity", VALIDITY)
    title = "Which latents speak for a class, before and after adaptation?"
    if table.empty:
        save_empty(title, "No adaptation was compared.", remapped, stem, formats=formats, dpi=dpi)
        return
    arrays = _load(pictures)
    tasks = [(task, str(table.loc[table["task"] == task, "method"].iloc[0])) for task in in_order(table["task"])]
    sheet = new_sheet(
        title,
        width=11.0,
        height=4.1 * len(tasks),
        keys=[*SIDES.values(), EXACT],
        notes=[*_notes(), *(_validity(fits, *pair) for pair in tasks)],
    )
    strips = sheet.body.subfigures(len(tasks), 1, squeeze=False)
    for (task, method), strip in zip(tasks, strips[:, 0], strict=True):
        sides: Any = strip.subfigures(1, 2, width_ratios=[1.0, 2.6])
        _classes(sides[0].subplots(), remapped[(remapped["task"] == task) & (remapped["method"] == method)])
        at = np.flatnonzero((arrays["task"] == task) & (arrays["method"] == method))
        _detail(sides[1], table[table["task"] == task], {name: values[at] for name, values in arrays.items()})
    values = pd.concat([remapped, table], ignore_index=True)
    save_figure(sheet, values, stem, formats=formats, dpi=dpi)


def _load(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in PICTURES}
    except FileNotFoundError as error:
        raise ConceptBenchError(f"Pictures {path} do not exist; run the rule that writes them.") from error
    except (OSError, ValueError, KeyError, BadZipFile, EOFError) as error:
        raise ConceptBenchError(f"Pictures {path} are unreadable ({error}); delete the file and run again.") from error


def _detail(right: SubFigure, table: pd.DataFrame, arrays: dict[str, NDArray[Any]]) -> None:
    """The latents of one class with their exemplars: those that rose on the left, those that fell on the right."""
    lines = max(int((arrays["change"] == kind).sum()) for kind in KINDS)
    ranks = arrays["images"].shape[1]
    grid = right.subplots(lines, 2 * (1 + ranks), width_ratios=[1.9, *[1] * ranks] * 2, squeeze=False)
    ends = table[["estimate", "low", "high"]].to_numpy()
    for half, kind in enumerate(KINDS):
        column = half * (1 + ranks)
        chosen = np.flatnonzero(arrays["change"] == kind)
        for line in range(lines):
            cells = grid[line, column : column + 1 + ranks]
            if line >= len(chosen):
                for axes in cells:
                    axes.set_axis_off()
                continue
            item = chosen[line]
            latent = int(arrays["latent"][item])
            _bars(cells[0], table[table["latent"] == latent], ends, last=line == lines - 1)
            cells[0].set_yticks([0.5], [str(latent)])
            _images(cells[1:], arrays["images"][item], arrays["maps"][item])
        grid[0, column].set_title(HEADS[kind], loc="left", fontsize=8.5)
    first = table.iloc[0]
    heading = f"{first['task']}: class {first['class_name']} under {first['method']}"
    right.suptitle(heading, fontsize=10, x=0.02, ha="left")


def _classes(axes: Axes, remapped: pd.DataFrame) -> None:
    """Remapping of every class, the largest first, below their mean and that by the dictionary learnt again."""
    followed = remapped["dictionary"] == FOLLOWED
    means = remapped[remapped["label"] < 0].sort_values("dictionary", key=lambda column: column != FOLLOWED)
    classes = remapped[followed & (remapped["label"] >= 0)].sort_values("estimate", ascending=False)
    cut = len(means) + ENDS if len(classes) > 2 * ENDS else None
    label = "remapping"
    if cut is not None:
        label += f"\n({ENDS} most, {ENDS} least of {len(classes)})"
        classes = pd.concat([classes.head(ENDS), classes.tail(ENDS)])
        axes.axhline(cut - 0.5, color="#8C8C8C", lw=1, ls=(0, (2, 2)))
    rows = pd.concat([means, classes])
    axes.axvline(0, color="#8C8C8C", lw=1)
    names = []
    for at, (_, row) in enumerate(rows.iterrows()):
        mean, own = row["label"] < 0, row["dictionary"] == FOLLOWED
        colour = "#000000" if mean else PALETTE[2]
        mark(axes, row, at, colour=colour, marker="D" if mean else "o", hollow=not own, size=4.6)
        if not np.isfinite(row["estimate"]):
            missing_text(axes, str(row["note"]) or "not defined", 0.02, at)
        names.append(("mean" if own else "relearnt") if mean else str(row["class_name"]))
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel(label)
    axes.set_title(f"{rows['task'].iloc[0]} · {rows['method'].iloc[0]}")
    tidy(axes)


def _bars(axes: Axes, rows: pd.DataFrame, ends: NDArray[np.float64], *, last: bool) -> None:
    """First-order effect under both models with its interval, and the exact one; all latents of a task alike."""
    axes.axvline(0, color="#8C8C8C", lw=1)
    for at, (side, key) in enumerate(SIDES.items()):
        mine = rows[rows["model"] == side].set_index("effect")
        value, exact = mine.loc["first order"], mine["estimate"]["exact"]
        axes.barh(at, value["estimate"], height=0.62, color=key.colour)
        if np.isfinite(value["low"]):
            axes.plot([value["low"], value["high"]], [at, at], color="#404040", lw=1.2, solid_capstyle="butt")
        if value["n"]:
            axes.plot([exact], [at], ls="", marker="x", color=EXACT.colour, ms=4.5, mew=1.1)
    low, high = min(float(np.nanmin(ends)), 0.0), max(float(np.nanmax(ends)), 0.0)
    margin = 0.08 * max(high - low, 1e-9)
    axes.set_xlim(low - margin, high + margin)
    axes.set_ylim(1.6, -0.6)
    axes.tick_params(axis="y", length=0)
    if last:
        axes.set_xlabel("logits", fontsize=8)
    else:
        axes.set_xticklabels([])
    tidy(axes)


def _images(cells: NDArray[Any], images: NDArray[np.uint8], maps: NDArray[np.float32]) -> None:
    top = float(np.nanmax(maps)) if np.isfinite(maps).any() else 1.0
    for axes, image, heat in zip(cells, images, maps, strict=True):
        axes.set_axis_off()
        if np.isfinite(heat).all():
            axes.imshow(overlay(image, heat / (top or 1.0)), interpolation="nearest")


def _validity(fits: pd.DataFrame, task: str, method: str) -> str:
    """A sentence on whether the dictionary still explains the adapted model; nothing where activations are shared."""
    mine = fits[(fits["task"] == task) & (fits["method"] == method) & (fits["seed"] == POOLED_SEED)]
    mine = mine[(mine["dictionary"] == FOLLOWED) & (mine["statistic"] == "fvu_rise")]
    if mine.empty:
        return ""
    row = mine.iloc[0]
    verdict = "more than" if row["exceeds"] else "within"
    return (
        f"On {task} under {method} the dictionary's FVU differs from that on the zero-shot activations by "
        f"{row['estimate']:+.3f}, {verdict} the margin of {row['margin']:.2f}"
        + (": what its latents say about the adapted model is less certain." if row["exceeds"] else ".")
    )


def _notes() -> list[str]:
    return [
        "Bars: mean change of the class's logit when the latent is removed, less the mean over classes, on images "
        "where it fires (first order, the dictionary's error kept); lines: 95 % intervals over these images, one seed. "
        "The class and its latents are chosen on one half of the images of split B, values are of the other; no bar: "
        "the latent does not fire there. Pictures: the images of split B on which the latent is strongest, in grey, "
        "its activation tinted, under the model in which it speaks more strongly for or against the class. An empty "
        "place: it fires on no further image. No tint: it fires on the class token alone.",
        "Left: one less the correlation of the class's associations before and after, beyond that of two halves of the "
        f"images; 0 is no more than resampling. Bars: {INTERVAL}, images and seeds. Relearnt: the mean with the "
        "same dictionary learnt on the adapted model. Of many classes the ends are shown; the table has all.",
    ]
