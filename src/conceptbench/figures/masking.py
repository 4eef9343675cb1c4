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
    "estimate", "low", "high", "n", "note", "disjoint",
)  # fmt: skip
_OF = {"true": PALETTE[1], "predicted": PALETTE[5], "wrong": PALETTE[3], "dataset": PALETTE[2]}
_DASHED = (0, (4, 2))
KEYS: dict[str, Key] = {
    "true": Key("top latents of the image's own class", _OF["true"], "D"),
    "predicted": Key("of the predicted class", _OF["predicted"], "s"),
    "wrong": Key("of another class", _OF["wrong"], "v"),
    "dataset": Key("of the whole data set", _OF["dataset"], "^"),
    "matched": Key("matched control of the own class", _OF["true"], "D", _DASHED, True),
    "matched-predicted": Key("of the predicted class", _OF["predicted"], "s", _DASHED, True),
    "matched-wrong": Key("of another class", _OF["wrong"], "v", _DASHED, True),
    "matched-dataset": Key("of the whole data set", _OF["dataset"], "^", _DASHED, True),
    "random": Key("control: random among all latents", NULL_COLOUR, "o", (0, (1, 1.5)), True),
    "pca": Key("reference: principal components of equal rank", "#000000", "x", (0, (5, 1, 1, 1))),
}
CONTRASTS: dict[str, Key] = {
    **{f"{name}-matched": Key(f"{KEYS[name].label}, less control", _OF[name], KEYS[name].marker) for name in _OF},
    "true-predicted": Key("own class less predicted class: what knowing the answer adds", "#000000", "X"),
}
EDITS = {"keep-error": "dictionary's error kept", "replace": "tokens reconstructed"}
WAYS = {"on": "only the top k stay", "off": "the top k are removed"}
BANDED = ("true", "matched", "pca", "true-matched", "true-predicted")
"""Curves that have bands, at most three in a panel: more would merge into one."""
APART = 0.5
"""A matched control is drawn where on so many of the images it can be made of other latents than its ranking."""
ZERO_SHOT = "zero-shot"
MOST_MODELS = 3
"""Models that are drawn, at most: zero-shot, then adapted ones as they come."""
LABELLED = 6
"""Values of k that get a label, at most."""


@figure_look()
def draw_masking(
    masking: pd.DataFrame,
    masking_contrasts: pd.DataFrame,
    stem: Path,
    *,
    formats: Sequence[str] = FORMATS,
    dpi: int = 150,
) -> None:
    """Draw a row a task and model, a column an edit and direction, and the paired contrasts in the last columns.

    Args:
        masking: table `masking`. masking_contrasts: table of that name. Of both the accuracy of models under rankings
            of their own is shown, dense latents kept; at most `MOST_MODELS` models.
    """
    curves, gaps = (
        _select(require(table, name, COLUMNS))
        for table, name in ((masking, "masking"), (masking_contrasts, "masking_contrasts"))
    )
    models = in_order(curves["model"], (ZERO_SHOT,))
    curves, gaps = (table[table["model"].isin(models[:MOST_MODELS])].reset_index(drop=True) for table in (curves, gaps))
    values = pd.concat([curves, gaps], ignore_index=True)
    title = "How much of a classification do a few latents carry, before and after adaptation?"
    if curves.empty:
        save_empty(title, "The table holds no curves.", values, stem, formats=formats, dpi=dpi)
        return
    edits = in_order(curves["edit"], tuple(EDITS))
    lines = [(task, model) for task in in_order(curves["task"]) for model in models[:MOST_MODELS]]
    columns = [(edit, way) for edit in [*edits, None] for way in WAYS]
    keys = [KEYS[name] for name in in_order(curves["selection"], tuple(KEYS))]
    keys += [CONTRASTS["true-predicted"]] if (gaps["selection"] == "true-predicted").any() else []
    notes = _notes(EDITS[edits[0]], models[MOST_MODELS:])
    sheet = new_sheet(title, width=0.7 + 2.55 * len(columns), height=2.3 * len(lines) + 0.3, keys=keys, notes=notes)
    grid = sheet.body.subplots(len(lines), len(columns), squeeze=False, sharex="col")
    for row, (task, model) in enumerate(lines):
        for column, (edit, way) in enumerate(columns):
            axes, table = grid[row, column], gaps if edit is None else curves
            mine = table[(table["task"] == task) & (table["model"] == model) & (table["direction"] == way)]
            _curves(axes, mine[mine["edit"] == (edit or edits[0])], CONTRASTS if edit is None else KEYS)
            if edit is None:
                axes.axhline(0, color="#8C8C8C", lw=1)
            else:
                axes.set_ylim(-0.02, 1.02)
        grid[row, 0].set_ylabel(f"{task}, {model}\naccuracy")
    for column, (edit, way) in enumerate(columns):
        name = "each less its control" if edit is None else EDITS[edit]
        grid[0, column].set_title(f"{WAYS[way]}\n{name}", fontsize=8.5)
        grid[-1, column].set_xlabel("k")
    save_figure(sheet, values, stem, formats=formats, dpi=dpi)


