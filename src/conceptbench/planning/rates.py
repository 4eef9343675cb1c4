"""What work costs on a machine: seconds a unit, start-up, memory and bytes by rule, as measured on finished runs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from conceptbench.errors import ConceptBenchError
from conceptbench.planning.jobs import Folder, Job, Unit
from conceptbench.tables import read_json

FORMAT: Final = "conceptbench-rates/1"
MIB: Final = 2**20
GIGA_UNITS: Final = frozenset({"forward_gflop", "training_gflop", "learning_gflop", "encoding_gflop", "edit_gflop"})
"""Units that a GPU does at another speed."""
COUNTED: Final[tuple[Folder, ...]] = ("tables", "figures")
"""Folders whose jobs count rows and figures; the rates give their bytes."""


@dataclass(frozen=True)
class RuleRate:
    """What a job of one rule costs."""

    start_up: float
    """Seconds before its work begins."""
    mib: float
    """Memory of the process without the arrays that grow with the experiment."""
    seconds: Mapping[Unit, float]
    """Seconds a unit, with the threads the rule asks for."""
    jobs: int
    """Measured jobs behind it."""


@dataclass(frozen=True)
class Cost:
    """What one job is expected to take."""

    seconds: float
    mib: float
    missing: tuple[Unit, ...] = ()
    """Units of work for which nothing was measured; they are not counted."""


@dataclass(frozen=True)
class Rates:
    """Costs by rule on one machine."""

    rules: Mapping[str, RuleRate]
    shared: Mapping[Unit, float]
    """Seconds a unit for rules in which it was not measured: that of the most measured rule."""
    bytes_of: Mapping[Folder, float]
    """Bytes of a counted row or figure."""
    penalised_l0: float
    """Firings of a token under a penalty."""
    gap: float
    """Seconds between the end of a job and the start of the next."""
    machine: Mapping[str, Any] = field(default_factory=dict)
    runs: tuple[str, ...] = ()
    """Experiments that were measured."""
    benchmarks: tuple[str, ...] = ()
    """Benchmarks at published sizes that were counted beside them."""

    def cost(self, job: Job, gpu_tflops: float | None = None) -> Cost:
        """Return what a job takes with the threads it asks for.

        Args:
            job: the job.
            gpu_tflops: 1e12 operations a second that a GPU keeps up; jobs that can use one then do their operations
                at this speed, everything else at that of the measured CPU.
        """
        rate = self.rules.get(job.rule) or self._like(job)
        total, missing = rate.start_up, []
        for unit, amount in job.amounts.items():
            if gpu_tflops and job.gpu and unit in GIGA_UNITS:
                alike = 1 - job.divided * (1 - 1 / job.gpus) if unit == "learning_gflop" else 1.0
                total += amount * alike / (gpu_tflops * 1e3)
                continue
            seconds = rate.seconds.get(unit, self.shared.get(unit))
            if seconds is None and amount and unit != "job":
                missing.append(unit)
            total += (seconds or 0.0) * amount
        return Cost(total, rate.mib + job.arrays / MIB, tuple(missing))

    def _like(self, job: Job) -> RuleRate:
        """A rule that was not measured starts like the slowest and takes the memory of the largest of its kind."""
        kind = job.rule.split("_", 1)[0]
        alike = [rate for rule, rate in self.rules.items() if rule.split("_", 1)[0] == kind] or [*self.rules.values()]
        seconds: dict[Unit, float] = {"job": min(rate.seconds.get("job", 0.0) for rate in alike)}
        return RuleRate(max(rate.start_up for rate in alike), max(rate.mib for rate in alike), seconds, 0)

    def disk(self, job: Job) -> dict[Folder, float]:
        """Bytes that a job leaves, by folder."""
        return {name: amount * self.bytes_of.get(name, 1.0) for name, amount in job.leaves.items()}

    def to_json(self) -> dict[str, Any]:
        """The rates as plain JSON."""
        rules = {
            name: {"start_up": rate.start_up, "mib": rate.mib, "jobs": rate.jobs, "seconds": dict(rate.seconds)}
            for name, rate in self.rules.items()
        }
        return {
            "format": FORMAT,
            "machine": dict(self.machine),
            "runs": list(self.runs),
            "benchmarks": list(self.benchmarks),
            "gap": self.gap,
            "penalised_l0": self.penalised_l0,
            "bytes_of": dict(self.bytes_of),
            "shared": dict(self.shared),
            "rules": rules,
        }


def load_rates(path: Path) -> Rates:
    """Read a rates file.

    Raises:
        ConceptBenchError: when it is missing or of another format.
    """
    content = read_json(path)
    remedy = "make it with: conceptbench rates results/<experiment>"
    if not isinstance(content, Mapping) or content.get("format") != FORMAT:
        raise ConceptBenchError(f"{path} is no file of rates; {remedy}.")
    try:
        return Rates(
            rules={name: RuleRate(**rate) for name, rate in content["rules"].items()},
            shared=content["shared"],
            bytes_of=content["bytes_of"],
            penalised_l0=float(content["penalised_l0"]),
            gap=float(content["gap"]),
            machine=content["machine"],
            runs=tuple(content["runs"]),
            benchmarks=tuple(content.get("benchmarks", ())),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConceptBenchError(f"{path} is not complete ({type(error).__name__}: {error}); {remedy}.") from error
