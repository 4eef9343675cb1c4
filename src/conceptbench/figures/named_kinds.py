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

IDS = ("backbone", "block", "dictionary", "seed")
COLUMNS = (*IDS, "kind", "latent", "estimate", "low", "high", "n", "note", "null_median", "null_high", "q")


@figure_look()
def draw_named_kinds(
    kinds: pd.DataFrame,
    kinds_null: pd.DataFrame,
    stem: Path,
    *,
    dictionary: str | None = None,
    formats: Sequence[str] = FORMATS,
    dpi: int = 150,
) -> None:
    """Draw one panel a backbone and block: united AUROC of every kind, and the random groups of its own null below.

    Args:
        kinds, kinds_null: tables of those names. dictionary: whose latents (default: the first in the table).
    """
    kinds = require(kinds, "kinds", COLUMNS)
    null = require(kinds_null, "kinds_null", (*IDS, "estimate"))
    title = "Does one latent unite visually unlike things that share only a name?"
    if kinds.empty:
        save_empty(title, "The table holds no kinds.", kinds[list(COLUMNS)], stem, formats=formats, dpi=dpi)
        return
    dictionary = dictionary or str(kinds["dictionary"].iloc[0])
    shown = kinds.loc[kinds["dictionary"] == dictionary, list(COLUMNS)].reset_index(drop=True)
    places = list(dict.fromkeys(zip(shown["backbone"], shown["block"], strict=True)))
    seeds, names = in_order(shown["seed"]), in_order(shown["kind"])
    colour, marker = colours(seeds), markers(seeds)
    keys = [Key(f"named kind, dictionary seed {seed}", colour[seed], marker[seed]) for seed in seeds]
    keys.append(Key("random groups: each a tick; bar: median to 95 % quantile", NULL_COLOUR, "|", "-", size=7))
    across = min(len(places), 4)
    down = -(-len(places) // across)
    row_height = 0.24 + 0.13 * len(seeds)
    sheet = new_sheet(
        title, width=max(6.6, 0.7 + 3.0 * across), height=down * (0.75 + row_height * len(names)), keys=keys,
        notes=_notes(dictionary),
    )  # fmt: skip
    grid = sheet.body.subplots(down, across, sharex=True, sharey=True, squeeze=False)
    for axes, (backbone, block) in zip(grid.ravel(), places, strict=False):
        mine = shown[(shown["backbone"] == backbone) & (shown["block"] == block)]
        own = (null["backbone"] == backbone) & (null["block"] == block) & (null["dictionary"] == dictionary)
        _panel(axes, mine, null[own], names, seeds, colour, marker)
        axes.set_title(f"{backbone}, block {block}")
        axes.set_xlabel("united AUROC (weakest member)")
    for axes in grid.ravel()[len(places) :]:
        axes.set_axis_off()
    grid[0, 0].set_yticks(range(len(names)), names)
    grid[0, 0].set_ylim(len(names) - 0.45, -0.55)
    save_figure(sheet, shown, stem, formats=formats, dpi=dpi)


def _panel(
    axes: Axes,
    rows: pd.DataFrame,
    null: pd.DataFrame,
    names: Sequence[str],
    seeds: Sequence[str],
    colour: dict[str, str],
    marker: dict[str, str],
) -> None:
    axes.axvline(0.5, color=NULL_COLOUR, lw=0.9)
    for at, name in enumerate(names):
        for offset, seed in zip(dodge(len(seeds), 0.6), seeds, strict=True):
            here = at + offset
            ticks = null.loc[null["seed"] == seed, "estimate"]
            axes.plot(ticks, [here + 0.07] * len(ticks), "|", color=NULL_COLOUR, ms=4, alpha=0.25, mew=0.8, zorder=1)
            for _, row in rows[(rows["kind"] == name) & (rows["seed"] == seed)].iterrows():
                ends = [row["null_median"], row["null_high"]]
                axes.plot(ends, [here + 0.07] * 2, color=NULL_COLOUR, lw=2.6, solid_capstyle="butt", zorder=2)
                mark(axes, row, here - 0.07, colour=colour[seed], marker=marker[seed])
                if pd.isna(row["estimate"]):
                    _say(axes, str(row["note"]), here)
    tidy(axes)


def _say(axes: Axes, reason: str, at: float) -> None:
    """Why there is no mark, at the right end of its line."""
    missing_text(axes, reason, 0.98, at - 0.07, ha="right", transform=axes.get_yaxis_transform())


def _notes(dictionary: str) -> list[str]:
    return [
        f"Dictionary {dictionary}. United AUROC: the smallest, over the unlike members of a kind, of the AUROC of one "
        f"latent chosen on split A and scored on split B; bars: {INTERVAL} (images resampled).",
        "Random groups: as many unlike compositions without a common name, each with its own best latent. Only a mark "
        "to the right of its grey bar is more than chance grouping.",
    ]
