"""What the figures of dictionaries share: which hook point comes first, how curves look, one row a dictionary."""

from collections.abc import Mapping, Sequence
from typing import Final

import pandas as pd
from matplotlib.axes import Axes

from conceptbench.figures.style import NULL_COLOUR, Key, looks, place
from conceptbench.tables import natural_order

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


def curve_looks(curves: Mapping[str, str]) -> dict[str, Key]:
    """A colour and a marker for every curve, no two alike among the first 64; nulls are grey and come last.

    Args:
        curves: configured name -> method.
    """
    learned = [name for name, family in curves.items() if family not in NULLS]
    found = {name: Key(name, *look) for name, look in looks(learned).items()}
    for null, marker in zip(NULLS, NULL_MARKERS, strict=True):
        mine = [name for name, family in curves.items() if family == null]
        found.update({name: Key(f"{name} (null)", NULL_COLOUR, marker) for name in mine})
    return found


def name_rows(axes: Axes, names: Sequence[Sequence[object]]) -> None:
    """Put the names of dictionaries on the y axis, first one on top, with their hook point where there are several."""
    axes.set_yticks(range(len(names)), row_labels(names))
    axes.set_ylim(len(names) - 0.4, -0.6)


def row_labels(names: Sequence[Sequence[object]]) -> list[str]:
    """What dictionaries (backbone, block, dictionary) are called among each other."""
    one = len({tuple(name[:2]) for name in names}) == 1
    return [str(d) if one else place(str(b), n, str(d)) for b, n, d in names]


def guide_rows(axes: Axes, names: Sequence[Sequence[object]]) -> None:
    """Faint lines that lead from a name to its marks, stronger ones between hook points."""
    for at, name in enumerate(names):
        axes.axhline(at, color="#EFEFEF", lw=0.7, zorder=0)
        if at and tuple(name[:2]) != tuple(names[at - 1][:2]):
            axes.axhline(at - 0.5, color="#BDBDBD", lw=0.8, zorder=0)


def rows_shown(table: pd.DataFrame, backbone: str, block: int) -> tuple[pd.DataFrame, str]:
    """The table with the main hook point first, dictionaries by natural order, nulls last; cut when there are too many.

    The note says which hook point it is where only one is shown.
    """
    order, note = hooks(table, backbone, block), ""
    if len(order) == 1:
        note = f"Hook point: {place(*order[0])}."
    elif len(table[list(IDS)].drop_duplicates()) > MOST_ROWS:
        note = f"Hook point: {place(*order[0])}; the table has all."
        table = at_hook(table, *order[0])
    keys = [(str(b), int(n)) for b, n in table[["backbone", "block"]].itertuples(index=False)]
    names = zip(keys, table["family"], table["dictionary"], strict=True)
    ranks = [(order.index(key), family in NULLS, natural_order(str(name))) for key, family, name in names]
    return table.iloc[sorted(range(len(table)), key=ranks.__getitem__)].reset_index(drop=True), note
