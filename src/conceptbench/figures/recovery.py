"""Recovery of known atoms: every dictionary on the synthetic worlds, between its ceilings and its floors."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from conceptbench.figures.style import (
    FORMATS,
    INTERVAL,
    PALETTE,
    POOLED_SEED,
    Key,
    dodge,
    figure_look,
    in_order,
    mark,
    markers,
    new_sheet,
    require,
    save_empty,
    save_figure,
    tidy,
)

COLUMNS = ("world", "dictionary", "kind", "world_seed", "seed", "score", "estimate", "low", "high", "n", "note")
SCORES: Final[Mapping[str, str]] = {
    "fvu": "variance unexplained\n(FVU)",
    "l0_over_true": "L0, learnt over true\n(log scale)",
    "mcc_recall_over_null": "true atoms found:\ncosine over chance",
    "recall_at_0.90": "true atoms found:\n% at cosine ≥ 0.9",
    "f1": "firing where the feature\nfires: F1",
    "absorption_over_null": "absorption: recall lost\nto children, over null",
}
"""Scores shown, in order, with the labels of their axes."""
PERCENT: Final = ("recall_at_0.90",)
SHARES: Final = ("mcc_recall_over_null", "recall_at_0.90", "f1")
LOGARITHMIC: Final = ("l0_over_true",)
WIDE: Final = 30.0
"""Ends of a logarithmic axis further apart than this factor leave room for powers of ten only."""
REFERENCE: Final = {"l0_over_true": 1.0, "mcc_recall_over_null": 0.0, "absorption_over_null": 0.0}
"""Values that a line marks: the true L0, chance, and no absorption."""
KINDS: Final = ("ceiling", "learned", "floor")
ORDERED_BY: Final = "mcc_recall_over_null"
ROW_HEIGHT: Final = 0.12
"""Inches for one mark; a dictionary has one for every world."""


@figure_look()
def draw_recovery(recovery: pd.DataFrame, stem: Path, *, formats: Sequence[str] = FORMATS, dpi: int = 150) -> None:
    """Draw one row a dictionary, one panel a score, one mark with interval a world.

    Args:
        recovery: table `recovery`; its rows pooled over draws and seeds are drawn. stem: path without suffix.
    """
    table = require(recovery, "recovery", COLUMNS)
    shown = table[(table["seed"] == POOLED_SEED) & table["score"].isin(list(SCORES))]
    shown = shown[list(COLUMNS)].reset_index(drop=True)
    title = "How much of a known world does each dictionary recover?"
    if shown.empty:
        save_empty(title, "The table holds no scores.", shown, stem, formats=formats, dpi=dpi)
        return
    worlds, scores = in_order(shown["world"]), in_order(shown["score"], tuple(SCORES))
    rows = _rows(shown)
    colours, shapes = dict(zip(worlds, PALETTE, strict=False)), markers(worlds)
    keys = [Key(f"world '{world}', {INTERVAL}", colours[world], shapes[world]) for world in worlds]
    height = 0.7 + len(rows) * (0.13 + ROW_HEIGHT * len(worlds))
    sheet = new_sheet(title, width=1.4 + 1.85 * len(scores), height=height, keys=keys, notes=_notes())
    grid = sheet.body.subplots(1, len(scores), sharey=True, squeeze=False)[0]
    offsets = dict(zip(worlds, dodge(len(worlds), 0.56), strict=True))
    for axes, score in zip(grid, scores, strict=True):
        mine = shown[shown["score"] == score]
        for _, row in mine.iterrows():
            at = rows.index[rows["dictionary"] == row["dictionary"]][0] + offsets[str(row["world"])]
            scale = 100.0 if score in PERCENT else 1.0
            world = str(row["world"])
            mark(axes, row, at, colour=colours[world], marker=shapes[world], size=4.2, scale=scale)
        _dress(axes, score, rows)
    grid[0].set_yticks(range(len(rows)), rows["dictionary"])
    grid[0].set_ylim(len(rows) - 0.5, -0.5)
    save_figure(sheet, shown, stem, formats=formats, dpi=dpi)


def _rows(shown: pd.DataFrame) -> pd.DataFrame:
    """Dictionaries in the order shown: ceilings, learnt ones from the best on the first world down, floors."""
    rows = shown[["dictionary", "kind"]].drop_duplicates().reset_index(drop=True)
    first = shown[(shown["world"] == shown["world"].iloc[0]) & (shown["score"] == ORDERED_BY)]
    score = dict(zip(first["dictionary"], first["estimate"], strict=True))
    rows["rank"] = rows["kind"].map(KINDS.index)
    rows["best"] = [-score.get(name, -np.inf) for name in rows["dictionary"]]
    rows.loc[rows["kind"] == "ceiling", "best"] = 0.0
    return rows.sort_values(["rank", "best"], kind="stable").reset_index(drop=True)


def _dress(axes: Axes, score: str, rows: pd.DataFrame) -> None:
    """Label, scale, the reference value, faint lines between dictionaries and stronger ones between kinds."""
    axes.set_xlabel(SCORES[score])
    axes.margins(x=0.08)
    if score in LOGARITHMIC:
        axes.set_xscale("log")
        low, high = axes.get_xlim()
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if high > WIDE * low else (1.0, 2.0, 5.0), numticks=5))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
    elif score in SHARES:
        top = 100 if score in PERCENT else 1
        axes.set_xlim(-0.07 * top, 1.07 * top)
        axes.set_xticks(np.linspace(0, top, 3))
    else:
        axes.xaxis.set_major_locator(MaxNLocator(4))
    if score in REFERENCE:
        axes.axvline(REFERENCE[score], color="#8C8C8C", lw=1, zorder=1)
    kinds = list(rows["kind"])
    for at in range(1, len(kinds)):
        changes = kinds[at] != kinds[at - 1]
        axes.axhline(at - 0.5, color="#9A9A9A" if changes else "#EDEDED", lw=1.0 if changes else 0.7, zorder=0)
    tidy(axes)


def _notes() -> list[str]:
    return [
        "Rows from above: true atoms with codes by pursuit and by a tied linear encoder (ceilings), learnt "
        "dictionaries, floors. Atoms are matched one to one with signed cosines; chance is what as many random "
        "directions reach. Firing is matched on split A and scored on split B. Intervals: over draws of the world."
    ]
