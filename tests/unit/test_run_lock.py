"""The lock of a run: who holds it, whose lock is taken over, and whose is not."""

import json
import os
import re
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import psutil
import pytest

from conceptbench.errors import ConceptBenchError
from conceptbench.run_lock import LOCK, Holder, RunLock

HOLD = """
import sys
from pathlib import Path
from conceptbench.run_lock import RunLock
RunLock(Path(sys.argv[1]), Path("/other/checkout")).take()
print("taken", flush=True)
sys.stdin.read()
"""


def put(results: Path, **changed: object) -> Path:
    """A lock of this process, with some facts changed."""
    process = psutil.Process()
    mine = Holder(socket.gethostname(), process.pid, process.create_time(), "/elsewhere")
    lock = results / LOCK
    lock.mkdir(parents=True)
    (lock / "holder.json").write_text(json.dumps({**asdict(mine), **changed}))
    return lock


def test_lock_is_taken_once_and_given_back(tmp_path: Path) -> None:
    lock = RunLock(tmp_path, Path("/here"))
    lock.take()
    lock.take()
    assert lock.path.is_dir() and lock.holder() is None
    lock.release()
    lock.release()
    assert list(lock.path.parent.iterdir()) == []


def test_another_process_is_named_and_its_lock_outlives_it_only_until_the_next_run(tmp_path: Path) -> None:
    lock = RunLock(tmp_path, Path("/here"))
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None and other.stdout.readline() == "taken\n"
        said = rf"are being computed by process {other.pid} on \S+ \(checkout /other/checkout\).*remove {lock.path} and"
        with pytest.raises(ConceptBenchError, match=said):
            lock.take()
        lock.release()
        with pytest.raises(ConceptBenchError, match=f"have other parameters by process {other.pid}"):
            lock.require_free("have other parameters")
        other.kill()
    assert lock.path.is_dir()
    lock.require_free("are being computed")
    lock.take()
    assert json.loads((lock.path / "holder.json").read_text())["pid"] == os.getpid()
    assert [path.name for path in lock.path.parent.iterdir()] == [lock.path.name]


def test_a_number_that_another_process_has_now_is_not_the_holder(tmp_path: Path) -> None:
    put(tmp_path, began=psutil.Process().create_time() - 3600)
    RunLock(tmp_path, Path("/here")).take()


@pytest.mark.parametrize("changed", [{"host": "elsewhere", "pid": 2**22 + 1}, {"unknown": 1}])
def test_what_cannot_be_known_to_be_gone_is_refused(tmp_path: Path, changed: dict[str, object]) -> None:
    path = put(tmp_path, **changed)
    lock = RunLock(tmp_path, Path("/here"))
    with pytest.raises(ConceptBenchError, match=re.escape(f"remove {path} and run again.")):
        lock.take()
    lock.release()
    assert (path / "holder.json").is_file() and len(list(path.parent.iterdir())) == 1


def test_the_rest_of_a_lock_whose_release_was_killed_is_no_lock(tmp_path: Path) -> None:
    (tmp_path / LOCK).mkdir(parents=True)
    lock = RunLock(tmp_path, Path("/here"))
    assert lock.holder() is None
    lock.take()
    assert (lock.path / "holder.json").is_file()


def test_a_lock_that_another_run_took_over_in_the_same_moment_is_left_to_it(tmp_path: Path) -> None:
    path = put(tmp_path, host="elsewhere")
    lock = RunLock(tmp_path, Path("/here"))
    lock._set_aside(Holder(socket.gethostname(), 1, 0.0, "/stale"))
    assert json.loads((path / "holder.json").read_text())["host"] == "elsewhere"


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / LOCK.parent).write_text("a file")
    with pytest.raises(ConceptBenchError, match="Cannot lock"):
        RunLock(tmp_path, Path("/here")).take()
