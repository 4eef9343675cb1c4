"""When jobs run on so many cores and GPUs: the order in which a workflow engine would start them."""

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from conceptbench.errors import ConceptBenchError
from conceptbench.planning.jobs import Job


@dataclass(frozen=True)
class Machine:
    """What jobs share."""

    cores: int
    gpus: int = 0


@dataclass(frozen=True)
class Span:
    """When a job runs, in seconds from the start."""

    job: Job
    began: float
    ended: float


def schedule(jobs: Sequence[Job], seconds: Mapping[str, float], machine: Machine, gap: float = 0.0) -> list[Span]:
    """Start every job as soon as what it needs has ended and there are cores (and GPUs) for it.

    Of several, that of the highest priority starts first, then that which stands first. A job that asks for more
    threads than there are cores takes longer in proportion.

    Args:
        jobs: in the order of the workflow. seconds: of each by its label.
        machine: cores and GPUs; a job that asks for more GPUs than there are takes them all.
        gap: seconds before a job starts, for the engine.

    Raises:
        ConceptBenchError: when a job needs one that is not there, or jobs need each other.
    """
    waiting = _waiting(jobs)
    spans: dict[str, Span] = {}
    running: list[tuple[float, int]] = []
    cores, gpus, now = machine.cores, machine.gpus, 0.0
    order = sorted(range(len(jobs)), key=lambda at: (-jobs[at].priority, at))
    while len(spans) < len(jobs):
        ended = {label for label, span in spans.items() if span.ended <= now}
        for at in order:
            job = jobs[at]
            taken, needed = min(job.threads, machine.cores), _gpus(job, machine)
            if job.label in spans or taken > cores or needed > gpus or not waiting[job.label] <= ended:
                continue
            lasts = gap + seconds[job.label] * job.threads / taken
            spans[job.label] = Span(job, now, now + lasts)
            heapq.heappush(running, (now + lasts, at))
            cores, gpus = cores - taken, gpus - needed
        if not running:
            stuck = next(job.label for job in jobs if job.label not in spans)
            raise ConceptBenchError(f"The plan cannot start {stuck}: jobs need each other; report this as a bug.")
        now, at = heapq.heappop(running)
        cores, gpus = cores + min(jobs[at].threads, machine.cores), gpus + _gpus(jobs[at], machine)
    return [spans[job.label] for job in jobs]


def _gpus(job: Job, machine: Machine) -> int:
    return min(job.gpus, machine.gpus) if job.gpu else 0


def _waiting(jobs: Sequence[Job]) -> dict[str, set[str]]:
    """Labels of the jobs that come before each."""
    by_rule: dict[str, set[str]] = {}
    for job in jobs:
        by_rule.setdefault(job.rule, set()).add(job.label)
    known = {job.label for job in jobs}
    found = {}
    for job in jobs:
        found[job.label] = set().union(*({need} if need in known else by_rule.get(need, {need}) for need in job.needs))
        absent = found[job.label] - known
        if absent:
            raise ConceptBenchError(
                f"{job.label} needs {min(absent)}, which is no job of the plan; report this as a bug."
            )
    return found
