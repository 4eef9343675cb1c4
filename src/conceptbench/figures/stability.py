"""Stability: do other seeds find the same atoms, beyond chance, and which of them?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from conceptbench.figures.dictionary_rows import guide_rows, name_rows, row_labels, rows_shown
from conceptbench.figures.style import (
    FORMATS,
    INK,
    NULL_COLOUR,
    PALETTE,
    POOLED_SEED,
    Key,
    figure_look,
    mark,
    new_sheet,
    require,
    save_empty,
    save_figure,
    tidy,
)

COLUMNS: Final = (
    *("backbone", "block", "dictionary", "family", "runs", "matching", "statistic"),
    *("estimate", "low", "high", "n", "seed", "note"),
)
MEAN = Key("mean over live latents", PALETTE[0], "o")
ENERGY = Key("weighted by energy", PALETTE[1], "D", hollow=True)
DECODER = Key("atoms alike (cosine at least 0.7)", PALETTE[2], "s")
BOTH = Key("atoms and encoder alike", PALETTE[3], "v", hollow=True)
RANDOM = Key("chance: random atoms", NULL_COLOUR, "|", "none", size=9)
SHUFFLED = Key("chance of the mark it stands at: shuffled runs", INK, "|", "none", size=9)
SHADES: Final = ("#B9D7EA", "#7FB6DA", "#3B8BC4", "#0B4F86")
QUARTERS: Final = ("rarest quarter of the latents", "second", "third", "most frequent quarter")


@figure_look()
def draw_stability(
    stability: pd.DataFrame,
    stem: Path,
    *,
    backbone: str = "",
    block: int = 0,
    formats: Sequence[str] = FORMATS,
    dpi: int = 150,
) -> None:
    """Draw one row a dictionary: cosine with the partner, latents found again, cosine by frequency; all with floors.

    Args:
        stability: table `stability`. stem: path without suffix. backbone, block: the hook point shown first.
    """
    table = require(stability, "stability", COLUMNS)[list(COLUMNS)]
    title = "Does another training run find the same atoms?"
    if table.empty:
        save_empty(title, "No dictionary was learnt more than once.", table, stem, formats=formats, dpi=dpi)
        return
    halves = table["runs"] == "halves"
    table.loc[halves, "dictionary"] = table.loc[halves, "dictionary"] + " (halves)"
    shown, cut = rows_shown(table, backbone, block)
    names = list(shown[["backbone", "block", "dictionary"]].drop_duplicates().itertuples(index=False, name=None))
    shades = [Key(label, shade, "o", "none") for label, shade in zip(QUARTERS, SHADES, strict=True)]
    longest = max(map(len, row_labels(names)))
    sheet = new_sheet(
        title, width=9.0 + 0.055 * longest, height=0.75 + 0.3 * len(names), notes=[*_notes(shown), cut],
        keys=[MEAN, ENERGY, RANDOM, SHUFFLED, DECODER, BOTH, *shades],
    )  # fmt: skip
    cosine, share, strata = sheet.body.subplots(1, 3, sharey=True)
    for at, name in enumerate(names):
        mine = shown[(shown[["backbone", "block", "dictionary"]] == list(name)).all(axis=1)]
        _row(mine, at, (cosine, share, strata))
    name_rows(cosine, names)
    for axes, label in zip((cosine, share, strata), _LABELS, strict=True):
        axes.set_xlabel(label)
        axes.set_xlim(-0.03, 1.03)
        guide_rows(axes, names)
        tidy(axes)
    save_figure(sheet, table, stem, formats=formats, dpi=dpi)


_LABELS: Final = (
    "cosine with the partner\nin the other run (MCC)",
    "share of latents\nfound in the other run",
    "cosine with the partner,\nby how often the latent fires",
)


def _row(mine: pd.DataFrame, at: int, panels: tuple[Axes, Axes, Axes]) -> None:
    """The marks of one dictionary; single pairs of runs are small dots."""
    cosine, share, strata = panels
    pooled = {str(row["statistic"]): row for _, row in mine[mine["seed"] == POOLED_SEED].iterrows()}
    pairs = mine[(mine["seed"] != POOLED_SEED) & (mine["statistic"] == "mcc")]
    cosine.plot(pairs["estimate"], [at + 0.34] * len(pairs), "o", ms=2.4, color=MEAN.colour, alpha=0.75, mew=0)
    _floor(cosine, pooled, "floor_random", at - 0.12, RANDOM.colour)
    for axes, pieces in (
        (cosine, ((MEAN, "mcc", "floor_shuffled", -0.12), (ENERGY, "energy_mcc", "floor_energy_mcc", 0.14))),
        (
            share,
            (
                (DECODER, "shared_decoder", "floor_shared_decoder", -0.12),
                (BOTH, "shared_both", "floor_shared_both", 0.14),
            ),
        ),
    ):
        for key, statistic, floor, offset in pieces:
            _floor(axes, pooled, floor, at + offset, SHUFFLED.colour)
            if statistic in pooled:
                mark(axes, pooled[statistic], at + offset, colour=key.colour, marker=key.marker, hollow=key.hollow)
    _strata(strata, pooled, at)


def _floor(axes: Axes, pooled: dict[str, Any], statistic: str, at: float, colour: str) -> None:
    if statistic in pooled:
        axes.plot(pooled[statistic]["estimate"], at, "|", ms=7, mew=1.8, color=colour, zorder=2)


def _strata(axes: Axes, pooled: dict[str, Any], at: int) -> None:
    quarters = [pooled.get(f"frequency_{number}") for number in range(1, 5)]
    values = [np.nan if row is None else float(row["estimate"]) for row in quarters]
    axes.plot(values, [at - 0.12] * 4, color="#C9C9C9", lw=1.0, zorder=1)
    for number, (value, shade) in enumerate(zip(values, SHADES, strict=True), start=1):
        axes.plot(value, at - 0.12, "o", ms=6, color=shade, mec="white", mew=0.5, zorder=4)
        _floor(axes, pooled, f"floor_frequency_{number}", at + 0.2, shade)


def _notes(shown: pd.DataFrame) -> list[str]:
    rules = {
        "assignment": "the one-to-one assignment of largest summed signed cosine",
        "mutual nearest": "mutual nearest neighbours (many latents; a lower bound)",
    }
    used = " or ".join(rules[name] for name in rules if name in set(shown["matching"]))
    n = int(shown.loc[shown["seed"] == POOLED_SEED, "n"].max())
    return [
        f"Live latents of two runs are matched by {used}; a latent without a partner counts 0. Bars: 95 % interval, "
        f"jackknife over at most {n} runs; small dots: single pairs. Shuffled runs keep mean and covariance of atoms "
        "and encoder, and which latents are frequent and strong, but no latent; ticks of the quarters are below them, "
        "in their colour. A random dictionary must lie on its chance level."
    ]
