"""Named kinds: does one latent unite visually unlike things that only language gives one name?"""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from conceptbench.figures.style import (
    FORMATS,
    INTERVAL,
    NULL_COLOUR,
    Key,
    colours,
    dodge,
    figure_look,
    in_order,
    mark,
    markers,
    missing_text,
    new_sheet,
    require,
    save_empty,
    save_figure,
    tidy,
)

IDS = ("backbone", "dictionary", "seed")
COLUMNS = (*IDS, "kind", "latent", "estimate", "low", "high", "n", "note", "null_median", "null_high", "q")


@figure_look()
def draw_named_kinds(
    kinds: pd.DataFrame,
    kinds_null: pd.DataFrame,
    stem: Path,
    *,
    formats: Sequence[str] = FORMATS,
    dpi: int = 150,
) -> None:
    """Draw one panel a backbone: united AUROC of every kind for each dictionary, with its own null just below.

    Args:
        kinds, kinds_null: tables of those names; rows with seed "all" are drawn.
    """
    kinds = require(kinds, "kinds", COLUMNS)
    null = require(kinds_null, "kinds_null", (*IDS, "estimate"))
    null = null[null["seed"] == "all"]
    title = "Does one latent unite visually unlike things that share only a name?"
    shown = kinds.loc[kinds["seed"] == "all", list(COLUMNS)].reset_index(drop=True)
    if shown.empty:
        save_empty(title, "The table holds no kinds.", shown, stem, formats=formats, dpi=dpi)
        return
    backbones, dictionaries = in_order(shown["backbone"]), in_order(shown["dictionary"])
    names = in_order(shown["kind"])
    colour, marker = colours(dictionaries), markers(dictionaries)
    keys = [Key(name, colour[name], marker[name]) for name in dictionaries]
    keys.append(Key("hollow: not beyond random groups (q > 0.05)", NULL_COLOUR, "o", "", hollow=True))
    keys.append(Key("random groups: each a tick; bar: median to 95 % quantile", NULL_COLOUR, "|", "-", size=7))
    sheet = new_sheet(
        title, width=max(6.6, 0.7 + 3.4 * len(backbones)), height=0.75 + len(names) * (0.3 + 0.28 * len(dictionaries)),
        keys=keys, notes=_NOTES,
    )  # fmt: skip
    grid = sheet.body.subplots(1, len(backbones), sharex=True, sharey=True, squeeze=False)[0]
    for axes, backbone in zip(grid, backbones, strict=True):
        mine, own = (table[table["backbone"] == backbone] for table in (shown, null))
        _panel(axes, mine, own, names, dictionaries, colour, marker)
        axes.set_title(backbone)
        axes.set_xlabel("united AUROC (weakest member)")
    grid[0].set_yticks(range(len(names)), names)
    grid[0].set_ylim(len(names) - 0.45, -0.55)
    save_figure(sheet, shown, stem, formats=formats, dpi=dpi)


def _panel(
    axes: Axes,
    rows: pd.DataFrame,
    null: pd.DataFrame,
    names: Sequence[str],
    dictionaries: Sequence[str],
    colour: dict[str, str],
    marker: dict[str, str],
) -> None:
    """Kinds down the axis, and for each the dictionaries with their random groups."""
    axes.axvline(0.5, color=NULL_COLOUR, lw=0.9)
    for at, name in enumerate(names):
        for offset, dictionary in zip(dodge(len(dictionaries), 0.6), dictionaries, strict=True):
            here = at + offset
            ticks = null.loc[null["dictionary"] == dictionary, "estimate"]
            axes.plot(ticks, [here + 0.07] * len(ticks), "|", color=NULL_COLOUR, ms=4, alpha=0.2, mew=0.8, zorder=1)
            for _, row in rows[(rows["kind"] == name) & (rows["dictionary"] == dictionary)].iterrows():
                ends = [row["null_median"], row["null_high"]]
                axes.plot(ends, [here + 0.07] * 2, color=NULL_COLOUR, lw=2.6, solid_capstyle="butt", zorder=2)
                hollow = not row["q"] <= 0.05
                mark(axes, row, here - 0.07, colour=colour[dictionary], marker=marker[dictionary], hollow=hollow)
                if pd.isna(row["estimate"]):
                    _say(axes, str(row["note"]), here)
    tidy(axes)


def _say(axes: Axes, reason: str, at: float) -> None:
    """Why there is no mark, at the right end of its line."""
    missing_text(axes, reason, 0.98, at - 0.07, ha="right", transform=axes.get_yaxis_transform())


_NOTES = (
    "Dictionaries over the output of the backbone (one embedding an image). United AUROC: the smallest, over the "
    "unlike members of a kind, of the AUROC of one latent chosen on split A and scored on split B; mean over "
    f"dictionary seeds; bars: {INTERVAL} (images resampled, spread of seeds).",
    "Random groups: as many unlike compositions without a common name, each with its own best latent. Only a mark "
    "to the right of its grey bar is more than chance grouping; q corrects over kinds and backbones.",
)
