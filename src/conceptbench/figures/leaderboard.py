"""The leaderboard: all dictionaries of one hook point ranked, every score with its interval and its best null."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from conceptbench.figures.dictionary_rows import at_hook
from conceptbench.figures.style import (
    FORMATS,
    INK,
    INTERVAL,
    NULL_COLOUR,
    PALETTE,
    Key,
    figure_look,
    mark,
    missing_text,
    new_sheet,
    place,
    require,
    save_empty,
    save_figure,
    tidy,
)
from conceptbench.tables import natural_order

COLUMNS: Final = (
    *("backbone", "block", "dictionary", "family", "role", "rank", "criterion", "column"),
    *("estimate", "low", "high", "n", "seed", "note", "null_dictionary", "null_estimate", "beats_null"),
)
PANELS: Final = {
    "recovered_above_null": "factor values recovered,\nabove the best null (share)",
    "fvu_at_equal_l0": "FVU at equal L0\n(less is better)",
    "stability_above_floor": "stability between seeds,\nabove chance",
    "mean_excess": "monosemanticity,\nabove chance",
    "dead_share": "dead latents\n(share, less is better)",
    "l0": "L0\n(log axis)",
}
BEATS = Key(f"better than every null ({INTERVAL} of the difference)", PALETTE[0], "o")
OTHER = Key("not clear of the best null", PALETTE[0], "o", hollow=True)
PLAIN = Key("learned; a null is no floor here", INK, "o")
NULL = Key("null", NULL_COLOUR, "s")
FLOOR = Key("best null of the column", PALETTE[1], "|", "none", size=10)


@figure_look()
def draw_leaderboard(
    leaderboard: pd.DataFrame,
    stem: Path,
    *,
    backbone: str = "",
    block: int = 0,
    dictionary: str = "",
    formats: Sequence[str] = FORMATS,
    dpi: int = 150,
) -> None:
    """Draw one row a dictionary in the order of the ranks, one panel a column, the best null as a line.

    Args:
        leaderboard: table `leaderboard`. stem: path without suffix. backbone, block: the hook point shown.
        dictionary: the one at whose L0 errors are compared.
    """
    table = require(leaderboard, "leaderboard", COLUMNS)[list(COLUMNS)]
    shown = at_hook(table, backbone, block)
    panels = [name for name in PANELS if name in set(shown["column"])]
    if shown.empty or not panels:
        title = "Which dictionary leads?"
        save_empty(title, "The table holds no dictionary.", table, stem, formats=formats, dpi=dpi)
        return
    ranks = shown[["dictionary", "rank", "role"]].drop_duplicates()
    ranks = ranks.iloc[sorted(range(len(ranks)), key=lambda at: natural_order(ranks["dictionary"].iloc[at]))]
    ranks = ranks.assign(last=ranks["rank"] == 0).sort_values(["last", "rank"], kind="stable")
    title = f"Which dictionary leads at {place(shown['backbone'].iloc[0], shown['block'].iloc[0])}?"
    sheet = new_sheet(
        title, width=1.7 + 1.72 * len(panels), height=0.95 + 0.3 * len(ranks), keys=[BEATS, OTHER, PLAIN, NULL, FLOOR],
        notes=_notes(shown, dictionary),
    )  # fmt: skip
    grid = sheet.body.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, name in zip(grid, panels, strict=True):
        _panel(axes, shown[shown["column"] == name], list(ranks["dictionary"]), name)
    places = [str(rank) if rank else "-" for rank in ranks["rank"]]
    labels = [f"{number}  {name}" for number, name in zip(places, ranks["dictionary"], strict=True)]
    grid[0].set_yticks(range(len(ranks)), labels)
    grid[0].set_ylim(len(ranks) - 0.4, -0.6)
    for label, role in zip(grid[0].get_yticklabels(), ranks["role"], strict=True):
        label.set_color(NULL_COLOUR if role == "null" else "#262626")
    save_figure(sheet, shown, stem, formats=formats, dpi=dpi)


def _panel(axes: Axes, rows: pd.DataFrame, order: list[str], name: str) -> None:
    for at, dictionary in enumerate(order):
        axes.axhline(at, color="#EFEFEF", lw=0.7, zorder=0)
        mine = rows[rows["dictionary"] == dictionary]
        if mine.empty and name == "stability_above_floor":
            missing_text(axes, "learnt once", 0.5, at, ha="center", transform=axes.get_yaxis_transform())
        for _, row in mine.iterrows():
            key = _key(row)
            mark(axes, row, at, colour=key.colour, marker=key.marker, hollow=key.hollow)
            if not np.isfinite(float(row["estimate"])):
                missing_text(axes, "none at this L0", 0.5, at, ha="center", transform=axes.get_yaxis_transform())
    floors = rows["null_estimate"].dropna().unique()
    for floor in floors:
        axes.axvline(float(floor), color=FLOOR.colour, lw=1.4, zorder=1)
    axes.set_xlabel(PANELS[name])
    axes.margins(x=0.12)
    if name == "l0":
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(base=2, numticks=8))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.tick_params(axis="x", labelsize=8)
    tidy(axes)


def _key(row: "pd.Series[Any]") -> Key:
    """How a cell is drawn."""
    if row["role"] == "null":
        return NULL
    if not np.isfinite(float(row["null_estimate"])):
        return PLAIN
    return BEATS if row["beats_null"] else OTHER


def _notes(shown: pd.DataFrame, dictionary: str) -> list[str]:
    criteria = {
        "recovered_above_null": "the share of factor values recovered at AUROC 0.90 above the best null",
        "fvu_at_equal_l0": "the FVU at equal L0",
    }
    criterion = criteria[str(shown["criterion"].iloc[0])]
    return [
        f"Ranked by {criterion}. Equal L0: that of {dictionary or 'the followed dictionary'}, within a quarter, or "
        "between two dictionaries that differ in nothing but their sparsity. The best null is chosen on the scores "
        "themselves, in its favour.",
        "Intervals: images resampled and seeds for recovery, groups of images and seeds for monosemanticity, seeds for "
        "the others; differences to a null as if independent, which is too wide.",
    ]
