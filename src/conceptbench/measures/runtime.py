"""Where the time of a run went: the work of every rule, the start-up of its jobs, and the time between jobs."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import pandas as pd

from conceptbench.errors import ConceptBenchError
from conceptbench.tables import read_json

PAUSE_SECONDS: Final = 60.0
"""A longer time without any job lies between two runs (a resumed or partly repeated experiment) and is not counted."""

_FIELDS: Final = ("rule", "work_seconds", "start_up_seconds", "ended")

Interval = tuple[float, float]


def read_timings(files: Iterable[Path]) -> pd.DataFrame:
    """Read what every job wrote about itself: one row a job.

    Returns:
        rule; began (the process), work_began (its body), ended: seconds since 1970.

    Raises:
        ConceptBenchError: when a file is not such a record.
    """
    rows = []
    for path in sorted(files):
        record = read_json(path)
        if not isinstance(record, Mapping) or not set(_FIELDS) <= set(record):
            raise ConceptBenchError(
                f"Timing {path} lacks some of {', '.join(_FIELDS)}; delete it and run its rule again."
            )
        work_began = record["ended"] - record["work_seconds"]
        began = work_began - record["start_up_seconds"]
        rows.append({"rule": record["rule"], "began": began, "work_began": work_began, "ended": record["ended"]})
    return pd.DataFrame(rows, columns=["rule", "began", "work_began", "ended"])


def measure_runtime(timings: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Tables of the time that the jobs of an experiment took.

    Args:
        timings: one row a job, from `read_timings`.

    Returns:
        `runtime`: one row a rule in the order of first start: jobs, seconds (wall, summed over jobs, start-up
            included), startup_seconds (process start and imports).
        `runtime_summary`: one row: jobs; seconds and startup_seconds summed over jobs; wall_seconds from the first
            start to the last end; work_seconds of it in which the body of at least one job ran; outside_seconds, the
            rest (start-up, imports, scheduling), and outside_share.

    Raises:
        ConceptBenchError: when there is no job.
    """
    if timings.empty:
        raise ConceptBenchError("No job has recorded its time; run the workflow before its runtime is measured.")
    jobs = timings.assign(
        seconds=timings["ended"] - timings["began"], startup_seconds=timings["work_began"] - timings["began"]
    ).sort_values("began", kind="stable")
    rules = jobs.groupby("rule", sort=False).agg(
        jobs=("rule", "size"), seconds=("seconds", "sum"), startup_seconds=("startup_seconds", "sum")
    )
    wall = _covered(zip(timings["began"], timings["ended"], strict=True), PAUSE_SECONDS)
    work = _covered(zip(timings["work_began"], timings["ended"], strict=True))
    summary = {
        "jobs": len(jobs),
        "seconds": float(jobs["seconds"].sum()),
        "startup_seconds": float(jobs["startup_seconds"].sum()),
        "wall_seconds": wall,
        "work_seconds": work,
        "outside_seconds": wall - work,
        "outside_share": (wall - work) / wall if wall > 0 else 0.0,
    }
    return {"runtime": rules.reset_index(), "runtime_summary": pd.DataFrame([summary])}


def _covered(intervals: Iterable[Interval], bridged: float = 0.0) -> float:
    """Length of the union of intervals; gaps of up to `bridged` seconds belong to it."""
    total, last = 0.0, None
    for began, ended in sorted(intervals):
        if last is None or began - last > bridged:
            total += ended - began
            last = ended
        elif ended > last:
            total += ended - last
            last = ended
    return total
