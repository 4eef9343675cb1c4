"""The Snakefile is cheap to read and keeps to Snakemake's style."""

import json
import re
import subprocess
import sys
from collections import Counter

import pytest

from conceptbench.config import load_config
from conceptbench.planning import all_jobs, load_rates, peak_memory
from conceptbench.planning.page import GPU_TFLOPS

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

ATTEMPTS = 2
"""Of a job on a cluster (profiles/slurm)."""

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
def test_every_example_can_be_planned_and_asks_for_what_its_plan_says(empty: Workspace, example: str) -> None:
    settings = ["--configfile", f"examples/{example}", "--config", "data_root=data"]
    done = empty.run(sys.executable, "-m", "snakemake", "--dry-run", "--cores", "8", *settings)
    config = load_config(ROOT / "config.yaml", ROOT / "examples" / example, {"data_root": "data"})
    counts = planned_rules(done.stdout)
    assert counts == Counter(job.rule for job in all_jobs(config))  # what `conceptbench plan` counts
    rates = load_rates(ROOT / "reference" / "rates.json")
    memory, minutes = asked("mem_mb", done.stdout), asked("runtime", done.stdout)
    planned = peak_memory(config, rates)
    assert set(memory) == set(minutes) == set(planned) == set(counts)
    assert {rule: mib for rule, mib in planned.items() if mib > memory[rule]} == {}
    on_gpus = [(job.rule, rates.cost(job, GPU_TFLOPS).seconds / 60) for job in all_jobs(config, rates.penalised_l0)]
    assert {rule: took for rule, took in on_gpus if took > ATTEMPTS * minutes[rule]} == {}


def asked(resource: str, text: str) -> dict[str, int]:
    """The least amount of a resource that a job of each rule asks for at its first attempt."""
    found: dict[str, int] = {}
    pattern = rf"^(?:local)?rule (\w+):\n(?:    .*\n)*?    resources: .*?{resource}=(\d+)"
    for rule, amount in re.findall(pattern, text, re.MULTILINE):
        found[rule] = min(found.get(rule, int(amount)), int(amount))
    return found


def test_rules_that_need_a_network_run_where_snakemake_does() -> None:
    text = "\n".join(path.read_text() for path in (ROOT / "rules").glob("*.smk"))
    local = re.findall(r"^localrules:\n((?:    \w+,\n)+)", text, flags=re.MULTILINE)
    assert sorted(name.strip(" ,") for names in local for name in names.splitlines()) == [
        "fetch_backbone",
        "fetch_dataset",
    ]


def test_another_attempt_asks_for_more_memory_and_time(empty: Workspace) -> None:
    target = "results/smoke/codes/clip-tiny/scenes/manifest.json"
    once, twice = (
        empty.run(
            *empty.command("--dry-run", "--forcerun", "prepare_dataset", "--attempt", str(attempt), target)
        ).stdout
        for attempt in (1, 2)
    )
    for text, times in ((once, 1), (twice, 2)):
        resources = re.search(r"^rule encode_codes:\n(?:    .*\n)*?    resources: (.*)", text, re.MULTILINE)[1]
        assert {f"mem_mb={times * 8000}", f"runtime={times * 240}"} <= set(resources.split(", "))


def test_a_changed_lock_fetches_a_backbone_again_and_its_first_lock_does_not(empty: Workspace) -> None:
    results = empty.folder / "results" / "laptop"
    card, lock = results / "backbones" / "clip-b32" / "card.json", empty.folder / "locks" / "owner--model.json"
    target = str(card.relative_to(empty.folder))

    def planned() -> dict[str, int]:
        settings = ["--dry-run", "--cores", "1", "--configfile", "examples/laptop.yaml"]
        return planned_rules(empty.run(sys.executable, "-m", "snakemake", target, *settings).stdout)

    def fetch(revision: str) -> None:
        """What the rule does: the lock, then the weights and the card, which repeats it."""
        lock.parent.mkdir(exist_ok=True)
        lock.write_text(json.dumps({"repository": "owner/model", "revision": revision}))
        card.parent.mkdir(parents=True, exist_ok=True)
        (card.parent / "open_clip_model.safetensors").touch()
        card.write_text(json.dumps({"lock": json.loads(lock.read_text())}))

    assert planned() == {"fetch_backbone": 1}
    fetch("a")
    assert planned() == {}
    lock.write_text(json.dumps({"repository": "owner/model", "revision": "b"}))
    assert planned() == {"fetch_backbone": 1}
    assert planned() == {"fetch_backbone": 1}
    fetch("b")
    assert planned() == {}
