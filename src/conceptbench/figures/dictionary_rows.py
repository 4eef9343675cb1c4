"""What the figures of dictionaries share: which hook point comes first, how methods look, one row a dictionary."""

from collections.abc import Sequence
from typing import Final

import pandas as pd
from matplotlib.axes import Axes

from conceptbench.figures.style import MARKERS, NULL_COLOUR, PALETTE, Key, in_order, place

IDS: Final = ("backbone", "block", "dictionary")
NULLS: Final = ("random", "frozen", "raw", "pca")
NULL_MARKERS: Final = ("s", "X", "v", "^")
MOST_ROWS: Final = 30
"""Rows up to which the dictionaries of all hook points are shown; beyond, those of the main one."""


def at_hook(table: pd.DataFrame, backbone: str, block: int) -> pd.DataFrame:
    """Rows of one hook point; of the table's first one where that has none."""
    mine = table[(table["backbone"] == backbone) & (table["block"].astype(int) == int(block))]
    if mine.empty and len(table):
        first = table.iloc[0]
        mine = table[(table["backbone"] == first["backbone"]) & (table["block"] == first["block"])]
    return mine.reset_index(drop=True)


def hooks(table: pd.DataFrame, backbone: str, block: int) -> list[tuple[str, int]]:
    """Hook points of a table, the main one first."""
    found = [(str(b), int(n)) for b, n in table[["backbone", "block"]].drop_duplicates().itertuples(index=False)]
    main = (backbone, int(block))
    return ([main] if main in found else []) + [hook for hook in found if hook != main]


def family_looks(families: Sequence[str]) -> dict[str, Key]:
    """A colour and a marker for every method, no two alike among the first 64; nulls are grey."""
    learned = [name for name in dict.fromkeys(families) if name not in NULLS]
    looks = {}
    for at, name in enumerate(learned):
        turn = at + at // len(PALETTE)
        looks[name] = Key(name, PALETTE[at % len(PALETTE)], MARKERS[turn % len(MARKERS)])
    for name in in_order([name for name in families if name in NULLS], NULLS):
        looks[name] = Key(f"{name} (null)", NULL_COLOUR, NULL_MARKERS[NULLS.index(name)])
    return looks


def name_rows(axes: Axes, names: Sequence[Sequence[object]]) -> None:
    """Put the names of dictionaries on the y axis, first one on top, a line between hook points and guides to each."""
    axes.set_yticks(range(len(names)), [place(str(b), n, str(d)) for b, n, d in names])
    axes.set_ylim(len(names) - 0.4, -0.6)


def guide_rows(axes: Axes, names: Sequence[Sequence[object]]) -> None:
    """Faint lines that lead from a name to its marks, stronger ones between hook points."""
    for at, name in enumerate(names):
        axes.axhline(at, color="#EFEFEF", lw=0.7, zorder=0)
        if at and tuple(name[:2]) != tuple(names[at - 1][:2]):
            axes.axhline(at - 0.5, color="#BDBDBD", lw=0.8, zorder=0)


def rows_shown(table: pd.DataFrame, backbone: str, block: int) -> tuple[pd.DataFrame, str]:
    """The table with the main hook point first and nulls last, cut to it when there are too many; and a note if so."""
    order = hooks(table, backbone, block)
    names = table[list(IDS)].drop_duplicates()
    if len(names) > MOST_ROWS:
        return at_hook(table, *order[0]), f"Shown: {place(*order[0])}; the table has all hook points."
    keys = [(str(b), int(n)) for b, n in table[["backbone", "block"]].itertuples(index=False)]
    last = [order.index(key) + (0.5 if name in NULLS else 0.0) for key, name in zip(keys, table["family"], strict=True)]
    ranks = pd.Series(last, index=table.index)
    return table.loc[ranks.sort_values(kind="stable").index].reset_index(drop=True), ""
