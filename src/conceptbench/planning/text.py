"""A plan as text: one line a stage, and the totals."""

from collections.abc import Iterator, Sequence
from typing import Final

from conceptbench.planning.plan import Plan, Stage
from conceptbench.planning.rates import Rates

_GIGA: Final = 1e9
_MEGA: Final = 1e6
_HEAD: Final = ("stage", "jobs", "images", "tokens", "time", "on", "GPU hours", "memory", "disk")


def hours(seconds: float) -> str:
    """A time as people say it: seconds below 2 minutes, minutes below 2 hours, hours below 2 days, then days."""
    for size, unit, most in ((1, "s", 120), (60, "min", 7200), (3600, "h", 172_800)):
        if seconds < most:
            return f"{seconds / size:.{int(seconds / size < 10)}f} {unit}"
    return f"{seconds / 86_400:,.1f} days"


def size(count: float) -> str:
    """Bytes in MB, GB or TB (powers of 1000)."""
    for unit, word in ((1e12, "TB"), (_GIGA, "GB"), (_MEGA, "MB")):
        if count >= unit:
            return f"{count / unit:,.{int(count / unit < 100)}f} {word}"
    return "" if count < 1e5 else f"{count / _MEGA:.1f} MB"


def number(count: float) -> str:
    """A count in full below ten thousand, then in thousands (k), millions (M) or thousands of millions (G)."""
    for unit, word in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if count >= unit:
            scaled = count / (1e3 if word == "k" else unit)
            return f"{scaled:,.{int(scaled < 100)}f} {word}"
    return f"{count:,.0f}" if count else ""


def plan_text(plan: Plan, rates: Rates, *, every: bool = False) -> str:
    """Return the plan as a table; stages below a hundredth of time and disk only when `every` one is asked for."""
    return "\n".join([*_opening(plan, rates), "", *_table(plan, every), "", *_totals(plan), *_warnings(plan)])


def _opening(plan: Plan, rates: Rates) -> Iterator[str]:
    gpus = f" and {plan.machine.gpus} GPU(s)" if plan.machine.gpus else ""
    yield f"Experiment {plan.experiment} on {plan.machine.cores} cores{gpus}"
    yield f"Rates were measured on {plan.hardware} with {', '.join(rates.runs)}"
    yield f"{plan.images:,} images; {plan.tokens:,} recorded tokens"


def stage_rows(stages: Sequence[Stage], gpus: int) -> list[tuple[str, ...]]:
    """Cells of the table, stage by stage."""
    return [
        (
            f"{stage.rule}{' *' if stage.missing else ''}",
            f"{stage.jobs:,}",
            number(stage.images),
            number(stage.tokens),
            hours(stage.seconds),
            "GPU" if stage.gpu and gpus else "CPU",
            f"{stage.gpu_seconds / 3600:,.2f}" if stage.gpu and gpus else "",
            f"{stage.mib / 1024:,.1f} GiB",
            size(stage.bytes),
        )
        for stage in stages
    ]


def _table(plan: Plan, every: bool) -> Iterator[str]:
    total = sum(stage.seconds for stage in plan.stages)
    kept = [
        stage
        for stage in plan.stages
        if every or stage.missing or stage.seconds >= total / 100 or stage.bytes >= plan.bytes / 100
    ]
    rows = [_HEAD, *stage_rows(kept, plan.machine.gpus)]
    left = len(plan.stages) - len(kept)
    if left:
        others = sum(stage.seconds for stage in plan.stages if stage not in kept)
        rows.append((f"{left} smaller stages", "", "", "", hours(others), "", "", "", ""))
    shown = [column for column in range(len(_HEAD)) if any(row[column] for row in rows[1:])]
    widths = {column: max(len(row[column]) for row in rows) for column in shown}
    for row in rows:
        cells = [row[column].rjust(widths[column]) for column in shown[1:]]
        yield "  ".join([row[0].ljust(widths[0]), *cells]).rstrip()


def _totals(plan: Plan) -> Iterator[str]:
    parts = ", ".join(f"{name} {size(count)}" for name, count in plan.folders.items() if count >= plan.bytes / 100)
    gpu = f", {plan.gpu_hours:,.2f} GPU hours" if plan.machine.gpus else ""
    yield f"time    {hours(plan.wall_seconds)} from the first job to the last; {plan.cpu_hours:,.2f} core hours{gpu}"
    yield f"memory  {plan.mib / 1024:,.1f} GiB for the largest job"
    yield f"disk    {size(plan.bytes)}: {parts}"


def _warnings(plan: Plan) -> Iterator[str]:
    unmeasured = [stage for stage in plan.stages if stage.missing]
    if unmeasured:
        units = sorted({unit for stage in unmeasured for unit in stage.missing})
        yield f"* not all of its work is counted: no rate was measured for {', '.join(units)}"
