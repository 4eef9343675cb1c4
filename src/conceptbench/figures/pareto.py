"""Error against sparsity: FVU over L0 for every dictionary, and the signal recovered in energy and in norm."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter
from numpy.typing import NDArray

from conceptbench.figures.dictionary_rows import NULLS, at_hook, curve_looks, hooks
from conceptbench.figures.style import (
    FORMATS,
    POOLED_SEED,
    Key,
    figure_look,
    in_order,
    mark,
    new_sheet,
    place,
    require,
    save_empty,
    save_figure,
    tidy,
)

COLUMNS: Final = (
    *("backbone", "block", "dictionary", "configured", "family", "role", "on_front", "statistic"),
    *("estimate", "low", "high", "n", "seed", "note"),
)
INSET_COLUMNS: Final = 3
LABEL_GAP: Final = 0.16
"""Smallest vertical distance of two names, in inches."""
ROW: Final = (0.27, 0.21)
"""Height of a row of the signal recovered in inches, of few dictionaries and of many."""
MOST_NAMES: Final = 18
"""Dictionaries up to which each mark has its name; beyond, each curve has one."""
NAME_WIDTH: Final = 0.16
"""Width of a name, as a share of that of the axes."""


@figure_look()
def draw_pareto(
    pareto: pd.DataFrame,
    stem: Path,
    *,
    backbone: str = "",
    block: int = 0,
    formats: Sequence[str] = FORMATS,
    dpi: int = 150,
) -> None:
    """Draw FVU against L0 (log axes) with names at the marks, the signal recovered beside it, other hook points below.

    Args:
        pareto: table `pareto`. stem: path without suffix. backbone, block: the hook point shown large.
    """
    table = require(pareto, "pareto", COLUMNS)[list(COLUMNS)]
    title = "How little of the activations is lost, with how few latents?"
    if table.empty:
        save_empty(title, "The table holds no dictionary.", table, stem, formats=formats, dpi=dpi)
        return
    looks = curve_looks(dict(zip(table["configured"], table["family"], strict=True)))
    places = hooks(table, backbone, block)
    others = places[1:]
    below = -(-len(others) // INSET_COLUMNS)
    main = _wide(at_hook(table, *places[0]))
    signal = 0.34 + ROW[len(main) > MOST_NAMES] * len(main)
    tall = max(3.9, signal)
    sheet = new_sheet(
        title,
        width=10.4,
        height=tall + 2.1 * below,
        keys=[*looks.values(), Key("in energy (1 - FVU)", "#262626", "o", "none"), _NORM],
        notes=_notes(table),
    )
    heights = [tall, 2.1 * below] if below else [tall]
    parts: Any = sheet.body.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)
    left, right = parts[0, 0].subplots(1, 2, width_ratios=[1.75, 1.0])
    _errors(left, main, looks, names=tall)
    left.set_title(place(*places[0]))
    left.set_ylabel("FVU on held-out tokens (log axis)")
    _signals(right, main, looks)
    if below:
        grid = parts[1, 0].subplots(below, INSET_COLUMNS, squeeze=False, sharey=True)
        for axes, hook in zip(grid.flat, others, strict=False):
            _errors(axes, _wide(at_hook(table, *hook)), looks)
            axes.set_title(place(*hook))
        for axes in grid[:, 0]:
            axes.set_ylabel("FVU")
        for axes in list(grid.flat)[len(others) :]:
            axes.set_axis_off()
    save_figure(sheet, table, stem, formats=formats, dpi=dpi)


_NORM = Key("in norm (1 - mean relative error)", "#262626", "o", "none", hollow=True)


def _wide(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Each dictionary's pooled estimates by statistic."""
    pooled = table[table["seed"] == POOLED_SEED]
    out: dict[str, dict[str, Any]] = {}
    for row in pooled.to_dict("records"):
        names = {"name": row["dictionary"], "configured": row["configured"], "null": row["family"] in NULLS}
        mine = out.setdefault(row["dictionary"], names)
        mine["front"] = bool(row["on_front"])
        mine[row["statistic"]] = row
    return list(out.values())


def _errors(axes: Axes, rows: list[dict[str, Any]], looks: dict[str, Key], *, names: float = 0.0) -> None:
    """FVU over L0; dictionaries that differ in their sparsity alone are joined by a line.

    Args:
        names: height of the axes in inches, over which names are spread; 0 for none.
    """
    for curve in in_order(row["configured"] for row in rows):
        look = looks[curve]
        mine = sorted((row for row in rows if row["configured"] == curve), key=lambda row: float(row["l0"]["estimate"]))
        sparsity = [float(row["l0"]["estimate"]) for row in mine]
        axes.plot(sparsity, [float(row["fvu"]["estimate"]) for row in mine], color=look.colour, lw=1.1, zorder=2)
        for row, at in zip(mine, sparsity, strict=True):
            hollow = not row["front"] and not row["null"]
            mark(axes, row["fvu"], at, colour=look.colour, marker=look.marker, horizontal=False, hollow=hollow)
            if np.isfinite(float(row["l0"]["low"])):
                ends = [float(row["l0"]["low"]), float(row["l0"]["high"])]
                axes.plot(ends, [float(row["fvu"]["estimate"])] * 2, color=look.colour, lw=1.2, zorder=3)
    axes.set_xscale("log")
    axes.margins(x=0.24 if names else 0.12, y=0.1)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    axes.xaxis.set_major_locator(LogLocator(base=2, numticks=12))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_locator(NullLocator())
    axes.set_xlabel("L0: latents that fire on a token (log axis)" if names else "L0 (log axis)")
    axes.grid(visible=True)
    if names:
        _name_points(axes, rows, looks, names)


