"""The Snakefile is cheap to read and keeps to Snakemake's style."""

import re
import subprocess
import sys
from collections import Counter

import pytest

from conceptbench.config import load_config
from conceptbench.planning import all_jobs

from .workspace import ROOT, Workspace, planned_rules

pytestmark = pytest.mark.workflow

READ = """
import resource, sys
from snakemake.cli import main
try:
    main(["--list-rules", "--configfile", "examples/smoke.yaml"])
except SystemExit as stop:
    assert not stop.code, stop.code
used = resource.getrusage(resource.RUSAGE_SELF)
print("heavy:", sorted({"torch", "open_clip", "timm", "zarr", "numba", "sklearn"} & set(sys.modules)))
print("cpu seconds:", used.ru_utime + used.ru_stime)
"""

ALLOWED_LINTS = (
    r"Specify a conda environment or container for each rule\.",
    r"Param (activations|codes|datasets|results) is a prefix of input or output file but hardcoded",
)
"""Explained in docs/workflow.md."""


def test_reading_the_workflow_is_fast_and_imports_nothing_heavy(empty: Workspace) -> None:
    text = empty.run(sys.executable, "-c", READ).stdout
    assert "heavy: []" in text
    assert float(re.search(r"cpu seconds: ([\d.]+)", text)[1]) < 3


def test_linter_has_only_the_explained_complaints(empty: Workspace) -> None:
    done = empty.run(sys.executable, "-m", "snakemake", "--lint", "--configfile", "examples/smoke.yaml", check=False)
    assert "Lints for" in done.stdout
    found = set(re.findall(r"^    \* (.*?):$", done.stdout, flags=re.MULTILINE))
    assert not {lint for lint in found if not any(re.fullmatch(allowed, lint) for allowed in ALLOWED_LINTS)}


def test_rules_are_formatted() -> None:
    files = [ROOT / "Snakefile", *sorted((ROOT / "rules").glob("*.smk"))]
    done = subprocess.run(
        [sys.executable, "-m", "snakefmt", "--check", *files], capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("example", sorted(path.name for path in (ROOT / "examples").glob("*.yaml")))
def test_every_example_can_be_planned(empty: Workspace, example: str) -> None:
    settings = ["--configfile", f"examples/{example}", "--config", "data_root=data"]
    done = empty.run(sys.executable, "-m", "snakemake", "--dry-run", "--cores", "1", "--quiet", "rules", *settings)
    counts = planned_rules(done.stdout)
    config = load_config(ROOT / "config.yaml", ROOT / "examples" / example, {"data_root": "data"})
    assert counts == Counter(job.rule for job in all_jobs(config))  # what `conceptbench plan` counts
