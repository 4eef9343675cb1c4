"""A recording shared by several jobs in the workflow: its bytes, its stamps, and a part that is lost."""

import shutil
from pathlib import Path

import pytest

from .workspace import Workspace, planned_rules

pytestmark = pytest.mark.workflow

SHARED = {"record": {"jobs": 2}}
TARGET = "results/smoke/activations/random-local/scenes/manifest.json"


def arrays(store: Path) -> dict[str, bytes]:
    return {str(path.relative_to(store)): path.read_bytes() for path in store.glob("block*/c/*/0/0")}


def stamps(workspace: Workspace) -> dict[str, tuple[int, bytes]]:
    folder = workspace.results / "stamps"
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.glob("*.json")}


def test_jobs_share_a_recording_without_a_trace_in_stamps_or_arrays(workspace: Workspace) -> None:
    store = workspace.results / "activations" / "random-local" / "scenes"
    before, single = stamps(workspace), arrays(store / "store.zarr")
    assert len(single) == 2
    shutil.rmtree(store)
    done = workspace.snakemake(TARGET, overlay=SHARED)
    assert planned_rules(done.stdout) == {"record_part": 2, "gather_activations": 1}
    assert arrays(store / "store.zarr") == single
    assert stamps(workspace) == before
    assert not (workspace.results / ".work" / "activations" / "random-local" / "scenes").exists()


def test_the_plan_has_a_job_for_each_part(empty: Workspace) -> None:
    text = empty.snakemake("--dry-run", TARGET, overlay={"record": {"jobs": 8}}).stdout
    assert planned_rules(text)["record_part"] == 8
    assert planned_rules(text)["gather_activations"] == 1
    assert "record_activations" not in planned_rules(text)


def test_a_shard_that_is_lost_before_the_gather_is_named(workspace: Workspace) -> None:
    store = workspace.results / "activations" / "random-local" / "scenes"
    part = workspace.results / ".work" / "activations" / "random-local" / "scenes" / "2of2"
    shutil.rmtree(store)
    until = ["--notemp", "--until", "record_part"]
    workspace.snakemake(TARGET, *until, overlay=SHARED)
    next(part.glob("store.zarr/block4/c/*/0/0")).unlink()
    done = workspace.snakemake(TARGET, overlay=SHARED, check=False)
    assert done.returncode != 0
    assert "Error in rule gather_activations: Part 2of2" in done.stdout
    assert "is missing; delete this file and run again" in done.stdout
    (part / "part.json").unlink()
    workspace.snakemake(TARGET, overlay=SHARED)
    assert len(arrays(store / "store.zarr")) == 2
