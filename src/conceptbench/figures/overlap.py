"""Overlap of the top latents of a class before and after adaptation, against its nulls, over the length of the list."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from conceptbench.figures.style import (
    FORMATS,
    INTERVAL,
    NULL_COLOUR,
    PALETTE,
    POOLED_SEED,
    Key,
    dodge,
    figure_look,
    in_order,
    mark,
    new_sheet,
    require,
    save_empty,
    save_figure,
    tidy,
)

COLUMNS = (
    "task", "method", "half", "label", "class_name", "k", "statistic", "comparison", "seed", "estimate", "low", "high",
    "n", "note",
)  # fmt: skip
COMPARISONS = ("adapted", "adapted_halves", "null_halves", "null_class")
KEYS: dict[str, Key] = {
    "adapted": Key("before against after adaptation, same images", PALETTE[1], "D"),
    "adapted_halves": Key("before against after, two halves of the images", PALETTE[5], "o", (0, (5, 2)), True),
    "null_halves": Key("null: before against itself, two halves of the images", PALETTE[0], "s", (0, (5, 2))),
    "null_class": Key("null: before, two different classes", NULL_COLOUR, "v", (0, (1, 1.5))),
}
HALVES = ("base", "novel", "all")
MOST_ACROSS = 4
"""Tasks and methods that stand side by side; of more, each task has rows of its own."""


@figure_look()
def draw_overlap(overlap: pd.DataFrame, stem: Path, *, formats: Sequence[str] = FORMATS, dpi: int = 150) -> None:
    """Draw one column a task and method, one row a half of the classes: mean Jaccard over classes against k, bands.

    More than `MOST_ACROSS` columns are one for each method, with rows for each task and half.

    Args:
        overlap: table `overlap`; its rows with label -1 (mean over classes) and seed "all" are drawn, or those of the
            only seed. stem: path without suffix.
    """
    shown = _select(require(overlap, "overlap", COLUMNS)[list(COLUMNS)])
    title = "Are the top latents of a class the same before and after adaptation?"
    if shown.empty:
        reason = "The table holds no overlaps: no adaptation of this experiment changes the image tower."
        save_empty(title, reason, shown, stem, formats=formats, dpi=dpi)
        return
    pairs = list(dict.fromkeys(zip(shown["task"], shown["method"], strict=True)))
    halves = in_order(shown["half"], HALVES)
    present = in_order(shown["comparison"], COMPARISONS)
    ranks = bool((shown["statistic"] == "rank_correlation").any())
    keys = [KEYS[name] for name in present]
    many = len(pairs) > MOST_ACROSS
    rows = [(task, half) for task in (in_order(shown["task"]) if many else [""]) for half in halves]
    columns = [("", method) for method in in_order(shown["method"])] if many else pairs
    across = (2.0 if many else 2.6) + (0.85 if many else 1.05) * ranks
    width = max(6.4, 0.7 + across * len(columns))
    sheet = new_sheet(title, width=width, height=0.35 + 2.3 * len(rows), keys=keys, notes=_notes(shown, ranks))
    ratios = [2.6, 1.0] * len(columns) if ranks else [2.6] * len(columns)
    grid = sheet.body.subplots(len(rows), len(ratios), width_ratios=ratios, squeeze=False, sharey=True, sharex="col")
    step = 2 if ranks else 1
    for row, (of_row, half) in enumerate(rows):
        for column, (of_column, method) in enumerate(columns):
            task = of_row or of_column
            mine = shown[(shown["task"] == task) & (shown["method"] == method) & (shown["half"] == half)]
            _curves(grid[row, column * step], mine[mine["statistic"] == "jaccard"], present)
            if ranks:
                _ranks(grid[row, column * step + 1], mine[mine["statistic"] == "rank_correlation"], present)
            if row == 0:
                grid[row, column * step].set_title(" · ".join(name for name in (of_column, method) if name))
            if row == len(rows) - 1:
                grid[row, column * step].set_xlabel("k (length of the list)")
        name = " · ".join(part for part in (of_row, f"{half} classes") if part)
        grid[row, 0].set_ylabel(f"{name}\nJaccard overlap of the top k")
    save_figure(sheet, shown, stem, formats=formats, dpi=dpi)


def _select(overlap: pd.DataFrame) -> pd.DataFrame:
    """Means over classes, pooled over seeds where that row exists."""
    means = overlap[(overlap["label"] == -1) & overlap["comparison"].isin(list(COMPARISONS))]
    pooled = means[means["seed"] == POOLED_SEED]
    if pooled.empty and len(means):
        pooled = means[means["seed"] == means["seed"].iloc[0]]
    return pooled.reset_index(drop=True)


def _curves(axes: Axes, rows: pd.DataFrame, present: Sequence[str]) -> None:
    sizes = sorted(rows["k"].unique())
    for comparison in present:
        mine = rows[rows["comparison"] == comparison].sort_values("k")
        if mine.empty:
            continue
        key = KEYS[comparison]
        at = [sizes.index(k) for k in mine["k"]]
        axes.fill_between(at, mine["low"], mine["high"], color=key.colour, alpha=0.18, lw=0, zorder=2)
        axes.plot(
            at, mine["estimate"], color=key.colour, ls=key.line, marker=key.marker, ms=4.5, lw=1.6, zorder=3,
            mfc="white" if key.hollow else key.colour,
        )  # fmt: skip
    axes.set_xticks(range(len(sizes)), [str(k) for k in sizes])
    axes.set_ylim(-0.02, 1.02)
    axes.set_yticks(np.linspace(0, 1, 6))
    tidy(axes, grid="y")


def _ranks(axes: Axes, rows: pd.DataFrame, present: Sequence[str]) -> None:
    for at, comparison in zip(dodge(len(present), 0.8), present, strict=True):
        key = KEYS[comparison]
        for _, row in rows[rows["comparison"] == comparison].iterrows():
            mark(axes, row, at, colour=key.colour, marker=key.marker, hollow=key.hollow, horizontal=False)
    axes.set_xlim(-0.7, 0.7)
    axes.set_xticks([0], ["rank\ncorrelation"])
    tidy(axes, grid="y")


def _notes(shown: pd.DataFrame, ranks: bool) -> list[str]:
    last = " The narrow panels show the rank correlation of all latents on the same axis." if ranks else ""
    return [
        f"Mean over classes; bands and bars: {INTERVAL} (classes resampled, over seeds a t interval). The overlap of "
        "two halves of the same model's images is what resampling alone allows; that of two classes is what any two "
        "share." + last
    ]
