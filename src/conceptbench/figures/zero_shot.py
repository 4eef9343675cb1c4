"""What the backbones know without adaptation: zero-shot accuracy for every factor, and retrieval."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from conceptbench.figures.style import (
    FORMATS,
    INTERVAL,
    Key,
    colours,
    dodge,
    figure_look,
    in_order,
    mark,
    markers,
    new_sheet,
    require,
    save_empty,
    save_figure,
    spell,
    tidy,
)

COLUMNS = ("backbone", "factor", "estimate", "low", "high", "n", "note")
REQUIRED = {"colour": 0.95, "background": 0.95, "shape": 0.75, "fill": 0.80, "recall_at_1": 0.70}
"""What clip-tiny must reach on held-out scenes with one object."""

ORDER = ("colour", "background", "shape", "fill", "size", "place")


@figure_look()
def draw_zero_shot(
    zero_shot: pd.DataFrame,
    stem: Path,
    *,
    required: Mapping[str, float] = REQUIRED,
    formats: Sequence[str] = FORMATS,
    dpi: int = 150,
) -> None:
    """Draw one row a factor (and retrieval), marks with intervals for every backbone, and the required levels.

    Args:
        zero_shot: table with backbone, factor (a factor's name or "recall_at_1"), estimate in [0, 1], low, high, n,
            note; optionally `images`, a word for the images scored, which splits the marks.
        required: level every factor must reach, drawn as a short line.
    """
    shown = require(zero_shot, "zero_shot", COLUMNS)
    extra = ["images"] if "images" in shown.columns else []
    shown = shown[[*COLUMNS, *extra]]
    title = "What the backbones know before any adaptation: zero-shot accuracy"
    if shown.empty:
        save_empty(title, "No backbone of this experiment has a text side.", shown, stem, formats=formats, dpi=dpi)
        return
    group = shown["backbone"].astype(str) + (", " + shown["images"].astype(str) if extra else "")
    names, factors = in_order(group), in_order(shown["factor"], ORDER)
    colour, marker = colours(names), markers(names)
    keys = [Key(f"{name}, {INTERVAL}", colour[name], marker[name]) for name in names]
    keys += [Key("required of clip-tiny", "#000000", "|", "none", size=12)] if set(required) & set(factors) else []
    sheet = new_sheet(
        title, width=7.0, height=0.7 + (0.26 + 0.11 * len(names)) * len(factors), keys=keys,
        notes=["Intervals: images resampled. recall at 1: the right caption among those of 256 images."
               if "recall_at_1" in factors else "Intervals: images resampled."],
    )  # fmt: skip
    axes = sheet.body.subplots()
    for at, factor in enumerate(factors):
        if factor in required:
            axes.plot([100 * required[factor]] * 2, [at - 0.38, at + 0.38], color="#000000", lw=1.4, zorder=2)
        for offset, name in zip(dodge(len(names), 0.5), names, strict=True):
            for _, row in shown[(shown["factor"] == factor) & (group == name)].iterrows():
                mark(axes, row, at + offset, colour=colour[name], marker=marker[name], scale=100.0)
    axes.set_yticks(range(len(factors)), [spell(factor) for factor in factors])
    axes.set_ylim(len(factors) - 0.5, -0.5)
    axes.set_xlim(0, 102)
    axes.set_xlabel("zero-shot accuracy (% of images)")
    tidy(axes)
    save_figure(sheet, shown.assign(required=shown["factor"].map(dict(required))), stem, formats=formats, dpi=dpi)
