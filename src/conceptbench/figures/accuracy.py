"""Accuracy before and after adaptation: base classes, novel classes and their harmonic mean."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from conceptbench.figures.style import (
    FORMATS,
    INTERVAL,
    POOLED_SEED,
    Key,
    dodge,
    figure_look,
    in_order,
    looks,
    mark,
    missing_text,
    new_sheet,
    require,
    save_empty,
    save_figure,
    spell,
    tidy,
)

COLUMNS = ("task", "method", "half", "seed", "estimate", "low", "high", "n", "note")
HALVES = ("base", "novel", "harmonic_mean", "all")
HALF_LABELS = {
    "base": "base\nclasses",
    "novel": "novel\nclasses",
    "harmonic_mean": "harmonic\nmean",
    "all": "all\nclasses",
}
BEFORE = "zero-shot"
FIXED = {BEFORE: "#000000"}
WIDEST = 15.0
"""Panels side by side take at most this width, in inches; with many methods they stand below each other."""


@figure_look()
def draw_accuracy(accuracy: pd.DataFrame, stem: Path, *, formats: Sequence[str] = FORMATS, dpi: int = 150) -> None:
    """Draw one panel a task: marks with intervals for every method (all seeds), small dots for single seeds.

    Args:
        accuracy: table `accuracy`, in [0, 1]; drawn in per cent. stem: path without suffix.
    """
    shown = require(accuracy, "accuracy", COLUMNS)[list(COLUMNS)]
    title = "Accuracy before and after adaptation"
    if shown.empty:
        save_empty(title, "The table holds no accuracies.", shown, stem, formats=formats, dpi=dpi)
        return
    tasks, methods = in_order(shown["task"]), in_order(shown["method"], (BEFORE,))
    look = looks(methods, FIXED)
    keys = [Key(f"{method}{' (before)' if method == BEFORE else ''}", *look[method]) for method in methods]
    halves = {task: in_order(shown.loc[shown["task"] == task, "half"], HALVES) for task in tasks}
    widest = max(len(names) for names in halves.values())
    panel = max(2.3, 0.5 + widest * (0.5 + 0.17 * len(methods)))
    across = len(tasks) if len(tasks) <= 4 else 3
    across = max(1, min(across, int(WIDEST / panel)))
    down = -(-len(tasks) // across)
    sheet = new_sheet(
        title, width=max(5.4, 0.6 + panel * across), height=3.3 * down, keys=keys, notes=_notes(shown)
    )  # fmt: skip
    grid = sheet.body.subplots(down, across, sharey=True, squeeze=False)
    for axes, task in zip(grid.ravel(), tasks, strict=False):
        _panel(axes, shown[shown["task"] == task], halves[task], look)
        axes.set_title(task)
    for axes in grid.ravel()[len(tasks) :]:
        axes.set_axis_off()
    for axes in grid[:, 0]:
        axes.set_ylabel(f"accuracy (% of images), {INTERVAL}")
    save_figure(sheet, shown, stem, formats=formats, dpi=dpi)


def _panel(axes: Axes, rows: pd.DataFrame, halves: Sequence[str], look: Mapping[str, tuple[str, str]]) -> None:
    offsets = dodge(len(look), min(0.6 if len(look) <= 4 else 0.82, 0.2 * len(look)))
    beside = min(0.08, 0.3 / len(look))
    for at, half in enumerate(halves):
        for offset, (method, (colour, marker)) in zip(offsets, look.items(), strict=True):
            mine = rows[(rows["half"] == half) & (rows["method"] == method)]
            single = mine[mine["seed"] != POOLED_SEED]
            pooled = mine[mine["seed"] == POOLED_SEED]
            here = at + offset
            if len(single) > 1:
                axes.plot(
                    [here + beside] * len(single), 100 * single["estimate"], "o", ms=2.8, color=colour,
                    alpha=0.7, mew=0, zorder=2,
                )  # fmt: skip
            for _, row in pooled.iterrows():
                mark(axes, row, here, colour=colour, marker=marker, horizontal=False, scale=100.0, size=6)
            if not pooled["estimate"].notna().any():
                missing_text(axes, "n/a", here, 3, ha="center", color=colour)
    axes.set_xticks(range(len(halves)), [HALF_LABELS.get(half, spell(half)) for half in halves])
    axes.set_xlim(-0.6, len(halves) - 0.4)
    axes.set_ylim(0, 102)
    for edge in range(1, len(halves)):
        axes.axvline(edge - 0.5, color="#E3E3E3", lw=0.8)
    tidy(axes, grid="y")


def _notes(shown: pd.DataFrame) -> list[str]:
    seeds = in_order(shown.loc[shown["seed"] != POOLED_SEED, "seed"])
    level = "images resampled within classes" + (", over seeds a t interval" if len(seeds) > 1 else "")
    dots = f"; small dots: the {len(seeds)} seeds" if len(seeds) > 1 else "; one seed"
    found = shown[(shown["seed"] == POOLED_SEED) & shown["estimate"].notna()]
    have = set(zip(found["task"], found["method"], found["half"], strict=True))
    wanted = [tuple(row) for row in shown[["task", "half"]].drop_duplicates().to_numpy()]
    combinations = product(wanted, in_order(shown["method"]))
    absent = [(method, half) for (task, half), method in combinations if (task, method, half) not in have]
    missing = [f"n/a: no accuracy of {', '.join(_absent(absent))}."] if absent else []
    return [f"Marks: all seeds together with the {INTERVAL} ({level}){dots}.", *missing]


def _absent(pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Methods with the halves they have no accuracy for."""
    halves: dict[str, list[str]] = {}
    for method, half in dict.fromkeys(pairs):
        halves.setdefault(method, []).append(spell(half))
    return [f"{method} ({', '.join(names)})" for method, names in halves.items()]