def _name_points(axes: Axes, rows: list[dict[str, Any]], looks: dict[str, Key], tall: float) -> None:
    """Names right of the marks, those of neighbouring marks pushed apart, with a thin line to the mark.

    Of many dictionaries only the densest of each curve is named, after the curve.
    """
    if len(rows) > MOST_NAMES:
        densest = {row["configured"]: row for row in sorted(rows, key=lambda row: float(row["l0"]["estimate"]))}
        rows = [row | {"name": curve} for curve, row in densest.items()]
    marks = [(max(float(row["l0"]["estimate"]), _high(row)), float(row["fvu"]["estimate"])) for row in rows]
    across, height = axes.transAxes.inverted().transform(axes.transData.transform(marks)).T
    at, gap = np.empty(len(rows)), LABEL_GAP / tall
    for group in _neighbours(across):
        at[group] = spread(height[group], gap)
    for row, mark_at, x, y in zip(rows, marks, across, at, strict=True):
        axes.annotate(
            row["name"], mark_at, (float(x) + 0.03, float(y)), textcoords=axes.transAxes, fontsize=8, va="center",
            color=looks[row["configured"]].colour, zorder=6,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 0.4},
            arrowprops={"arrowstyle": "-", "lw": 0.5, "color": "#B0B0B0", "shrinkA": 0, "shrinkB": 3},
        )  # fmt: skip


def _high(row: dict[str, Any]) -> float:
    """Upper end of the interval of L0; 0 without one."""
    return float(np.nan_to_num(row["l0"]["high"]))


def _neighbours(across: NDArray[np.float64]) -> list[NDArray[np.int64]]:
    """Marks whose names would share a column: those within a name's width of the leftmost of their group."""
    order, groups = np.argsort(across, kind="stable"), list[list[int]]()
    for index in order:
        if groups and across[index] - across[groups[-1][0]] < NAME_WIDTH:
            groups[-1].append(int(index))
        else:
            groups.append([int(index)])
    return [np.array(group, dtype=np.int64) for group in groups]


def spread(heights: NDArray[np.float64], gap: float) -> NDArray[np.float64]:
    """Heights in the same order, at least `gap` apart; those that are already apart are left where they are."""
    order = np.argsort(heights, kind="stable")
    out = heights[order].astype(np.float64)
    for _ in range(len(out) * 20):
        overlap = gap - np.diff(out)
        if not (overlap > 1e-4).any():
            break
        push = np.where(overlap > 0, overlap / 2, 0.0)
        out[:-1] -= push
        out[1:] += push
        out = np.maximum(out, gap / 2 + gap * np.arange(len(out)))
    result = np.empty_like(out)
    result[order] = out
    return result


def _signals(axes: Axes, rows: list[dict[str, Any]], looks: dict[str, Key]) -> None:
    """Signal recovered: energy and norm next to each other, by L0 to a whole latent, the most signal first."""
    sparsity = [float(np.round(row["l0"]["estimate"])) for row in rows]
    signal = [-float(row["recovered_energy"]["estimate"]) for row in rows]
    order = sorted(range(len(rows)), key=lambda at: (sparsity[at], signal[at]))
    ordered = [rows[at] for at in order]
    for at, row in enumerate(ordered):
        if at and sparsity[order[at]] != sparsity[order[at - 1]]:
            axes.axhline(at - 0.5, color="#BDBDBD", lw=0.8, zorder=0)
        look = looks[row["configured"]]
        axes.axhline(at, color="#EFEFEF", lw=0.7, zorder=0)
        mark(axes, row["recovered_energy"], at - 0.14, colour=look.colour, marker=look.marker)
        mark(axes, row["recovered_norm"], at + 0.14, colour=look.colour, marker=look.marker, hollow=True)
    labels = [f"{row['name']} (L0 {float(row['l0']['estimate']):.3g})" for row in ordered]
    axes.set_yticks(range(len(ordered)), labels)
    axes.set_ylim(len(ordered) - 0.4, -0.6)
    axes.set_xlabel("signal recovered")
    axes.axvline(0, color="#8C8C8C", lw=1, zorder=1)
    axes.margins(x=0.08)
    tidy(axes)


def _notes(table: pd.DataFrame) -> list[str]:
    seeds = table.loc[(table["seed"] == POOLED_SEED) & (table["statistic"] == "fvu"), "n"]
    n = f"{int(seeds.min())}" if seeds.min() == seeds.max() else f"{int(seeds.min())} to {int(seeds.max())}"
    return [
        f"Bars: 95 % t interval over {n} seeds (none for methods without chance). Filled on the left: no other learned "
        "dictionary has a smaller error with as few latents. Compare errors at equal L0 only; PCA and raw coordinates "
        "are not sparse in the sense of the others."
    ]
