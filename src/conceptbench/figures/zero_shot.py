"""What the backbones know without adaptation: zero-shot accuracy for every factor, and retrieval."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

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

CHANCE_LINE: Any = (0, (2, 1.5))
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
            note; optionally `images` (which images were scored, in words: splits the marks) and `chance`.
        required: level every factor must reach, drawn as a short line.
    """
    shown = require(zero_shot, "zero_shot", COLUMNS)
    extra = [name for name in ("images", "chance") if name in shown.columns]
    shown = shown[[*COLUMNS, *extra]]
    title = "What the backbones know before any adaptation: zero-shot accuracy"
    if shown.empty:
        save_empty(title, "No backbone of this experiment has a text side.", shown, stem, formats=formats, dpi=dpi)
        return
    group = shown["backbone"].astype(str) + (", " + shown["images"].astype(str) if "images" in extra else "")
    names, factors = in_order(group), in_order(shown["factor"], ORDER)
    colour, marker = colours(names), markers(names)
    sheet = new_sheet(
        title,
        width=7.0,
        height=0.7 + (0.26 + 0.11 * len(names)) * len(factors),
        keys=_keys(names, colour, marker, bool(set(required) & set(factors)), "chance" in extra),
        notes=["Intervals: images resampled. Recall at 1: the right caption among those of 256 images."],
    )
    axes = sheet.body.subplots()
    for at, factor in enumerate(factors):
        of_factor = shown["factor"] == factor
        levels: list[tuple[float, str, Any]] = [(required[factor], "#000000", "-")] if factor in required else []
        if "chance" in extra:
            levels.append((float(shown.loc[of_factor, "chance"].iloc[0]), NULL_COLOUR, CHANCE_LINE))
        for level, shade, line in levels:
            axes.plot([100 * level] * 2, [at - 0.38, at + 0.38], color=shade, lw=1.4, ls=line, zorder=2)
        for offset, name in zip(dodge(len(names), 0.5), names, strict=True):
            for _, row in shown[of_factor & (group == name)].iterrows():
                mark(axes, row, at + offset, colour=colour[name], marker=marker[name], scale=100.0)
    axes.set_yticks(range(len(factors)), [spell(factor) for factor in factors])
    axes.set_ylim(len(factors) - 0.5, -0.5)
    axes.set_xlim(0, 102)
    axes.set_xlabel("zero-shot accuracy (% of images)")
    tidy(axes)
    save_figure(sheet, shown.assign(required=shown["factor"].map(dict(required))), stem, formats=formats, dpi=dpi)


def _keys(
    names: Sequence[str], colour: Mapping[str, str], marker: Mapping[str, str], with_required: bool, with_chance: bool
) -> list[Key]:
    keys = [Key(f"{name}, {INTERVAL}", colour[name], marker[name]) for name in names]
    keys += [Key("required of clip-tiny", "#000000", "|", "none", size=12)] if with_required else []
    return keys + ([Key("chance", NULL_COLOUR, "none", CHANCE_LINE)] if with_chance else [])
