"""Monosemanticity: are the images of a latent alike to another model, beyond chance and beyond the nulls?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from conceptbench.figures.dictionary_rows import NULLS, at_hook, guide_rows, name_rows, rows_shown
from conceptbench.figures.style import (
    FORMATS,
    INTERVAL,
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

LATENT_COLUMNS: Final = (
    *("backbone", "block", "dictionary", "family", "seed"),
    *("latent", "firing_images", "excess", "q", "note"),
)
SUMMARY_COLUMNS: Final = (
    *("backbone", "block", "dictionary", "family", "embedding", "statistic"),
    *("estimate", "low", "high", "n", "seed", "note"),
)
LEARNED = Key(f"learned dictionary, {INTERVAL}", PALETTE[0], "o")
NULL = Key(f"null, {INTERVAL}", NULL_COLOUR, "s")
PERMUTED = Key("images permuted", "#262626", "|", "none", size=9)
COMPARED: Final = "random"
"""Method of the null drawn beside the followed dictionary in the cloud of latents."""


@figure_look()
def draw_monosemanticity(
    monosemanticity: pd.DataFrame,
    monosemanticity_summary: pd.DataFrame,
    stem: Path,
    *,
    backbone: str = "",
    block: int = 0,
    dictionary: str = "",
    formats: Sequence[str] = FORMATS,
    dpi: int = 150,
) -> None:
    """Draw one row a dictionary: mean excess and share of latents beyond chance; beside it the cloud of latents.

    Args:
        monosemanticity: table `monosemanticity` (latents). monosemanticity_summary: table of that name.
        stem: path without suffix. backbone, block, dictionary: whose latents are drawn one by one.
    """
    latents = require(monosemanticity, "monosemanticity", LATENT_COLUMNS)
    summary = require(monosemanticity_summary, "monosemanticity_summary", SUMMARY_COLUMNS)[list(SUMMARY_COLUMNS)]
    title = "Are the images on which a latent fires alike to another model?"
    if latents.empty or summary.empty:
        save_empty(title, "The tables hold no latent.", summary, stem, formats=formats, dpi=dpi)
        return
    shown, cut = rows_shown(summary, backbone, block)
    names = list(shown[["backbone", "block", "dictionary"]].drop_duplicates().itertuples(index=False, name=None))
    cloud = _cloud_rows(at_hook(latents, backbone, block), dictionary)
    height = max(3.2, 0.75 + 0.235 * len(names))
    keys = [LEARNED, NULL, PERMUTED]
    sheet = new_sheet(title, width=11.0, height=height, keys=keys, notes=[*_notes(summary), cut])
    excess, share, points = sheet.body.subplots(1, 3, width_ratios=[1, 1, 1.35])
    for at, name in enumerate(names):
        mine = shown[(shown[["backbone", "block", "dictionary"]] == list(name)).all(axis=1)]
        _row(excess, mine, at, "mean_excess")
        _row(share, mine, at, "significant_share")
    name_rows(excess, names)
    share.set_yticks(range(len(names)), [""] * len(names))
    share.set_ylim(excess.get_ylim())
    excess.axvline(0, color="#8C8C8C", lw=1, zorder=1)
    excess.set_xlabel("mean excess of the\nmonosemanticity score over chance")
    share.set_xlabel("share of latents beyond chance\n(false discovery rate 0.05)")
    share.set_xlim(-0.03, 1.03)
    excess.xaxis.set_major_locator(MaxNLocator(4))
    for axes in (excess, share):
        guide_rows(axes, names)
        tidy(axes)
    _cloud(points, cloud)
    values = pd.concat([summary.assign(panel="summary"), cloud.assign(panel="latents")], ignore_index=True)
    save_figure(sheet, values, stem, formats=formats, dpi=dpi)


def _row(axes: Axes, mine: pd.DataFrame, at: int, statistic: str) -> None:
    key = NULL if mine["family"].iloc[0] in NULLS else LEARNED
    for _, row in mine[mine["statistic"] == statistic].iterrows():
        if row["seed"] == POOLED_SEED:
            mark(axes, row, at, colour=key.colour, marker=key.marker)
        else:
            axes.plot(row["estimate"], at + 0.3, "o", ms=2.4, color=key.colour, alpha=0.75, mew=0)
    permuted = mine[(mine["statistic"] == f"permuted_{statistic}") & (mine["seed"] == POOLED_SEED)]
    axes.plot(
        permuted["estimate"], [at] * len(permuted), PERMUTED.marker, ms=9, mew=1.6, color=PERMUTED.colour, zorder=2
    )


def _cloud_rows(latents: pd.DataFrame, dictionary: str) -> pd.DataFrame:
    """Tested latents of the followed dictionary and of a null, first seed each."""
    tested = latents[latents["note"].fillna("") == ""]
    nulls = list(dict.fromkeys(tested.loc[tested["family"] == COMPARED, "dictionary"]))
    names = [name for name in (dictionary, *nulls[:1]) if name in set(tested["dictionary"])]
    parts: list[pd.DataFrame] = []
    for name in dict.fromkeys(names or list(tested["dictionary"])[:1]):
        mine = tested[tested["dictionary"] == name]
        parts.append(mine[mine["seed"] == mine["seed"].iloc[0]])
    columns = list(LATENT_COLUMNS)
    return pd.concat(parts, ignore_index=True)[columns] if parts else tested[columns]


def _cloud(axes: Axes, cloud: pd.DataFrame) -> None:
    """Excess over the number of images on which a latent fires: rare latents can be more alike."""
    names = sorted(
        dict.fromkeys(zip(cloud["dictionary"], cloud["family"], strict=True)), key=lambda n: n[1] not in NULLS
    )
    for name, family in names:
        mine = cloud[cloud["dictionary"] == name]
        look: dict[str, Any] = (
            {"color": NULL_COLOUR, "alpha": 0.45} if family in NULLS else {"color": PALETTE[0], "alpha": 0.6}
        )
        axes.plot(mine["firing_images"], mine["excess"], "o", ms=2.6, mew=0, label=name, rasterized=True, **look)
    axes.axhline(0, color="#8C8C8C", lw=1, zorder=1)
    axes.set_xscale("log")
    axes.set_xlabel("images on which the latent fires (log axis)")
    axes.set_ylabel("excess over chance")
    if names:
        first = cloud.iloc[0]
        axes.set_title(f"latents at {first['backbone']} · block {first['block']}")
        axes.legend(loc="upper right", frameon=False, markerscale=2.2, handletextpad=0.2)
    axes.grid(visible=True)


def _notes(summary: pd.DataFrame) -> list[str]:
    judges = " and ".join(dict.fromkeys(str(name) for name in summary["embedding"]))
    n = int(np.nanmax(summary["n"]))
    return [
        f"Score: mean cosine of the image embeddings of {judges} over pairs of images, weighted by the latent's "
        f"activations; chance: the same with the images permuted, in closed form. {n} test images; intervals: "
        "jackknife over groups of images, and seeds; small dots: single seeds."
    ]
