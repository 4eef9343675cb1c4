"""How often latents fire, how close the reconstruction is and how alike the atoms are, dictionary by dictionary."""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from conceptbench.figures.dictionary_rows import IDS, guide_rows, name_rows, rows_shown
from conceptbench.figures.style import (
    FORMATS,
    PALETTE,
    figure_look,
    new_sheet,
    place,
    require,
    save_empty,
    save_figure,
    tidy,
)

COLUMNS: Final = ("backbone", "block", "dictionary", "seed", "method")
BINS: Final = ("backbone", "block", "dictionary", "seed", "log10_from", "log10_to", "share")
SHOWN: Final = {
    "dead_share": "never firing\n(share of latents)",
    "dense_share": "dense: on over 10 %\nof tokens (share)",
    "cosine": "reconstruction\n(cosine)",
    "nearest_atom": "nearest atom\n(mean cosine)",
    "coherence": "closest pair of\natoms (|cosine|)",
}
"""Columns of the table `dictionaries`, and the labels of their panels."""
SHADES: Final = "Blues"


@figure_look()
def draw_densities(
    dictionaries: pd.DataFrame,
    densities: pd.DataFrame,
    stem: Path,
    *,
    backbone: str = "",
    block: int = 0,
    formats: Sequence[str] = FORMATS,
    dpi: int = 150,
) -> None:
    """Draw one row a dictionary: the distribution of firing rates (first seed), and one dot a seed in every panel.

    Args:
        dictionaries, densities: tables of those names. stem: path without suffix. backbone, block: the hook point shown
            first.
    """
    table = require(dictionaries, "dictionaries", (*COLUMNS, *SHOWN))[[*COLUMNS, *SHOWN]]
    bins = require(densities, "densities", BINS)[list(BINS)]
    title = "How often do latents fire, and how alike are the atoms?"
    values = bins.merge(table, on=list(COLUMNS[:4]), how="outer")
    if table.empty:
        save_empty(title, "The table holds no dictionary.", values, stem, formats=formats, dpi=dpi)
        return
    shown, cut = rows_shown(table.assign(family=table["method"]), backbone, block)
    names = list(shown[list(IDS)].drop_duplicates().itertuples(index=False, name=None))
    longest = max(len(place(*name)) for name in names)
    sheet = new_sheet(
        title, width=11.0 + 0.055 * longest, height=1.0 + 0.26 * len(names), notes=[_note(shown), cut],
    )  # fmt: skip
    first, *panels = sheet.body.subplots(1, 1 + len(SHOWN), sharey=True, width_ratios=[3.0, *[1.0] * len(SHOWN)])
    _rates(first, bins, names)
    name_rows(first, names)
    for axes, (column, label) in zip(panels, SHOWN.items(), strict=True):
        for at, name in enumerate(names):
            mine = shown[(shown[list(IDS)] == list(name)).all(axis=1)]
            axes.plot(mine[column], [at] * len(mine), "o", ms=4, color=PALETTE[0], alpha=0.7, mew=0)
        axes.set_xlabel(label)
        axes.set_xlim(-0.04, 1.04)
        guide_rows(axes, names)
        tidy(axes)
    save_figure(sheet, values, stem, formats=formats, dpi=dpi)


def _rates(axes: Axes, bins: pd.DataFrame, names: Sequence[tuple[object, ...]]) -> None:
    """A strip of shades for each dictionary: the share of its latents in each bin of the firing rate."""
    edges = np.unique(bins[["log10_from", "log10_to"]].to_numpy())
    for at, name in enumerate(names):
        mine = bins[(bins[list(IDS)] == list(name)).all(axis=1)]
        if mine.empty:
            continue
        one = mine[mine["seed"] == mine["seed"].iloc[0]].sort_values("log10_from")
        shares = one["share"].to_numpy()
        full = max(float(shares[1:].max(initial=0.0)), 1e-12)
        axes.pcolormesh(edges, [at - 0.4, at + 0.4], shares[None], cmap=SHADES, vmin=0.0, vmax=full, rasterized=True)
    axes.set_xlabel("share of tokens that a latent fires on (log10)\nshade: share of the dictionary's latents")
    tidy(axes)


def _note(shown: pd.DataFrame) -> str:
    seeds = shown["seed"].nunique()
    return (
        f"Held-out tokens. The strips show the first of {seeds} seed{'s' if seeds > 1 else ''}, each shaded up to its "
        "fullest bin but the leftmost, which also holds the latents that never fire. Dots: one a seed."
    )
