"""Killed jobs go on where they were, with the same result; jobs run without a GPU."""

import json
import shutil
import time
from pathlib import Path

import pytest

from .processes import TAIL, kill, session
from .workspace import TIMEOUT, Workspace

pytestmark = pytest.mark.workflow

LARGER = {
    "experiment": "killed",
    "datasets": {"scenes": {"sizes": {"train": 512, "val": 512, "test": 512}}},
    "hooks": {"clip-tiny": None},
    "kinds": None,
    "adaptations": {"backbone": "random-local", "tasks": []},
    "measures": {"latents_on": [], "masking": None, "concepts": None},
}
"""A recording of several shards by the backbone that needs no training."""
RECORDED = Path("results/killed/activations/random-local/scenes")


def shards(workspace: Workspace) -> dict[str, object]:
    manifest = json.loads((workspace.folder / RECORDED / "manifest.json").read_text())
    return {"digests": manifest["shards"], "resumed": manifest["resumed_shards"], "spec": manifest["spec_digest"]}


def finished_shards(journal: Path) -> int:
    return len(json.loads(journal.read_text())["shards"]) if journal.exists() else 0


def kill_at_first_shard(workspace: Workspace) -> None:
    """Start the recording and kill all its processes as soon as one shard is complete."""
    journal = workspace.folder / "results/killed/.work/activations/random-local/scenes/journal.json"
    command, log = workspace.command(f"{RECORDED}/manifest.json", overlay=LARGER), workspace.folder / "killed.log"
    with log.open("w") as out, session(command, workspace.folder, workspace.environment, out) as process:
        deadline = time.monotonic() + TIMEOUT
        while not finished_shards(journal) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        assert process.poll() is None, log.read_text()[-TAIL:]
        kill(process)
    assert not (workspace.folder / RECORDED / "manifest.json").exists(), "the recording was over before the kill"
    assert finished_shards(journal)


def test_killed_recording_resumes_to_the_same_store(empty: Workspace) -> None:
    target = f"{RECORDED}/manifest.json"
    inputs = ["results/killed/datasets/scenes/card.json", "results/killed/backbones/random-local/card.json"]
    empty.snakemake(*inputs, overlay=LARGER)
    kill_at_first_shard(empty)
    empty.snakemake("--unlock", overlay=LARGER)
    empty.snakemake(target, overlay=LARGER)
    resumed = shards(empty)
    assert resumed["resumed"] >= 1
    shutil.rmtree(empty.folder / RECORDED)
    empty.snakemake(target, overlay=LARGER)
    whole = shards(empty)
    assert whole["resumed"] == 0
    assert (resumed["digests"], resumed["spec"]) == (whole["digests"], whole["spec"])


@pytest.mark.parametrize("without", [["--resources", "gpu=0"], ["--workflow-profile", "profiles/cpu"]])
def test_jobs_run_without_a_gpu(workspace: Workspace, without: list[str]) -> None:
    target = "results/smoke/codes/random-local/scenes/manifest.json"
    text = workspace.snakemake("--force", target, *without).stdout
    assert "gpu=0" in text
    assert "gpu=1" not in text
