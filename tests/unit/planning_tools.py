"""What tests of planning share: the default configuration with changes, its jobs, and rates."""

from pathlib import Path
from typing import Any

from conceptbench.config import Config, load_config
from conceptbench.planning import Rates, all_jobs
from conceptbench.planning.jobs import Job
from conceptbench.planning.rates import RuleRate

ROOT = Path(__file__).resolve().parents[2]
BASE = ROOT / "config.yaml"


def config(*overlays: dict[str, Any]) -> Config:
    """The default experiment with changes."""
    return load_config(BASE, *overlays)


def job(config: Config, label: str) -> Job:
    """A job of an experiment by its label."""
    return next(job for job in all_jobs(config) if job.label == label)


def rates(**rules: RuleRate) -> Rates:
    """Rates of some rules."""
    return Rates(rules, {}, {"tables": 1.0, "figures": 1.0}, penalised_l0=20.0, gap=0.0)
