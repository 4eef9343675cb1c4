"""Rates from finished runs: what their jobs wrote about their time and memory, divided by the work that was in them."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, Final

import numpy as np
from scipy.optimize import nnls

from conceptbench.config import Config, load_config
from conceptbench.errors import ConceptBenchError
from conceptbench.planning.benchmarked import READERS, Sample, read_samples
from conceptbench.planning.jobs import Folder, Job, Study, Unit
from conceptbench.planning.measuring import measuring_jobs
from conceptbench.planning.pipeline import pipeline_jobs
from conceptbench.planning.rates import COUNTED, MIB, Rates, RuleRate
from conceptbench.tables import read_json

CONSTANT_EXPLAINS: Final = 1.25
"""A job has a constant part only when without it the residual is larger by this factor: work explains first."""
_PLACES: Final[dict[Folder, str]] = {"tables": "tables", "figures": "figures"}


@dataclass(frozen=True)
class Observed:
    """A finished job: the work in it, and what it took."""

    job: Job
    start_up: float
    seconds: float
    """Seconds of its work, with the threads it asks for."""
    ended: float
    mib: float
    cpu_seconds: float
    """Sampled by the engine: less exact than wall time, but not lengthened by others on the machine."""


@dataclass(frozen=True)
class FinishedRun:
    """A results folder with the configuration that made it."""

    folder: Path
    config: Config

    @classmethod
    def parse(cls, text: str, base: Path) -> "FinishedRun":
        """Read `results/<experiment>` or `results/<experiment>=overlay.yaml,overlay.yaml`.

        Raises:
            ConceptBenchError: when it was never run.
        """
        folder, _, overlays = text.partition("=")
        found = Path(folder)
        if not (found / "benchmarks").is_dir():
            raise ConceptBenchError(f"{found} is no run: it has no folder benchmarks; run the workflow first.")
        return cls(found, load_config(base, *(path for path in overlays.split(",") if path)))

    def jobs(self, penalised_l0: float) -> list[Job]:
        """The jobs of the configuration."""
        study = Study(self.config, penalised_l0)
        return [*pipeline_jobs(study), *measuring_jobs(study)]


def learn_rates(
    runs: Sequence[FinishedRun], cores: int, benchmarks: Path | None = None, busy: Sequence[FinishedRun] = ()
) -> Rates:
    """Return the rates of the machine on which these runs were made.

    Of every rule, the seconds of work of its jobs are explained by their amounts with coefficients that are not
    negative (least squares); start-up is the mean, memory the largest that the arrays of a job leave unexplained.

    Args:
        runs: finished runs, made one after another on one machine.
        cores: cores they had; a job with fewer than it asks for was slower in proportion.
        benchmarks: folder with results of benchmarks, which count beside the jobs (`benchmarked.read_samples`).
        busy: runs on the same machine while it was also used by others. They only serve for rules that the other runs
            lack, with the CPU time of their jobs.

    Raises:
        ConceptBenchError: when a run has no benchmarks of its jobs, a job of it could use a GPU, or a benchmark of
            `benchmarks` was not run.
    """
    for run in (*runs, *busy):
        _require_no_gpu(run)
    penalised = fmean(found) if (found := [l0 for run in runs for l0 in _penalised_l0(run.folder)]) else 32.0
    observed = [one for run in runs for one in _observe(run, penalised, cores)]
    rules: dict[str, list[Observed]] = {}
    for one in observed:
        rules.setdefault(one.job.rule, []).append(one)
    for one in [one for run in busy for one in _observe(run, penalised, cores) if one.job.rule not in rules]:
        rules.setdefault(one.job.rule, []).append(replace(one, seconds=min(one.cpu_seconds, one.seconds)))
    if not rules:
        raise ConceptBenchError(f"{runs[0].folder} has no benchmarks of its jobs; run the workflow to its end first.")
    timed = read_samples(benchmarks) if benchmarks else []
    rates = {
        rule: _rate(group, [sample for sample in timed if sample.rule == rule]) for rule, group in sorted(rules.items())
    }
    bytes_of: dict[Folder, float] = {name: _bytes_each(runs, penalised, name) for name in COUNTED}
    gap = fmean(value for run in runs for value in _gaps(run, penalised, cores))
    only_timed = [sample for sample in timed if sample.rule not in rates]
    shared = {unit: one.seconds / amount for one in only_timed for unit, amount in one.amounts.items()}
    return Rates(
        rules=rates,
        shared={**shared, **_shared(rules, rates)},
        bytes_of=bytes_of,
        penalised_l0=round(penalised, 2),
        gap=round(gap, 2),
        machine=_machine(runs[0].folder),
        runs=tuple(run.config.experiment for run in (*runs, *busy)),
        benchmarks=tuple(READERS) if benchmarks else (),
    )


def _require_no_gpu(run: FinishedRun) -> None:
    """Raise ConceptBenchError when a job was granted a GPU and saw one, unless the configuration keeps to the CPU."""
    if run.config.device == "cpu":
        return
    for path in sorted((run.folder / "jobs").rglob("*.json")):
        record = read_json(path)
        seen = record.get("flags", {}).get("gpus")
        if record.get("gpus_granted") and seen:
            raise ConceptBenchError(
                f"{path} says that {record['rule']} ran with a GPU ({seen[0]}), but rates are those of a CPU; measure "
                "a run that had none: snakemake --workflow-profile profiles/cpu."
            )


def _observe(run: FinishedRun, penalised: float, cores: int) -> list[Observed]:
    found = []
    for job in run.jobs(penalised):
        place = Path(job.rule) / job.name if job.name else Path(job.rule)
        timing = Path(f"{run.folder / 'logs' / place}.timing.json")
        benchmark = Path(f"{run.folder / 'benchmarks' / place}.tsv")
        if not timing.is_file() or not benchmark.is_file():
            continue
        took, (memory, cpu) = read_json(timing), _sampled(benchmark)
        share = min(job.threads, cores) / job.threads
        seconds = float(took["work_seconds"]) * share
        found.append(Observed(job, float(took["start_up_seconds"]), seconds, float(took["ended"]), memory, cpu))
    return found


def _sampled(path: Path) -> tuple[float, float]:
    """Memory in MiB and CPU seconds of a job, from the engine's benchmark; 0 where it was too short for a sample."""
    with path.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    found = []
    for column in ("max_rss", "cpu_time"):
        values = [row.get(column) for row in rows]
        found.append(max((float(value) for value in values if value not in (None, "-", "NA", "")), default=0.0))
    return found[0], found[1]


