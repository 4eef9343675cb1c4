"""Class-level activations before against after adaptation, with the regions that are counted."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from conceptbench.figures.style import (
    FORMATS,
    NULL_COLOUR,
    PALETTE,
    POOLED_SEED,
    Key,
    figure_look,
    in_order,
    new_sheet,
    require,
    save_empty,
    save_figure,
    tidy,
)

POINTS = ("task", "method", "label", "class_name", "latent", "zero_shot", "adapted", "region", "seed")
REGIONS = ("task", "method", "label", "region", "comparison", "upper_bound", "lower_bound", "seed", "estimate")
KEYS: dict[str, Key] = {
    "high": Key("high in both", PALETTE[2], "o", ""),
    "high_to_low": Key("high before, low after", PALETTE[0], "v", ""),
    "low_to_high": Key("low before, high after", PALETTE[1], "^", ""),
    "between": Key("high in one, between the bounds in the other", PALETTE[5], "s", ""),
    "": Key("below the upper bound in both", NULL_COLOUR, ".", ""),
}
CLASSES = 3
"""Classes drawn for each task: of the smallest, the median and the largest share of latents high in both."""
FEW = 4
"""Tasks and methods that have a row each; of more, two share a row."""


@figure_look()
def draw_remapping_scatter(
    overlap_points: pd.DataFrame,
    overlap_regions: pd.DataFrame,
    stem: Path,
    *,
    formats: Sequence[str] = FORMATS,
    dpi: int = 150,
) -> None:
    """Draw three classes of each task and method side by side, with the bounds of the regions.

    Args:
        overlap_points, overlap_regions: tables of the rule measure_overlap; the first seed is drawn.
    """
    points = require(overlap_points, "overlap_points", POINTS)[list(POINTS)]
    regions = require(overlap_regions, "overlap_regions", REGIONS)
    regions = regions[(regions["comparison"] == "adapted") & (regions["label"] >= 0)]
    regions = regions[regions["seed"] != POOLED_SEED]
    title = "Class-level activations before and after adaptation"
    if points.empty:
        save_empty(title, "No adaptation changes the image tower.", points, stem, formats=formats, dpi=dpi)
        return
    points = points[points["seed"] == points["seed"].iloc[0]]
    regions = regions[regions["seed"] == points["seed"].iloc[0]]
    pairs = list(dict.fromkeys(zip(points["task"], points["method"], strict=True)))
    keys = [KEYS[name] for name in in_order(points["region"], tuple(KEYS))]
    across, size, end = (1, 3.0, ": ") if len(pairs) <= FEW else (2, 2.3, "\n")
    down = -(-len(pairs) // across)
    sheet = new_sheet(
        title, width=(size + 0.1) * CLASSES * across + 0.5, height=size * down, keys=keys, notes=_notes()
    )  # fmt: skip
    grid = sheet.body.subplots(down, CLASSES * across, squeeze=False)
    for axes in grid.reshape(-1, CLASSES)[len(pairs) :].ravel():
        axes.set_axis_off()
    for line, (task, method) in zip(grid.reshape(-1, CLASSES), pairs, strict=False):
        mine = points[(points["task"] == task) & (points["method"] == method)]
        bounds = regions[(regions["task"] == task) & (regions["method"] == method)]
        labels = _typical(bounds)
        for axes, label in zip(line, labels, strict=False):
            _scatter(axes, mine[mine["label"] == label], bounds[bounds["label"] == label])
            name = mine.loc[mine["label"] == label, "class_name"].iloc[0]
            axes.set_title(f"{task} · {method}{end}{name}", fontsize=9)
        for axes in line[len(labels) :]:
            axes.set_axis_off()
        line[0].set_ylabel("after: active tokens an image")
    for axes in grid[-1]:
        axes.set_xlabel("before: active tokens an image")
    save_figure(sheet, points, stem, formats=formats, dpi=dpi)


def _typical(bounds: pd.DataFrame) -> list[int]:
    """Labels of the classes with the fewest, the median and the most latents that are high in both."""
    high = bounds[bounds["region"] == "high"].sort_values(["estimate", "label"])["label"].to_numpy()
    at = np.unique(np.linspace(0, len(high) - 1, min(CLASSES, len(high))).round().astype(int))
    return [int(label) for label in high[at]]


def _scatter(axes: Axes, points: pd.DataFrame, bounds: pd.DataFrame) -> None:
    smallest = float(points[["zero_shot", "adapted"]].replace(0, np.nan).min().min())
    floor = smallest / 2
    for name, key in KEYS.items():
        mine = points[points["region"] == name]
        axes.plot(
            mine["zero_shot"].clip(lower=floor), mine["adapted"].clip(lower=floor), ls="", marker=key.marker,
            color=key.colour, ms=4, alpha=0.8, mec="none",
        )  # fmt: skip
    top = 1.3 * float(points[["zero_shot", "adapted"]].max().max())
    axes.plot([floor, top], [floor, top], color="#BFBFBF", lw=0.8, zorder=1)
    for column, line in (("upper_bound", "-"), ("lower_bound", (0, (3, 2)))):
        value = float(bounds[column].iloc[0])
        axes.axvline(value, color="#8C8C8C", lw=0.9, ls=line, zorder=1)
        axes.axhline(value, color="#8C8C8C", lw=0.9, ls=line, zorder=1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        # within one decade the steps between powers of ten would be named too, one over the other
        axis.set_minor_formatter(NullFormatter())
    axes.set_xlim(floor * 0.8, top)
    axes.set_ylim(floor * 0.8, top)
    tidy(axes, grid="y")


def _notes() -> list[str]:
    return [
        "One point a latent in either top list: mean number of tokens of an image of the class on which it is above "
        "the threshold. Lines: upper bound (full) and lower bound (broken), the values at ranks 50 and 100 of the "
        "larger of the two; 0 is drawn at the left and lower edge. Classes: the fewest, the median and the most "
        "latents high in both, of the first seed. The null, resampling, is in the overlap figure."
    ]
