"""Commands in sessions of their own: whatever ends a test, nothing that it started goes on."""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import IO

import psutil
import pytest

SECONDS_TO_DIE = 30
TAIL = 6000
"""Characters of an output that a failure shows."""


def kill(process: subprocess.Popen[str]) -> None:
    """Kill the leader of a session and everything below it at once, without a chance to tidy up; wait for their end.

    What has left the group of its leader is killed by its number.
    """
    family: list[psutil.Process] = []
    with contextlib.suppress(psutil.NoSuchProcess):
        leader = psutil.Process(process.pid)
        family = [*leader.children(recursive=True), leader]
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    for member in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            member.kill()
    process.wait()
    alive = psutil.wait_procs(family, timeout=SECONDS_TO_DIE)[1]
    assert not alive, f"not killed: {alive}"


@contextmanager
def session(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], output: IO[str] | int
) -> Iterator[subprocess.Popen[str]]:
    """Start a command in a session of its own; nothing of it outlives the block. `output` takes both its streams."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            kill(process)


def finish(
    command: Sequence[str], folder: Path, environment: Mapping[str, str], timeout: float
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; one that takes longer than `timeout` seconds is killed and fails the test."""
    with session(command, folder, environment, subprocess.PIPE) as process:
        try:
            text, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            kill(process)
            text, _ = process.communicate()
            pytest.fail(f"{' '.join(command)} did not end within {timeout:.0f} s:\n{text[-TAIL:]}")
    return subprocess.CompletedProcess(command, process.returncode, text)


def stop_on_sigterm() -> None:
    """Let SIGTERM end the tests as an interrupt does: every block that runs a command ends it on the way out."""

    def stop(number: int, frame: FrameType | None) -> None:
        pytest.exit(f"stopped by signal {number}", returncode=128 + number)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, stop)
