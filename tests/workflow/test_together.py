"""Several GPUs for one job that learns dictionaries: what the rule asks for, and that nothing else depends on it."""

import json
import re

import pytest

from .workspace import Workspace

pytestmark = pytest.mark.workflow

DICTIONARIES = "results/smoke/dictionaries/random-local/manifest.json"


def asked(workspace: Workspace, gpus: int) -> dict[str, tuple[int, int]]:
    """Threads and GPUs of a job of each rule that asks for GPUs, in a dry run."""
    text = workspace.snakemake("--dry-run", DICTIONARIES, overlay={"dictionaries": {"gpus": gpus}}).stdout
    jobs = re.findall(r"^rule (\w+):\n(.*?)\n\n", text, flags=re.DOTALL | re.MULTILINE)
    threads = {rule: re.search(r"threads: (\d+)", lines) for rule, lines in jobs}
    found = {rule: re.search(r"\bgpu=(\d+)", lines) for rule, lines in jobs}
    return {
        rule: (int(threads[rule][1]) if threads[rule] else 1, int(gpu[1]))  # type: ignore[index]
        for rule, gpu in found.items()
        if gpu
    }


def test_the_rule_asks_for_the_gpus_and_its_stamp_does_not_know(empty: Workspace) -> None:
    stamps = empty.results / "stamps"
    assert asked(empty, gpus=1) == {"record_activations": (2, 1), "learn_dictionaries": (2, 1)}
    before = {path.name: path.read_bytes() for path in stamps.iterdir()}
    assert asked(empty, gpus=2) == {"record_activations": (2, 1), "learn_dictionaries": (2, 2)}
    assert {path.name: path.read_bytes() for path in stamps.iterdir()} == before
    assert "gpus" not in json.loads((stamps / "learn_dictionaries.random-local.json").read_text())
