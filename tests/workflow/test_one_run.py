"""One run at a time on the results of an experiment: another one, or a dry run, neither joins it nor changes it."""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .processes import TAIL, kill, session
from .workspace import Workspace, copy_tree, planned_rules

pytestmark = pytest.mark.workflow

CARDS = [f"results/smoke/datasets/{name}/card.json" for name in ("scenes", "flora")]
OTHER = {"datasets": {"scenes": {"sizes": {"train": 100}}, "flora": {"images_per_class": 7}}}
LOCK = Path(".work") / "run.lock"


@contextmanager
def running(workspace: Workspace, *targets: str) -> Iterator[tuple[object, Path]]:
    """A run in progress, from the moment it has its results to itself: its process and its output."""
    log = workspace.folder / "first.log"
    command = workspace.command(*targets, cores=1)
    with log.open("w") as out, session(command, workspace.folder, workspace.environment, out) as process:
        deadline = time.monotonic() + 300
        while not (workspace.results / LOCK).exists():
            assert process.poll() is None and time.monotonic() < deadline, log.read_text()[-TAIL:]
            time.sleep(0.01)
        yield process, log


def stamps(workspace: Workspace) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (workspace.results / "stamps").iterdir()}


def test_another_configuration_leaves_a_run_in_progress_alone(empty: Workspace) -> None:
    with running(empty, *CARDS) as (process, log):
        before = stamps(empty)
        for options in (["--dry-run"], []):
            done = empty.snakemake(*options, *CARDS, overlay=OTHER, check=False)
            assert done.returncode != 0 and "Traceback" not in done.stdout
            assert f"are being computed by process {process.pid} on " in done.stdout, done.stdout[-TAIL:]
            assert f"Only if that process is gone, remove results/smoke/{LOCK}" in " ".join(done.stdout.split())
        assert stamps(empty) == before
        empty.snakemake("--dry-run", *CARDS)
        assert process.wait(300) == 0, log.read_text()[-TAIL:]
    assert not (empty.results / LOCK).exists()
    assert planned_rules(empty.snakemake("--dry-run", *CARDS).stdout) == {}
    assert planned_rules(empty.snakemake("--dry-run", *CARDS, overlay=OTHER).stdout) == {"prepare_dataset": 2}


def test_a_job_whose_parameters_have_changed_since_it_was_planned_ends_in_one_sentence(empty: Workspace) -> None:
    """As when another run read its configuration between the planning of this one and its start."""
    with running(empty, *CARDS) as (process, log):
        for stamp in empty.results.glob("stamps/prepare_dataset.*.json"):
            stamp.write_text(stamp.read_text().replace('"seed": 0', '"seed": 1'))
        assert process.wait(300) != 0
    said = log.read_text()
    assert "Error in rule prepare_dataset: The parameters in results/smoke/stamps/prepare_dataset." in said
    assert "are no longer those of this run" in said
    assert not [card for card in CARDS if (empty.folder / card).exists()]
    assert not (empty.results / LOCK).exists()
    empty.snakemake(*CARDS)


def test_two_checkouts_with_one_results_folder(empty: Workspace, tmp_path: Path) -> None:
    other = copy_tree(tmp_path / "other")
    (empty.folder / "results").mkdir()
    (other.folder / "results").symlink_to(empty.folder / "results")
    with running(empty, *CARDS) as (process, _):
        done = other.snakemake("--force", CARDS[0], check=False)
        assert done.returncode != 0 and "Traceback" not in done.stdout
        assert f"being computed by process {process.pid} on " in done.stdout
        assert str(empty.folder) in done.stdout.replace("\n", "")
        kill(process)
    assert (empty.results / LOCK).exists()
    other.snakemake(*CARDS)
    assert not (empty.results / LOCK).exists()
    empty.snakemake("--unlock")
    shutil.rmtree(other.folder)


def test_a_job_of_a_cluster_leaves_the_stamps_to_the_run_that_planned_it(empty: Workspace) -> None:
    """It reads the rules again, as the job of another run with another configuration would."""
    empty.snakemake("--dry-run", CARDS[1])
    stamp = empty.results / "stamps" / "prepare_dataset.flora.json"
    planned = stamp.read_bytes()
    job = ["--mode", "subprocess", "--target-jobs", "prepare_dataset:dataset=flora", "--nolock", "--no-hooks"]
    job += ["--allowed-rules", "prepare_dataset"]
    done = empty.snakemake(*job, overlay=OTHER, check=False)
    assert done.returncode != 0
    assert "stamps/prepare_dataset.flora.json are no longer those of this run" in done.stdout, done.stdout[-TAIL:]
    assert stamp.read_bytes() == planned
    assert not (empty.folder / CARDS[1]).exists()
    empty.snakemake(*job)
    assert (empty.folder / CARDS[1]).exists()