def _rate(group: Sequence[Observed], timed: Sequence[Sample]) -> RuleRate:
    work = [*((one.job.amounts, one.seconds) for one in group), *((one.amounts, one.seconds) for one in timed)]
    units: list[Unit] = sorted({unit for amounts, _ in work for unit, amount in amounts.items() if amount})
    found, rest = _fit(work, units)
    if len(units) > 1 and "job" in units:
        varying: list[Unit] = [unit for unit in units if unit != "job"]
        fewer, more = _fit(work, varying)
        if more <= CONSTANT_EXPLAINS * rest + 1e-9:
            units, found = varying, fewer
    mib = max(one.mib - one.job.arrays / MIB for one in group)
    return RuleRate(
        start_up=round(fmean(one.start_up for one in group), 3),
        mib=round(max(mib, 50.0), 1),
        seconds={unit: float(f"{value:.4g}") for unit, value in zip(units, found, strict=True)},
        jobs=len(group),
    )


def _fit(work: Sequence[tuple[Mapping[Unit, float], float]], units: Sequence[Unit]) -> tuple[np.ndarray, float]:
    """Seconds of each unit that explain the work best, none negative, and what they leave unexplained."""
    seconds = np.array([took for _, took in work])
    matrix = np.array([[amounts.get(unit, 0.0) for unit in units] for amounts, _ in work])
    scale = matrix.max(axis=0)
    found, rest = nnls(matrix / scale, seconds)
    return found / scale, float(rest)


def _shared(rules: Mapping[str, Sequence[Observed]], rates: Mapping[str, RuleRate]) -> dict[Unit, float]:
    """For rules in which a unit was not measured: its rate in the rule that did most of it."""
    most: dict[Unit, tuple[float, float]] = {}
    for rule, group in rules.items():
        for unit, value in rates[rule].seconds.items():
            done = sum(one.job.amounts.get(unit, 0.0) for one in group)
            if value and unit != "job" and done > most.get(unit, (0.0, 0.0))[0]:
                most[unit] = (done, value)
    return {unit: value for unit, (_, value) in sorted(most.items())}


def _penalised_l0(folder: Path) -> list[float]:
    """Firings of a token in the dictionaries whose method does not fix them."""
    found = []
    for path in folder.glob("dictionaries/*/block*/*/seed*/card.json"):
        card: dict[str, Any] = read_json(path)
        if card.get("spec", {}).get("method") in ("relu-l1", "jump-relu") and "l0" in card.get("metrics", {}):
            found.append(float(card["metrics"]["l0"]))
    return found


def _bytes_each(runs: Sequence[FinishedRun], penalised: float, name: Folder) -> float:
    """Bytes of a counted row or figure."""
    written = sum(
        path.stat().st_size for run in runs for path in (run.folder / _PLACES[name]).rglob("*") if path.is_file()
    )
    counted = sum(job.leaves.get(name, 0.0) for run in runs for job in run.jobs(penalised))
    return round(written / counted, 1) if counted else 0.0


def _gaps(run: FinishedRun, penalised: float, cores: int) -> list[float]:
    """Seconds from the last end of a job to the start of each that follows it."""
    spans = []
    for one in _observe(run, penalised, cores):
        took = one.seconds * one.job.threads / min(one.job.threads, cores)
        spans.append((one.ended - took - one.start_up, one.ended))
    ends = sorted(ended for _, ended in spans)
    gaps = []
    for began, _ in spans:
        before = [ended for ended in ends if ended <= began]
        gaps.extend([began - before[-1]] if before and began - before[-1] < 30 else [])
    return gaps or [0.0]


def _machine(folder: Path) -> dict[str, Any]:
    """The machine as the manifests of jobs describe it."""
    described = (read_json(path).get("machine") for path in sorted(folder.glob("dictionaries/*/manifest.json")))
    return dict(next((machine for machine in described if machine), {}))
