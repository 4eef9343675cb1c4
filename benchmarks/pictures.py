"""Pictures of the benchmarks, in the look of all figures; they draw what stands in the rows and compute nothing."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.common import OURS
from conceptbench.figures.style import NULL_COLOUR, PALETTE, Key, figure_look, new_sheet, save_figure, tidy

Rows = Sequence[Mapping[str, Any]]
PHASES = ("product", "selection", "reconstruction", "update", "rest")


@figure_look()
def draw_speeds(rows: Rows, stem: Path) -> None:
    """Draw tokens/s of every toolkit, one panel a width."""
    values = pd.DataFrame(
        [
            {
                "width": row["width"],
                "toolkit": f"{row['toolkit']} ({row['setting']})",
                "tokens_per_s": row["tokens_per_s"],
            }
            for row in rows
            if row["tokens_per_s"] is not None
        ]
    )
    widths, names = sorted(values["width"].unique()), list(dict.fromkeys(values["toolkit"]))
    sheet = new_sheet(
        "Tokens per second while training a TopK dictionary", width=9.0, height=0.8 + 0.27 * len(names),
        notes=["Median step of each toolkit's own training loop; higher is better."],
    )  # fmt: skip
    for axes, width in zip(np.atleast_1d(sheet.body.subplots(1, len(widths), sharey=True)), widths, strict=True):
        shown = values[values["width"] == width].set_index("toolkit")["tokens_per_s"].reindex(names)
        colours = [PALETTE[0] if name.startswith(OURS) else NULL_COLOUR for name in names]
        axes.barh(range(len(names)), shown.fillna(0), color=colours, height=0.7)
        for y, speed in enumerate(shown):
            axes.text(
                speed if speed == speed else 0,
                y,
                f" {speed:,.0f}" if speed == speed else " not run",
                va="center",
                fontsize=8,
            )
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0, 1.3 * float(shown.max()))
        axes.set_title(f"width {width:,}")
        axes.set_xlabel("tokens/s")
        axes.locator_params(axis="x", nbins=4)
        tidy(axes)
    save_figure(sheet, values, stem, formats=("png",))


@figure_look()
def draw_phases(rows: Rows, stem: Path) -> None:
    """Draw the phases of our step, stacked, beside its floor."""
    values = pd.DataFrame(
        [
            {
                "width": row["width"], "candidates": row["setting"], "floor": sum(row["floor_seconds"].values()),
                **{phase: row["phase_seconds"][phase] for phase in PHASES},
            }
            for row in rows
        ]
    )  # fmt: skip
    keys = [Key(phase, PALETTE[i], "s", "none", size=9) for i, phase in enumerate(PHASES)]
    keys.append(Key("floor", "black", "|", "none", size=11))
    sheet = new_sheet("Where the time of a step goes", width=7.4, height=0.7 + 0.3 * len(values), keys=keys)
    axes = sheet.body.subplots()
    left = np.zeros(len(values))
    for i, phase in enumerate(PHASES):
        axes.barh(range(len(values)), values[phase], left=left, color=PALETTE[i], height=0.66)
        left += values[phase].to_numpy()
    axes.plot(values["floor"], range(len(values)), "|", color="black", markersize=18, markeredgewidth=2)
    axes.set_yticks(
        range(len(values)), [f"width {w:,}, {c}" for w, c in zip(values["width"], values["candidates"], strict=True)]
    )
    axes.set_ylim(len(values) - 0.4, -0.6)
    axes.set_xlabel("seconds")
    tidy(axes)
    save_figure(sheet, values, stem, formats=("png",))
