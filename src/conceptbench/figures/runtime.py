"""Where the time of a run goes: the work of every rule, and the start-up of its jobs."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from conceptbench.figures.style import (
    FORMATS,
    PALETTE,
    Key,
    figure_look,
    new_sheet,
    require,
    save_empty,
    save_figure,
    tidy,
)

COLUMNS = ("rule", "jobs", "seconds", "startup_seconds")


@figure_look()
def draw_runtime(runtime: pd.DataFrame, stem: Path, *, formats: Sequence[str] = FORMATS, dpi: int = 150) -> None:
    """Draw one bar a rule: seconds of its jobs in all, the part that is start-up set apart.

    Args:
        runtime: one row a rule: rule, jobs (count), seconds (wall, all jobs, start-up included), startup_seconds.
    """
    shown = require(runtime, "runtime", COLUMNS)[list(COLUMNS)].sort_values("seconds", ascending=False, kind="stable")
    title = "Where the time of the run goes"
    if shown.empty:
        save_empty(title, "No rule has run.", shown, stem, formats=formats, dpi=dpi)
        return
    keys = [
        Key("work of the jobs", PALETTE[0], "s", "none", size=9),
        Key("start-up (Python, imports)", PALETTE[5], "s", "none", size=9),
    ]
    sheet = new_sheet(
        title, width=7.4, height=0.6 + 0.24 * len(shown), keys=keys,
        notes=["Wall seconds summed over the jobs of a rule; jobs that ran side by side count twice."],
    )  # fmt: skip
    axes = sheet.body.subplots()
    at = range(len(shown))
    work = shown["seconds"] - shown["startup_seconds"].fillna(0)
    axes.barh(at, work, color=PALETTE[0], height=0.68)
    axes.barh(at, shown["startup_seconds"].fillna(0), left=work, color=PALETTE[5], height=0.68)
    for y, row in zip(at, shown.itertuples(), strict=True):
        jobs = f"{row.jobs} jobs" if row.jobs != 1 else "1 job"
        axes.text(float(row.seconds), y, f"  {float(row.seconds):,.1f} s, {jobs}", va="center", fontsize=8)  # type: ignore[arg-type]
    axes.set_yticks(at, list(shown["rule"]))
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, 1.22 * float(shown["seconds"].max()))
    axes.set_xlabel("wall time (s)")
    tidy(axes)
    save_figure(sheet, shown, stem, formats=formats, dpi=dpi)
