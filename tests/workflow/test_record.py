"""Runs are recorded with DVC, restored in another clone, and computed anew where the configuration has changed."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import yaml

from .affected import DRAW, LAST, LEARNT, OVERLAP, nested
from .workspace import Workspace, planned_rules

pytestmark = pytest.mark.workflow

KNOWN = "ALLOW=unknown"
"""The copies in which tests compute are no git checkouts."""
OPTIONS = "SNAKEMAKE_OPTIONS=--configfile examples/smoke.yaml"


def git(folder: Path, *arguments: str) -> str:
    settings = ["-c", "user.name=Test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", *settings, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def make(workspace: Workspace, target: str, *options: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a make target with the Python of the tests instead of .venv."""
    tools = Path(shutil.which("snakemake", path=workspace.environment["PATH"]) or "").parent
    settings = ["--old-file=environment", f"BIN={tools}", "EXPERIMENT=smoke", "CORES=1", OPTIONS, *options]
    return workspace.run("make", *settings, target, check=check)


@pytest.fixture(scope="module")
def recorded(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A git repository with the record of the smoke run, whose results are in a DVC remote beside it."""
    folder = tmp_path_factory.mktemp("record")
    author = finished.copy(folder / "author")
    stage = (author.folder / "dvc.yaml").read_text().replace("results/testbed", "results/smoke")
    (author.folder / "dvc.yaml").write_text(stage)
    remote = re.sub(r"url = .*", f"url = {folder / 'remote'}", (author.folder / ".dvc/config").read_text())
    (author.folder / ".dvc/config").write_text(remote)
    git(author.folder, "init", "--quiet", "--initial-branch=main")
    assert "The checkout has changes" in make(author, "record", check=False).stdout
    git(author.folder, "add", ".")
    git(author.folder, "commit", "--quiet", "--message", "Smoke run")
    refused = make(author, "record", check=False)
    assert refused.returncode != 0 and "do not know which code they ran" in refused.stdout
    make(author, "record", KNOWN)
    git(author.folder, "add", "dvc.lock")
    git(author.folder, "commit", "--quiet", "--message", "Record")
    yield author.folder
    shutil.rmtree(folder)


@pytest.fixture
def restored(recorded: Path, tmp_path: Path) -> Iterator[Workspace]:
    """A fresh clone after `make restore`."""
    git(tmp_path, "clone", "--quiet", str(recorded), "reader")
    reader = Workspace(tmp_path / "reader")
    assert not reader.results.exists()
    assert "Nothing to be done" in make(reader, "restore").stdout
    yield reader
    shutil.rmtree(reader.folder)


def test_results_that_are_not_recorded_are_refused(empty: Workspace) -> None:
    for target in ("record", "restore"):
        done = make(empty, target, check=False)
        assert done.returncode != 0
        assert "dvc.yaml does not record results/smoke; name it there" in done.stdout


def test_nothing_is_restored_where_nothing_was_recorded(empty: Workspace) -> None:
    stage = empty.folder / "dvc.yaml"
    stage.write_text(stage.read_text().replace("results/testbed", "results/smoke"))
    done = make(empty, "restore", check=False)
    assert done.returncode != 0
    assert [line for line in done.stdout.splitlines() if "dvc.lock" in line] == [
        "There is no dvc.lock here, so no run was recorded; take a revision with one, or compute the run: make run"
    ]


def test_results_stay_in_place_while_the_stage_runs(finished: Workspace) -> None:
    described = yaml.safe_load((finished.folder / "dvc.yaml").read_text())
    assert described["stages"]["benchmark"]["outs"] == [{"results/testbed": {"persist": True}}]


def test_restored_are_all_results_and_nothing_else(restored: Workspace, finished: Workspace) -> None:
    made = {path.relative_to(finished.results) for path in finished.results.rglob("*") if path.is_file()}
    results = {path for path in made if path.parts[0] not in {".work", "logs", "benchmarks"}}
    assert {path.relative_to(restored.results) for path in restored.results.rglob("*") if path.is_file()} == results
    assert {path.parts[0] for path in results} >= {"metrics.json", "manifest.json", "jobs", "stamps", "outputs"}


def test_record_refuses_an_unfinished_run(recorded: Path, finished: Workspace) -> None:
    author = Workspace(recorded)
    figure = author.results / "figures" / "accuracy.png"
    kept = figure.rename(author.folder.parent / "accuracy.png")
    done = make(author, "record", check=False)
    kept.rename(figure)
    assert done.returncode != 0
    assert "is not finished" in done.stdout


def test_recorded_run_has_nothing_to_do(recorded: Path) -> None:
    assert Workspace(recorded).planned() == {}


def test_restored_run_has_nothing_to_do(restored: Workspace, finished: Workspace) -> None:
    assert restored.planned() == {}
    metrics = "metrics.json"
    assert (restored.results / metrics).read_bytes() == (finished.results / metrics).read_bytes()


def test_changed_parameter_recomputes_what_it_affects(restored: Workspace) -> None:
    assert set(restored.planned(overlay=nested("figures.dpi", 60))) == DRAW | LAST
    assert set(restored.planned(overlay=nested("dictionaries.methods.topk.k", 6))) == LEARNT | LAST
    change = nested("measures.overlap_k", [3])
    assert set(restored.planned(overlay=change)) == {*OVERLAP, "collect_metrics", *LAST}
    restored.snakemake(overlay=change)
    overlap = pd.read_parquet(restored.results / "tables" / "overlap.parquet")
    assert set(overlap.loc[overlap["statistic"] == "jaccard", "k"]) == {3}
    assert restored.planned(overlay=change) == {}


def test_restore_under_another_configuration_plans_the_difference(recorded: Path, tmp_path: Path) -> None:
    git(tmp_path, "clone", "--quiet", str(recorded), "reader")
    reader = Workspace(tmp_path / "reader")
    smoke = reader.folder / "examples" / "smoke.yaml"
    smoke.write_text(smoke.read_text().replace("overlap_k: [5, 10]", "overlap_k: [3]"))
    assert set(planned_rules(make(reader, "restore").stdout)) == {*OVERLAP, "collect_metrics", *LAST}
