"""Estimators against planted truth: estimates beside the truth, coverage of intervals, false positives."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from conceptbench.figures.style import (
    FORMATS,
    INTERVAL,
    NULL_COLOUR,
    PALETTE,
    Key,
    dodge,
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

COLUMNS = ("plant", "outcome", "part", "statistic", "estimate", "low", "high", "n", "note")
PLANTS = ("relabel", "recruit", "amplify", "mixed", "null")
PARTS: dict[str, Key] = {
    "gain": Key("gain", "#000000", "D"),
    "perception": Key("perception", PALETTE[1], "o"),
    "mapping": Key("mapping", PALETTE[0], "s"),
    "recruited": Key("recruited", PALETTE[5], "<"),
    "beyond": Key("recruited, less what was there before", PALETTE[2], "^"),
    "recruitment": Key("claim of recruitment", PALETTE[3], "P"),
    "remapping": Key("claim of remapping", PALETTE[4], "X"),
    "all": Key("all parts of the plant", NULL_COLOUR, "v"),
}
TARGET, ALLOWED = (90.0, 99.0), 6.0
"""Coverage that is asked for, and the rate of false positives that is allowed, in percent."""


@figure_look()
def draw_plants(plants: pd.DataFrame, stem: Path, *, formats: Sequence[str] = FORMATS, dpi: int = 150) -> None:
    """Draw truth, bias, coverage and false positives, a row a plant (accuracy only).

    Args:
        plants: table `plants`.
    """
    table = require(plants, "plants", COLUMNS)
    shown = table.loc[(table["outcome"] == "accuracy") & table["part"].isin(list(PARTS)), list(COLUMNS)]
    title = "Do the estimators find what was planted?"
    if shown.empty:
        save_empty(title, "Nothing was planted.", shown, stem, formats=formats, dpi=dpi)
        return
    names = in_order(shown["plant"], PLANTS)
    parts = in_order(shown["part"], tuple(PARTS))
    sheet = new_sheet(
        title,
        width=10.2,
        height=0.7 + 0.17 * (len(parts) + 1) * len(names),
        keys=[PARTS[part] for part in parts],
        notes=_notes(shown),
    )
    panels = sheet.body.subplots(1, 4, sharey=True, width_ratios=[1.1, 1, 1.1, 0.8])
    kinds = {
        "truth": "planted truth (points)",
        "bias": "estimate less truth (points)",
        "coverage": "coverage of intervals (%)",
        "false_positive_rate": "false positives (%)",
    }
    for axes, (statistic, label) in zip(panels, kinds.items(), strict=True):
        _panel(axes, shown[shown["statistic"] == statistic], names, parts, statistic)
        axes.set_xlabel(label)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.45, -0.55)
    save_figure(sheet, shown, stem, formats=formats, dpi=dpi)


def _panel(axes: Axes, rows: pd.DataFrame, names: Sequence[str], parts: Sequence[str], statistic: str) -> None:
    if statistic == "coverage":
        axes.axvspan(*TARGET, color="#E8F3EC", lw=0)
        axes.axvline(95, color="#8C8C8C", lw=1)
        axes.set_xlim(60, 102)
    elif statistic == "false_positive_rate":
        axes.axvline(ALLOWED, color="#8C8C8C", lw=1, ls=(0, (4, 2)))
        axes.set_xlim(-1, max(20, 105 * rows["estimate"].max()))
    else:
        axes.axvline(0, color="#8C8C8C", lw=1)
    for offset, part in zip(dodge(len(parts), 0.72), parts, strict=True):
        if statistic in ("truth", "bias") and part == "all":
            continue
        look = PARTS[part]
        for _, row in rows[rows["part"] == part].iterrows():
            at = names.index(row["plant"]) + offset
            mark(axes, row, at, colour=look.colour, marker=look.marker, scale=100, size=4.6)
            if statistic == "coverage" and pd.isna(row["estimate"]) and row["note"].startswith("exact"):
                missing_text(axes, "exact", 61, at, fontsize=6.5)
    tidy(axes)


def _notes(shown: pd.DataFrame) -> list[str]:
    n = int(shown.loc[shown["statistic"] == "truth", "n"].max())
    return [
        f"{n} repetitions of each plant: affected classes, atoms and images of split A vary with its seed, the images "
        f"scored are drawn anew. Bars: {INTERVAL} over the plant's seeds. Shaded: a coverage of 90 to 99 %; broken "
        f"line: {ALLOWED:g} % false positives. Contributions to accuracy in percentage points.",
        "False positives: intervals that leave 0 out where the truth is 0, and claims made of the null plant.",
        "Exact: every image agrees, so the estimate is the truth and has no interval. All parts of the plant: gain, "
        "perception, mapping and what is recruited, less what was there before.",
    ]
