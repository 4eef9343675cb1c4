"""Processes that learn together: a failure of one ends all with one sentence, and none outlives its starter."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import parallel_tools
import psutil
import pytest

from conceptbench.dictionaries.processes import run_group
from conceptbench.errors import ConceptBenchError

TOOL = str(Path(parallel_tools.__file__))
PATIENCE = 60


@pytest.fixture(autouse=True)
def _children_find_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))


def members(folder: Path) -> list[int]:
    """Processes that have joined."""
    return [int(path.stem) for path in folder.glob("*.pid")]


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE]


@pytest.mark.parametrize(
    ("how", "sentence"),
    [
        ("sentence", r"^The second process is out of tokens\.$"),
        ("crash", "learn together stopped with ZeroDivisionError: divided by none; the log has the traceback"),
        ("killed", "Process 2 of 2 that learn together was ended by SIGKILL, perhaps for lack of memory"),
        ("status", "Process 2 of 2 that learn together ended with status 3"),
    ],
)
def test_a_failure_of_one_ends_all_with_its_sentence(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], how: str, sentence: str
) -> None:
    with pytest.raises(ConceptBenchError, match=sentence):
        run_group([sys.executable, TOOL, str(tmp_path), how], 2, tmp_path, threads=2)
    assert len(members(tmp_path)) == 2 and not alive(members(tmp_path))
    assert ("Traceback" in capfd.readouterr().err) or how != "crash"


def test_none_outlives_a_starter_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from conceptbench.dictionaries.processes import run_group; "
        "run_group([sys.executable, *sys.argv[1:]], 2, Path(sys.argv[2]), 2)"
    )
    starter = subprocess.Popen([sys.executable, "-c", code, TOOL, str(tmp_path), "none"])
    deadline = time.monotonic() + PATIENCE
    while len(members(tmp_path)) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    started = members(tmp_path)
    assert len(alive(started)) == 2
    starter.send_signal(signal.SIGKILL)
    starter.wait()
    while alive(started) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not alive(started)
