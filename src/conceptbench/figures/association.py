"""What speaks for a class before and after adaptation: the latents that gained and lost, with their exemplars."""

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
    new_sheet,
    require,
    save_empty,
    save_figure,
    tidy,
)

COLUMNS = ("task", "method", "label", "class_name", "latent", "zero_shot", "adapted", "change", "seed")
REMAPPING = ("task", "method", "label", "class_name", "seed", "estimate", "low", "high", "n", "note")
BEFORE = Key("before adaptation", PALETTE[0], "s")
AFTER = Key("after adaptation", PALETTE[1], "D")
KINDS = ("gained", "lost")
PICTURES = ("images", "maps", "latent", "change", "label", "method", "task")


@figure_look()
def draw_association(
    association: pd.DataFrame,
    remapping: pd.DataFrame,
    pictures: Path,
    stem: Path,
    *,
    formats: Sequence[str] = FORMATS,
    dpi: int = 150,
) -> None:
    """Draw a row a task (its first adaptation): remapping of every class, and the most remapped class in detail.

    Args:
        association, remapping: tables. pictures: .npz with the exemplars of the latents shown.
    """
    table = require(association, "association", COLUMNS)
    remapped = require(remapping, "remapping", REMAPPING)
    remapped = remapped[remapped["seed"] == POOLED_SEED].reset_index(drop=True)
    title = "Which latents speak for a class, before and after adaptation?"
    if table.empty:
        save_empty(title, "No adaptation was compared.", remapped[list(REMAPPING)], stem, formats=formats, dpi=dpi)
        return
    arrays = _load(pictures)
    tasks = [(task, str(table.loc[table["task"] == task, "method"].iloc[0])) for task in in_order(table["task"])]
    sheet = new_sheet(title, width=11.0, height=4.1 * len(tasks), keys=[BEFORE, AFTER], notes=_notes())
    strips = sheet.body.subfigures(len(tasks), 1, squeeze=False)
    shown = []
    for (task, method), strip in zip(tasks, strips[:, 0], strict=True):
        mine = remapped[(remapped["task"] == task) & (remapped["method"] == method)]
        at = np.flatnonzero((arrays["task"] == task) & (arrays["method"] == method))
        shown.append(_row(strip, table[(table["task"] == task) & (table["method"] == method)], mine, arrays, at))
    save_figure(sheet, pd.concat([remapped, *shown], ignore_index=True), stem, formats=formats, dpi=dpi)


def _load(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in PICTURES}
    except FileNotFoundError as error:
        raise ConceptBenchError(f"Pictures {path} do not exist; run the rule that writes them.") from error
    except (OSError, ValueError, KeyError, BadZipFile, EOFError) as error:
        raise ConceptBenchError(f"Pictures {path} are unreadable ({error}); delete the file and run again.") from error


def _row(
    strip: SubFigure,
    table: pd.DataFrame,
    remapped: pd.DataFrame,
    arrays: dict[str, NDArray[Any]],
    at: NDArray[np.int64],
) -> pd.DataFrame:
    """One task: classes on the left, the latents of one class with their exemplars on the right."""
    sides: Any = strip.subfigures(1, 2, width_ratios=[1.0, 2.6])
    left, right = sides
    _classes(left.subplots(), remapped)
    label = int(arrays["label"][at[0]])
    mine = table[(table["label"] == label) & (table["seed"] == table["seed"].iloc[0])]
    lines = max(int((arrays["change"][at] == kind).sum()) for kind in KINDS)
    ranks = arrays["images"].shape[1]
    grid = right.subplots(lines, 2 * (1 + ranks), width_ratios=[1.9, *[1] * ranks] * 2, squeeze=False)
    shown = []
    for half, kind in enumerate(KINDS):
        column = half * (1 + ranks)
        chosen = at[arrays["change"][at] == kind]
        for line in range(lines):
            cells = grid[line, column : column + 1 + ranks]
            if line >= len(chosen):
                for axes in cells:
                    axes.set_axis_off()
                continue
            item = chosen[line]
            latent = mine[mine["latent"] == arrays["latent"][item]].iloc[0]
            _bars(cells[0], latent, mine, last=line == lines - 1)
            _images(cells[1:], arrays["images"][item], arrays["maps"][item])
            shown.append(latent)
        grid[0, column].set_title(f"{kind}", loc="left")
    name = str(mine["class_name"].iloc[0])
    right.suptitle(
        f"{mine['task'].iloc[0]}: class {name} under {mine['method'].iloc[0]}", fontsize=10, x=0.02, ha="left"
    )
    return pd.DataFrame(shown)[list(COLUMNS)]


def _classes(axes: Axes, remapped: pd.DataFrame) -> None:
    """Remapping of every class, the largest first, and their mean."""
    classes = remapped[remapped["label"] >= 0].sort_values("estimate", ascending=False)
    rows = pd.concat([remapped[remapped["label"] < 0], classes])
    axes.axvline(0, color="#8C8C8C", lw=1)
    for at, (_, row) in enumerate(rows.iterrows()):
        first = row["label"] < 0
        mark(axes, row, at, colour="#000000" if first else PALETTE[2], marker="D" if first else "o", size=4.6)
    names = ["mean" if row["label"] < 0 else str(row["class_name"]) for _, row in rows.iterrows()]
    axes.set_yticks(range(len(rows)), names)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlabel("remapping")
    axes.set_title(f"{rows['task'].iloc[0]} · {rows['method'].iloc[0]}")
    tidy(axes)


def _bars(axes: Axes, latent: "pd.Series[Any]", mine: pd.DataFrame, *, last: bool) -> None:
    ends = mine[mine["change"].isin(KINDS)][["zero_shot", "adapted"]].to_numpy()
    axes.axvline(0, color="#8C8C8C", lw=1)
    for at, (column, key) in enumerate((("zero_shot", BEFORE), ("adapted", AFTER))):
        axes.barh(at, latent[column], height=0.62, color=key.colour)
    margin = 0.08 * max(float(np.ptp(ends)), 1e-9)
    axes.set_xlim(min(float(ends.min()), 0) - margin, max(float(ends.max()), 0) + margin)
    axes.set_ylim(1.6, -0.6)
    axes.set_yticks([0.5], [f"{int(latent['latent'])}"])
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


def _notes() -> list[str]:
    return [
        "Bars: mean change of the class's logit when the latent is removed, less the mean over classes (first order, "
        "the dictionary's error kept), on images where it fires; one seed. Beside them the images of split B on which "
        "the latent is strongest, in grey, its activation tinted: under the adapted model for latents that gained, "
        "under zero-shot for those that lost. No tint: the latent fires on the class token alone.",
        "Left: one less the correlation of the class's associations before and after, beyond that of two halves of the "
        f"images; 0 is no more than resampling. Bars: {INTERVAL}, images and seeds.",
    ]
