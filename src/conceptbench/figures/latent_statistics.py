"""Latent statistics: how often and how strongly every latent fires, coloured by the entropy of its labels.

After Figure 3 of the PatchSAE paper (arXiv 2412.05276): one point a latent, frequency across, mean activation up.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize

from conceptbench.errors import ConceptBenchError
from conceptbench.figures.style import FORMATS, INK, figure_look, in_order, new_sheet, require, save_empty, save_figure

COLUMNS = (
    "backbone", "block", "dictionary", "seed", "dataset", "latent", "frequency_image", "mean_activation",
    "label_entropy", "n_reference", "dead", "dense",
)  # fmt: skip
UNLABELLED = "#BDBDBD"
PANEL = (2.75, 2.35)
FRAME = ["backbone", "block"]


@figure_look()
def draw_latent_statistics(
    latents: pd.DataFrame,
    stem: Path,
    *,
    dataset: str | None = None,
    seed: str | None = None,
    dictionaries: Sequence[str] = (),
    formats: Sequence[str] = FORMATS,
    dpi: int = 150,
) -> None:
    """Draw one panel a dictionary (across) and hook point (down), with the marginal counts on each panel's edges.

    Args:
        latents: table `latents`. stem: path without suffix of the figure and its CSV.
        dataset: data set shown (default: the one with the most latents that have a label entropy).
        seed: seed of the dictionaries shown (default: the first); dictionaries: names shown (default: all).
    """
    shown, name, seed = _select(require(latents, "latents", COLUMNS), dataset, seed, dictionaries)
    title = f"What the latents of each dictionary do on {name}: how often and how strongly they fire"
    if shown.empty:
        save_empty(title, "The table holds no latents for this choice.", shown, stem, formats=formats, dpi=dpi)
        return
    rows = list(dict.fromkeys(zip(shown["backbone"], shown["block"], strict=True)))
    columns = in_order(shown["dictionary"])
    labelled = bool(shown["label_entropy"].notna().any())
    width = max(6.2, 0.75 + PANEL[0] * len(columns) + (0.9 if labelled else 0))
    sheet = new_sheet(
        title, width=width, height=0.45 + PANEL[1] * len(rows), notes=_notes(name, seed, labelled, shown)
    )  # fmt: skip
    grid = sheet.body.subplots(len(rows), len(columns), sharex=True, sharey="row", squeeze=False)
    scale = Normalize(0.0, max(float(shown["label_entropy"].max()), 1e-9)) if labelled else Normalize(0, 1)
    for axes, dictionary in zip(grid[0], columns, strict=True):
        axes.set_title(dictionary)
    for axes_row, (backbone, block) in zip(grid, rows, strict=True):
        for axes, dictionary in zip(axes_row, columns, strict=True):
            chosen = (shown["backbone"] == backbone) & (shown["block"] == block) & (shown["dictionary"] == dictionary)
            _panel(axes, shown[chosen], scale)
        axes_row[0].set_ylabel(f"{backbone}, block {block}\nlog10 mean activation")
    for axes in grid[-1]:
        axes.set_xlabel("log10 frequency (share of images)")
    if labelled:
        bar = sheet.body.colorbar(
            ScalarMappable(scale, mpl.colormaps["viridis"]), ax=grid.ravel().tolist(), shrink=0.8, aspect=28, pad=0.015
        )
        bar.set_label("label entropy of the exemplars (nats)")
    save_figure(sheet, shown.drop(columns="drawn"), stem, formats=formats, dpi=dpi)


def _select(
    latents: pd.DataFrame, dataset: str | None, seed: str | None, dictionaries: Sequence[str]
) -> tuple[pd.DataFrame, str, str]:
    """Rows of one data set and seed with their logarithms; a latent that never fires is kept but not drawn."""
    known = in_order(latents["dataset"])
    if dataset is None:
        labelled = latents.loc[latents["label_entropy"].notna(), "dataset"].value_counts(sort=True)
        dataset = str(labelled.index[0]) if len(labelled) else (known[0] if known else "no data set")
    elif dataset not in known:
        raise ConceptBenchError(
            f"Table 'latents' holds no data set '{dataset}'; choose from {', '.join(known) or 'none'}."
        )
    shown = latents[latents["dataset"] == dataset]
    seed = str(seed) if seed is not None else str(shown["seed"].iloc[0] if len(shown) else "0")
    shown = shown[shown["seed"] == seed]
    if dictionaries:
        shown = shown[shown["dictionary"].isin(list(dictionaries))]
    drawn = (shown["frequency_image"] > 0) & (shown["mean_activation"] > 0)
    logs = {
        f"log10_{column}": np.log10(shown[column].where(drawn).astype(float))
        for column in ("frequency_image", "mean_activation")
    }
    return shown[list(COLUMNS)].assign(**logs, drawn=drawn).reset_index(drop=True), dataset, seed


def _panel(axes: Axes, rows: pd.DataFrame, scale: Normalize) -> None:
    """The scatter of one dictionary, ticks on the edges for the margins, and the counts in words."""
    drawn = rows[rows["drawn"]].sort_values("label_entropy", ascending=False, na_position="first")
    plain, coloured = drawn[drawn["label_entropy"].isna()], drawn[drawn["label_entropy"].notna()]
    x, y = "log10_frequency_image", "log10_mean_activation"
    look: dict[str, Any] = {"s": 9.0 if len(drawn) > 200 else 16.0, "linewidth": 0, "alpha": 0.85, "rasterized": True}
    axes.scatter(plain[x], plain[y], color=UNLABELLED, **look)
    axes.scatter(coloured[x], coloured[y], c=coloured["label_entropy"], norm=scale, cmap="viridis", **look)
    if len(drawn):
        faint: dict[str, Any] = {
            "alpha": min(0.4, 30 / len(drawn)),
            "color": INK,
            "ms": 6,
            "ls": "",
            "rasterized": True,
        }
        axes.plot(drawn[x], [0.0] * len(drawn), marker="|", transform=axes.get_xaxis_transform(), **faint)
        axes.plot([0.0] * len(drawn), drawn[y], marker="_", transform=axes.get_yaxis_transform(), **faint)
    dead, dense = int(rows["dead"].sum()), int(rows["dense"].sum())
    text = f"{len(rows):,} latents\n{dead:,} dead, {dense:,} dense" if len(rows) else "no such dictionary"
    axes.text(
        0.97, 0.05, text, transform=axes.transAxes, ha="right", va="bottom", fontsize=7.5, zorder=6,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 1.5},
    )  # fmt: skip
    axes.set(xlabel="", ylabel="")
    axes.margins(0.06, 0.08)


def _notes(dataset: str, seed: str, labelled: bool, shown: pd.DataFrame) -> list[str]:
    references = int(shown["n_reference"].max())
    colour = (
        f"Colour: entropy of the labels of a latent's exemplars (at most {references} images; 0 = one class)."
        + (" Grey: no labels." if shown.loc[shown["drawn"], "label_entropy"].isna().any() else "")
        if labelled
        else f"The images of {dataset} carry no class labels, so there is no label entropy."
    )
    return [
        f"One point a latent; dictionaries of seed {seed}. Frequency: share of images on which the latent fires. Mean "
        "activation: mean over all tokens, averaged over the images where it fires. Ticks on the edges: margins.",
        colour + " Dead latents fire on no image and are counted, not drawn; raw and pca have two latents for each "
        "coordinate, one a sign. Dense: fires on more than a tenth of all tokens.",
    ]
