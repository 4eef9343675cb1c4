"""The plan of an experiment: what every stage will take."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from conceptbench.config import Config
from conceptbench.planning.jobs import Folder, Job, Study
from conceptbench.planning.measuring import measuring_jobs
from conceptbench.planning.pipeline import pipeline_jobs
from conceptbench.planning.rates import Cost, Rates
from conceptbench.planning.schedule import Machine, schedule
from conceptbench.planning.space import Demand, cached_bytes, demands, largest_code


@dataclass(frozen=True)
class Stage:
    """All jobs of one rule."""

    rule: str
    jobs: int
    seconds: float
    """Summed over its jobs, with the threads they ask for."""
    core_seconds: float
    gpu: bool
    gpu_seconds: float
    """Summed over its jobs and the GPUs of each, where it uses GPUs."""
    mib: float
    """Of its largest job."""
    bytes: float
    missing: tuple[str, ...]
    """Units of work that are not counted, because nothing was measured."""
    images: float = 0.0
    """Described or passed through a tower, each as often as it is; 0 for stages without."""
    tokens: float = 0.0
    """Recorded, learnt from or encoded, each as often as it is; 0 for stages without."""


@dataclass(frozen=True)
class Plan:
    """What an experiment will take."""

    experiment: str
    images: int
    tokens: int
    """Recorded tokens, every hook point counted."""
    stages: tuple[Stage, ...]
    folders: Mapping[Folder, float]
    """Bytes by folder."""
    wall_seconds: float
    machine: Machine
    hardware: str
    cached: float = 0.0
    """Bytes of the backbones that lie in the hub's cache, and not with the results."""
    passing: float = 0.0
    """Bytes that lie beside the results for a moment."""
    elsewhere: tuple[Demand, ...] = ()
    """What is needed outside of the results."""

    @property
    def bytes(self) -> float:
        """Bytes of all results."""
        return sum(self.folders.values())

    @property
    def cpu_hours(self) -> float:
        """Core hours of the jobs that use no GPU."""
        return sum(stage.core_seconds for stage in self.stages if not (stage.gpu and self.machine.gpus)) / 3600

    @property
    def gpu_hours(self) -> float:
        """Hours of GPUs; 0 when none is used."""
        return sum(stage.gpu_seconds for stage in self.stages if stage.gpu and self.machine.gpus) / 3600

    @property
    def mib(self) -> float:
        """Memory of the largest job."""
        return max(stage.mib for stage in self.stages)


def all_jobs(config: Config, penalised_l0: float = 32.0) -> list[Job]:
    """Return every job of an experiment in the order of the workflow.

    Raises:
        ConceptBenchError: when the size of a backbone or a data set is not known before it is fetched.
    """
    study = Study(config, penalised_l0)
    return [*pipeline_jobs(study), *measuring_jobs(study)]


def peak_memory(config: Config, rates: Rates) -> dict[str, float]:
    """Return the memory in MiB of the largest job of each rule.

    Raises:
        ConceptBenchError: as `all_jobs`.
    """
    peaks: dict[str, float] = {}
    for job in all_jobs(config, rates.penalised_l0):
        peaks[job.rule] = max(peaks.get(job.rule, 0.0), rates.cost(job).mib)
    return peaks


def make_plan(config: Config, rates: Rates, machine: Machine, gpu_tflops: float | None = None) -> Plan:
    """Plan an experiment on a machine.

    Args:
        config: the experiment. rates: what work costs.
        machine: cores and GPUs that it may use.
        gpu_tflops: 1e12 operations a second that a GPU keeps up; only with GPUs.

    Raises:
        ConceptBenchError: as `all_jobs`.
    """
    study = Study(config, rates.penalised_l0)
    planned = [*pipeline_jobs(study), *measuring_jobs(study)]
    jobs = [replace(job, gpus=max(1, min(job.gpus, machine.gpus))) for job in planned]
    costs = {job.label: rates.cost(job, gpu_tflops if machine.gpus else None) for job in jobs}
    spans = schedule(jobs, {label: cost.seconds for label, cost in costs.items()}, machine, rates.gap)
    folders: dict[Folder, float] = {}
    for job in jobs:
        for name, size in rates.disk(job).items():
            folders[name] = folders.get(name, 0.0) + size
    rules = dict.fromkeys(job.rule for job in jobs)
    return Plan(
        experiment=config.experiment,
        images=sum(images.all for images in study.images.values()),
        tokens=sum(
            study.images[dataset].all * study.towers[name].image.tokens * study.blocks(name)
            for name in config.hooks
            for dataset in config.recorded(name)
        ),
        stages=tuple(_stage(rule, [job for job in jobs if job.rule == rule], costs, rates) for rule in rules),
        folders=folders,
        wall_seconds=max(span.ended for span in spans),
        machine=machine,
        hardware=describe(rates),
        cached=cached_bytes(study),
        passing=largest_code(study),
        elsewhere=demands(study),
    )


def _stage(rule: str, jobs: list[Job], costs: Mapping[str, Cost], rates: Rates) -> Stage:
    found = [costs[job.label] for job in jobs]
    return Stage(
        rule=rule,
        jobs=len(jobs),
        seconds=sum(cost.seconds for cost in found),
        core_seconds=sum(cost.seconds * job.threads for job, cost in zip(jobs, found, strict=True)),
        gpu=jobs[0].gpu,
        gpu_seconds=sum(cost.seconds * job.gpus for job, cost in zip(jobs, found, strict=True)),
        mib=max(cost.mib for cost in found),
        bytes=sum(sum(rates.disk(job).values()) for job in jobs),
        missing=tuple(sorted({unit for cost in found for unit in cost.missing})),
        images=sum(job.images for job in jobs),
        tokens=sum(job.tokens for job in jobs),
    )


def describe(rates: Rates) -> str:
    """The measured machine in words."""
    machine = rates.machine
    return f"{machine.get('cores', '?')} cores of {machine.get('cpu', 'an unknown CPU')}"
