"""The tools of the kill test: nothing outlives a kill, what differs is named, a failure leaves something to read."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

from . import evidence, test_kill
from .equality import difference, different_metrics
from .processes import finish, kill, session
from .workspace import ROOT, Workspace

WITH_CHILD = """
import subprocess, sys, time
options = {"start_new_session": True} if sys.argv[2] == "apart" else {}
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], **options)
open(sys.argv[1], "w").write(str(child.pid))
print("said before the end", flush=True)
time.sleep(300)
"""
UNTIL_SIGTERM = """
import sys
from pathlib import Path
from tests.workflow.processes import session, stop_on_sigterm
stop_on_sigterm()
with session(sys.argv[1:], Path.cwd(), {}, 1) as process:
    process.wait()
"""


def command(note: Path, where: str = "together") -> list[str]:
    return [sys.executable, "-c", WITH_CHILD, str(note), where]


def child(note: Path) -> int:
    """The number of the process that the command has started, once it has."""
    deadline = time.monotonic() + 60
    while not (note.exists() and note.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(note.read_text())


def gone(number: int) -> bool:
    """Whether a process ends soon."""
    deadline = time.monotonic() + 30
    while psutil.pid_exists(number) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not psutil.pid_exists(number)


@pytest.mark.parametrize("where", ["together", "apart"])
def test_nothing_below_a_killed_command_goes_on(tmp_path: Path, where: str) -> None:
    with session(command(tmp_path / "note", where), tmp_path, os.environ, subprocess.DEVNULL) as process:
        below = child(tmp_path / "note")
        kill(process)
    assert gone(below) and process.returncode == -signal.SIGKILL


def test_a_process_that_ends_while_it_is_killed_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(self: psutil.Process) -> None:
        raise psutil.NoSuchProcess(self.pid)

    monkeypatch.setattr(psutil.Process, "kill", ended)
    with session(command(tmp_path / "note"), tmp_path, os.environ, subprocess.DEVNULL) as process:
        below = child(tmp_path / "note")
        kill(process)
    assert gone(below)


def test_a_command_that_takes_too_long_is_killed_and_shown(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match=r"did not end within 3 s:\nsaid before the end"):
        finish(command(tmp_path / "note", "apart"), tmp_path, os.environ, 3)
    assert gone(child(tmp_path / "note"))


def test_sigterm_ends_what_the_tests_have_started(tmp_path: Path) -> None:
    tests = subprocess.Popen([sys.executable, "-c", UNTIL_SIGTERM, *command(tmp_path / "note", "apart")], cwd=ROOT)
    below = child(tmp_path / "note")
    tests.terminate()
    assert tests.wait(30) != 0
    assert gone(below)


def test_metrics_are_compared_by_value() -> None:
    assert different_metrics({"a": 0.1 + 0.2, "b": 3, "c": None}, {"a": 0.3, "b": 3, "c": None}) == ""
    assert different_metrics({"a": 0.3, "b": 3}, {"a": 0.3001, "b": 3}) == "a is 0.3 and 0.3001"
    assert different_metrics({"a": 0.3}, {"b": 0.3}) == "a is 0.3 and None, b is None and 0.3"


def test_the_column_that_differs_is_named(tmp_path: Path) -> None:
    one, other = tmp_path / "one.csv", tmp_path / "other.csv"
    table = pd.DataFrame({"name": ["x", None, "z"], "value": [1.0, float("nan"), 3.0], "seconds": [1.0, 2.0, 3.0]})
    table.to_csv(one, index=False)
    table.assign(seconds=0.0, value=table["value"] * (1 + 1e-12)).to_csv(other, index=False)
    assert difference(one, other) == ""
    table.assign(value=[1.0, float("nan"), 3.1]).to_csv(other, index=False)
    assert difference(one, other) == "column value differs in rows [2]"
    table.assign(name=["x", None, "y"]).to_csv(other, index=False)
    assert difference(one, other) == "column name differs in rows [2]"
    table.head(2).to_csv(other, index=False)
    assert difference(one, other) == "it has 3 and 2 rows"
    other.unlink()
    assert difference(one, other) == f"{other} is missing"


def test_a_failure_keeps_logs_and_both_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "KEPT", tmp_path / "kept")
    checkout = tmp_path / "checkout"
    written = {
        "killed.log": "killed",
        ".snakemake/log/a.log": "all",
        "results/smoke/logs/adapt/x.log": "job",
        "results/smoke/metrics.json": "{}",
        "results/smoke/tables/large.parquet": "large",
    }
    for name, text in written.items():
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text(text)
    for _ in range(2):  # a second failure of the test replaces the first
        folder = evidence.keep_logs(Workspace(checkout), "tests/a.py::test_b[0]")
    logs = {str(path.relative_to(folder / "logs")) for path in folder.rglob("*") if path.is_file()}
    assert logs == {"killed.log", ".snakemake/log/a.log", "results/smoke/logs/adapt/x.log"}
    other = tmp_path / "other"
    other.mkdir()
    (other / "metrics.json").write_text(json.dumps({"a": 1}))
    evidence.keep_both(checkout / "results" / "smoke", other, ["metrics.json", "only.txt"], "tests/a.py::test_b[0]")
    assert (folder / "expected" / "metrics.json").read_text() == "{}"
    assert (folder / "found" / "metrics.json").read_text() == '{"a": 1}'


def test_kills_come_at_all_stages_of_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(test_kill, "KILLS", 20)
    runs = [test_kill.moments(run, jobs=60) for run in range(5)]
    assert [len(run) for run in runs] == [4] * 5
    assert all(run == sorted(run) for run in ([finished for finished, _ in run] for run in runs))
    finished = [finished for run in runs for finished, _ in run]
    assert all(sum(start <= moment < start + 20 for moment in finished) >= 4 for start in (0, 20, 40))
