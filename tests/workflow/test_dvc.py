"""DVC's own commands on a recorded run: repro, experiments, differences of metrics, plots, and a remote on S3."""

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml

from .test_record import KNOWN, git, make
from .workspace import ROOT, SMOKE, Workspace

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

S3 = ("dvc_s3", "moto")


def laid_over(base: Any, overlay: Any) -> Any:
    """Merge mappings as Snakemake does with several configuration files."""
    if not isinstance(base, Mapping) or not isinstance(overlay, Mapping):
        return overlay
    return {**base, **{key: laid_over(base.get(key), value) for key, value in overlay.items()}}


@pytest.fixture(scope="module")
def recorded(finished: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A git repository whose config.yaml is the smoke experiment, with the record of its run in a folder."""
    folder = tmp_path_factory.mktemp("dvc")
    author = finished.copy(folder / "author")
    default = yaml.safe_load((ROOT / "config.yaml").read_text())
    merged = laid_over(default, yaml.safe_load((ROOT / SMOKE).read_text()))
    (author.folder / "config.yaml").write_text(yaml.safe_dump(merged, sort_keys=False))
    stage = author.folder / "dvc.yaml"
    stage.write_text(stage.read_text().replace("results/testbed", "results/smoke"))
    settings = author.folder / ".dvc/config"
    settings.write_text(re.sub(r"url = .*", f"url = {folder / 'remote'}", settings.read_text()))
    git(author.folder, "init", "--quiet", "--initial-branch=main")
    git(author.folder, "config", "user.name", "Test")
    git(author.folder, "config", "user.email", "test@example.org")
    git(author.folder, "add", ".")
    git(author.folder, "commit", "--quiet", "--message", "Smoke run")
    make(author, "record", KNOWN)
    git(author.folder, "add", "dvc.lock")
    git(author.folder, "commit", "--quiet", "--message", "Record")
    yield author
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def experiment(recorded: Workspace) -> Workspace:
    """The recorded run after an experiment in which one parameter of one measure differs."""
    dvc(recorded, "exp", "run", "--set-param", "config.yaml:measures.overlap_k=[3]")
    return recorded


def dvc(workspace: Workspace, *arguments: str) -> str:
    return workspace.run(sys.executable, "-m", "dvc", *arguments).stdout


def test_run_of_uncommitted_code_is_not_recorded(recorded: Workspace) -> None:
    manifest = recorded.results / "manifest.json"
    kept = manifest.read_text()
    facts = json.loads(kept)
    facts["code"][0]["dirty"] = True
    manifest.write_text(json.dumps(facts))
    done = make(recorded, "record", check=False)
    manifest.write_text(kept)
    assert done.returncode != 0
    assert "ran with uncommitted changes; commit and run them again" in done.stdout


def test_reproducing_a_recorded_run_does_nothing(recorded: Workspace) -> None:
    assert "didn't change, skipping" in dvc(recorded, "repro")


def test_experiment_computes_what_its_parameter_affects(experiment: Workspace) -> None:
    overlap = pd.read_parquet(experiment.results / "tables" / "overlap.parquet")
    assert set(overlap.loc[overlap["statistic"] == "jaccard", "k"]) == {3}
    records = {path.stem: path.stat().st_mtime for path in (experiment.results / "jobs").glob("*.json")}
    assert records["measure_overlap"] > records["measure_accuracy"]
    lock = yaml.safe_load((experiment.folder / "dvc.lock").read_text())
    assert lock["stages"]["benchmark"]["params"]["config.yaml"]["measures"]["overlap_k"] == [3]


def test_metrics_of_an_experiment_are_compared_with_the_record(experiment: Workspace) -> None:
    difference = json.loads(dvc(experiment, "metrics", "diff", "--json"))
    ((path, changes),) = difference.items()
    assert path == "results/smoke/metrics.json"
    assert changes
    assert all(name.startswith("overlap") for name in changes), sorted(changes)


def test_parameters_of_an_experiment_are_compared_with_the_record(experiment: Workspace) -> None:
    assert "measures.overlap_k" in dvc(experiment, "params", "diff")


def test_plots_are_drawn(experiment: Workspace) -> None:
    for command in (["plots", "show"], ["plots", "diff"]):
        dvc(experiment, *command, "--out", "plots")
        page = (experiment.folder / "plots" / "index.html").read_text()
        shutil.rmtree(experiment.folder / "plots")
        assert "Seconds by rule" in page
        assert "accuracy.png" in page


@contextmanager
def s3_server(folder: Path) -> Iterator[str]:
    """A local S3 server; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (folder / "s3.log").open("w") as log:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        _create_bucket(f"{address}/bucket")
        yield address
    finally:
        server.terminate()
        server.wait()


def _create_bucket(address: str, seconds: float = 120) -> None:
    """Create a bucket as soon as the server listens."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(urllib.request.Request(address, method="PUT"), timeout=10).close()
            return
        except urllib.error.URLError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


@pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in S3), reason="needs dvc-s3 and moto: conceptbench[dev,s3]"
)
def test_record_travels_over_s3(recorded: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    with s3_server(tmp_path) as address:
        git(tmp_path, "clone", "--quiet", str(recorded.folder), "reader")
        reader = Workspace(tmp_path / "reader")
        for place in (recorded, reader):
            dvc(place, "remote", "add", "--local", "--force", "team", "s3://bucket/conceptbench")
            dvc(place, "remote", "modify", "--local", "team", "endpointurl", address)
        dvc(recorded, "push", "--remote", "team", "--all-commits")
        dvc(reader, "pull", "--remote", "team")
    metrics = json.loads((reader.results / "metrics.json").read_text())
    assert metrics
    assert (reader.results / "manifest.json").exists()
    assert "Data and pipelines are up to date" in dvc(reader, "status")
