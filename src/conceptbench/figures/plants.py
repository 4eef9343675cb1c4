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
    PUT_BACK,
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

COLUMNS = ("plant", "models", "outcome", "part", "statistic", "estimate", "low", "high", "n", "note")
PLANTS = ("relabel", "recruit", "amplify", "mixed", "null", "recruit-any")
PARTS: dict[str, Key] = {
    "gain": Key("gain", "#000000", "D"),
    "perception": Key("perception", PALETTE[1], "o"),
    "mapping": Key("mapping", PALETTE[0], "s"),
    "existing": Key("existing", PALETTE[7], ">"),
    "recruited": Key("recruited", PALETTE[5], "<"),
    "beyond": Key(PUT_BACK, PALETTE[2], "^"),
    "recruitment": Key("claim of recruitment", PALETTE[3], "P"),
    "remapping": Key("claim of remapping", PALETTE[4], "X"),
    "all": Key("parts of the plant, pooled", NULL_COLOUR, "v"),
}
PANELS = {
    ("truth", 1): "planted truth (points)",
    ("bias", 1): "estimate less truth (points)",
    ("coverage", 1): "coverage, one model (%)",
    ("coverage_of_all", 3): "coverage, three seeds (%)",
    ("false_positive_rate", 1): "false positives (%)",
    ("power", 1): "power of claims (%)",
}
"""Statistic and number of planted models, with the label of its panel."""
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
    kinds = {at: label for at, label in PANELS.items() if not _of(shown, *at).empty}
    if shown.empty:
        save_empty(title, "Nothing was planted.", shown, stem, formats=formats, dpi=dpi)
        return
    names = in_order(shown["plant"], PLANTS)
    parts = in_order(shown["part"], tuple(PARTS))
    sheet = new_sheet(
        title,
        width=1.6 + 2.1 * len(kinds),
        height=0.7 + 0.17 * (len(parts) + 1) * len(names),
        keys=[PARTS[part] for part in parts],
        notes=_notes(shown),
    )
    panels = sheet.body.subplots(1, len(kinds), sharey=True, squeeze=False)[0]
    for axes, ((statistic, models), label) in zip(panels, kinds.items(), strict=True):
        _panel(axes, _of(shown, statistic, models), names, parts, statistic)
        axes.set_xlabel(label)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].set_ylim(len(names) - 0.45, -0.55)
    save_figure(sheet, shown, stem, formats=formats, dpi=dpi)


def _of(shown: pd.DataFrame, statistic: str, models: int) -> pd.DataFrame:
    return shown[(shown["statistic"] == statistic) & (shown["models"] == models)]


def _panel(axes: Axes, rows: pd.DataFrame, names: Sequence[str], parts: Sequence[str], statistic: str) -> None:
    if statistic.startswith("coverage"):
        axes.axvspan(*TARGET, color="#E8F3EC", lw=0)
        axes.axvline(95, color="#8C8C8C", lw=1)
        axes.set_xlim(min(60, 100 * rows["estimate"].min() - 3), 102)
    elif statistic == "false_positive_rate":
        axes.axvline(ALLOWED, color="#8C8C8C", lw=1, ls=(0, (4, 2)))
        axes.set_xlim(-1, max(20, 105 * rows["estimate"].max()))
    elif statistic == "power":
        axes.set_xlim(-2, 102)
    else:
        axes.axvline(0, color="#8C8C8C", lw=1)
    for offset, part in zip(dodge(len(parts), 0.72), parts, strict=True):
        if statistic in ("truth", "bias") and part == "all":
            continue
        look = PARTS[part]
        for _, row in rows[rows["part"] == part].iterrows():
            at = names.index(row["plant"]) + offset
            mark(axes, row, at, colour=look.colour, marker=look.marker, scale=100, size=4.6)
            if statistic.startswith("coverage") and pd.isna(row["estimate"]) and row["note"].startswith("exact"):
                missing_text(axes, "exact", axes.get_xlim()[0] + 1, at, fontsize=6.5)
    tidy(axes)


def _notes(shown: pd.DataFrame) -> list[str]:
    n = int(_of(shown, "truth", 1)["n"].max())
    pooled = " Three seeds: as studies pool." if (shown["models"] > 1).any() else ""
    return [
        f"{n} repetitions of each plant: affected classes, atoms and images of split A vary with its seed, the images "
        f"scored are drawn anew. Bars: {INTERVAL} over the plant's seeds; of shares of repetitions, Monte Carlo. "
        f"Shaded: a coverage of 90 to 99 %; broken line: {ALLOWED:g} % false positives.{pooled}",
        "False positives: intervals that leave 0 out where the truth is 0, and claims of recruitment or remapping "
        "where there is none; power: the claims where there is. Contributions to accuracy in percentage points.",
        "Exact: every image agrees, so the estimate is the truth and has no interval. Pooled: gain, perception, "
        f"mapping and {PUT_BACK}. Recruit has atoms that the dictionary measures best and a readout threshold; "
        "recruit-any has any silent atoms and none, and is outside of the pass line.",
    ]