def _select(table: pd.DataFrame) -> pd.DataFrame:
    """Accuracy of models under their own rankings, dense latents kept."""
    chosen = (table["model"] == table["selected_by"]) & (table["dense"] == "kept") & (table["outcome"] == "accuracy")
    return table.loc[chosen, list(COLUMNS)].reset_index(drop=True)


def _curves(axes: Axes, rows: pd.DataFrame, keys: dict[str, Key]) -> None:
    sizes = sorted(rows["k"].unique())
    for name, key in keys.items():
        # what is no control has no value of `disjoint`, and is drawn to its end
        apart = rows["disjoint"].isna() | (rows["disjoint"] >= APART)
        mine = rows[(rows["selection"] == name) & rows["estimate"].notna() & apart].sort_values("k")
        if mine.empty:
            continue
        at = [sizes.index(k) for k in mine["k"]]
        low, high = mine["low"].fillna(mine["estimate"]), mine["high"].fillna(mine["estimate"])
        if name in BANDED:
            axes.fill_between(at, low, high, color=key.colour, alpha=0.09 if key.hollow else 0.18, lw=0, zorder=2)
        axes.plot(
            at, mine["estimate"], color=key.colour, ls=key.line, marker=key.marker, ms=3.2, zorder=3,
            lw=1.0 if key.hollow else 1.4,
            mfc="white" if key.hollow else key.colour,
        )  # fmt: skip
    labelled = np.unique(np.linspace(0, len(sizes) - 1, min(LABELLED, len(sizes))).round().astype(int))
    axes.set_xticks(labelled, [_label(sizes, at) for at in labelled])
    tidy(axes, grid="y")


def _label(sizes: Sequence[int], at: int) -> str:
    return "all" if at == len(sizes) - 1 else str(sizes[at])


def _notes(contrasted: str, left_out: Sequence[str]) -> list[str]:
    return [
        "Latents are ranked on split A under the same model and scored on split B. Bands, of the own class, its "
        f"control, the components and two of the differences: {INTERVAL} (images resampled within classes, over seeds "
        "a t interval); the table has those of all. Own class: the image's label chooses the latents, so part of the "
        "curve is the answer given away; the predicted class needs no label.",
        "A matched control (same colour, dashed, hollow) has as many active latents as its ranking at every k, each "
        "the nearest in frequency and mass among those that come later in the ranking. The heaviest have no equals, "
        "so it has less mass (table masking_balance), and it shares more latents with its ranking as k grows (column "
        "shared). It ends, and so does what is less it, where on most images the ranking holds more than half of the "
        "active latents and the rest is too few.",
        f"Last columns: each ranking less its own control, image by image, {contrasted}. Components end where the "
        "token has no more features.",
        f"Not drawn, but in the table: {', '.join(left_out)}." if left_out else "",
    ]
