"""Masking curves: accuracy when only a few latents stay, or when a few are removed, beside the controls."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from conceptbench.figures.style import (
    FORMATS,
    INTERVAL,
    NULL_COLOUR,
    PALETTE,
    Key,
    figure_look,
    in_order,
    new_sheet,
    require,
    save_empty,
    save_figure,
    tidy,
)

COLUMNS = (
    "task", "half", "model", "selected_by", "edit", "dense", "selection", "direction", "k", "outcome", "seed",
    "estimate", "low", "high", "n", "note",
)  # fmt: skip
KEYS: dict[str, Key] = {
    "true": Key("top latents of the image's own class", PALETTE[1], "D"),
    "predicted": Key("of the predicted class", PALETTE[5], "s"),
    "wrong": Key("of another class", PALETTE[3], "v", (0, (4, 2)), True),
    "dataset": Key("of the whole data set", PALETTE[2], "^"),
    "matched": Key("control: active on the image, matched in frequency and mass", PALETTE[0], "o", (0, (4, 2)), True),
    "random": Key("control: random among all latents", NULL_COLOUR, "o", (0, (1, 1.5)), True),
    "pca": Key("reference: principal components of equal rank", "#000000", "x", (0, (5, 1, 1, 1))),
}
CONTRASTS: dict[str, Key] = {
    "true-matched": Key("own class less matched control", PALETTE[1], "D"),
    "predicted-matched": Key("predicted class less matched control", PALETTE[5], "s"),
    "true-predicted": Key("own class less predicted class: what knowing the answer adds", "#000000", "X"),
}
EDITS = {"keep-error": "dictionary's error kept", "replace": "tokens replaced by their reconstruction"}
WAYS = {"on": "only the top k stay", "off": "the top k are removed"}
LABELLED = 9
"""Values of k that get a label, at most."""


@figure_look()
def draw_masking(
    masking: pd.DataFrame,
    masking_contrasts: pd.DataFrame,
    stem: Path,
    *,
    model: str = "zero-shot",
    formats: Sequence[str] = FORMATS,
    dpi: int = 150,
) -> None:
    """Draw a row a task and direction, a column an edit, and the paired contrasts in the last column.

    Args:
        masking: table `masking`. masking_contrasts: table of that name. model: whose predictions are shown, with
            rankings of its own and dense latents kept.
    """
    curves = _select(require(masking, "masking", COLUMNS), model)
    gaps = _select(require(masking_contrasts, "masking_contrasts", COLUMNS), model)
    values = pd.concat([curves, gaps], ignore_index=True)
    title = f"How much of a classification do a few latents carry? ({model})"
    if curves.empty:
        save_empty(title, f"The table holds no curves of {model}.", values, stem, formats=formats, dpi=dpi)
        return
    tasks, edits = in_order(curves["task"]), in_order(curves["edit"], tuple(EDITS))
    keys = [KEYS[name] for name in in_order(curves["selection"], tuple(KEYS))]
    keys += [CONTRASTS[name] for name in CONTRASTS if (gaps["selection"] == name).any()]
    lines = [(task, way) for task in tasks for way in WAYS]
    width = 0.9 + 3.1 * (len(edits) + 1)
    sheet = new_sheet(title, width=width, height=2.35 * len(lines) + 0.2, keys=keys, notes=_notes(curves))
    grid = sheet.body.subplots(len(lines), len(edits) + 1, squeeze=False, sharex="col")
    for row, (task, way) in enumerate(lines):
        mine = curves[(curves["task"] == task) & (curves["direction"] == way)]
        for column, edit in enumerate(edits):
            _curves(grid[row, column], mine[mine["edit"] == edit], KEYS)
            grid[row, column].set_ylim(-0.02, 1.02)
        between = gaps[(gaps["task"] == task) & (gaps["direction"] == way) & (gaps["edit"] == edits[0])]
        grid[row, -1].axhline(0, color="#8C8C8C", lw=1)
        _curves(grid[row, -1], between, CONTRASTS)
        grid[row, 0].set_ylabel(f"{task}: {WAYS[way]}\naccuracy")
        grid[row, -1].set_ylabel("difference of accuracies")
    for column, edit in enumerate(edits):
        grid[0, column].set_title(EDITS[edit])
    grid[0, -1].set_title(f"contrasts, {EDITS[edits[0]]}" if len(edits) == 1 else "paired contrasts")
    for axes in grid[-1]:
        axes.set_xlabel("k")
    save_figure(sheet, values, stem, formats=formats, dpi=dpi)


def _select(table: pd.DataFrame, model: str) -> pd.DataFrame:
    """Accuracy of one model under its own rankings, dense latents kept."""
    chosen = (table["model"] == model) & (table["selected_by"] == model)
    chosen &= (table["dense"] == "kept") & (table["outcome"] == "accuracy")
    return table.loc[chosen, list(COLUMNS)].reset_index(drop=True)


def _curves(axes: Axes, rows: pd.DataFrame, keys: dict[str, Key]) -> None:
    sizes = sorted(rows["k"].unique())
    for name, key in keys.items():
        mine = rows[(rows["selection"] == name) & rows["estimate"].notna()].sort_values("k")
        if mine.empty:
            continue
        at = [sizes.index(k) for k in mine["k"]]
        low, high = mine["low"].fillna(mine["estimate"]), mine["high"].fillna(mine["estimate"])
        axes.fill_between(at, low, high, color=key.colour, alpha=0.13, lw=0, zorder=2)
        axes.plot(
            at, mine["estimate"], color=key.colour, ls=key.line, marker=key.marker, ms=3.6, lw=1.4, zorder=3,
            mfc="white" if key.hollow else key.colour,
        )  # fmt: skip
    labelled = np.unique(np.linspace(0, len(sizes) - 1, min(LABELLED, len(sizes))).round().astype(int))
    axes.set_xticks(labelled, [_label(sizes, at) for at in labelled])
    tidy(axes, grid="y")


def _label(sizes: Sequence[int], at: int) -> str:
    return "all" if at == len(sizes) - 1 else str(sizes[at])


def _notes(curves: pd.DataFrame) -> list[str]:
    return [
        f"Latents are ranked on split A and scored on split B; bands: {INTERVAL} (images resampled within classes, "
        "seeds as outer level). Own class: the image's label chooses the latents, so part of the curve is the answer "
        "given away; the predicted class needs no label.",
        "The matched control has as many active latents as the own class's list at every k; what the two have in "
        "mass is in the table masking_balance. Components end where the token has no more features.",
    ]
