"""kill -9 at random moments of the smoke experiment: whatever was being written, the end is the uninterrupted one.

A run is killed up to four times, continued after each, and compared when it has ended. CONCEPTBENCH_KILLS says how
often in all: 3 with the other tests, 20 with `make kill-test`.
"""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from .equality import differing
from .workspace import TIMEOUT, Workspace

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

KILLS = int(os.environ.get("CONCEPTBENCH_KILLS", "3"))
PER_RUN = 4
LONGEST_DELAY = 6.0
"""Seconds: a kill comes at random within this time after a job has ended, so in start-up, in work and in writing."""
FINISHED = "Finished jobid"


def moments(run: int, jobs: int) -> list[tuple[int, float]]:
    """When to kill a run: after so many more finished jobs, and so many seconds then."""
    random_of = random.Random(f"kill {run}")
    kills = min(PER_RUN, KILLS - run * PER_RUN)
    share = jobs // (kills + 1)
    return [(random_of.randrange(0, share), random_of.uniform(0, LONGEST_DELAY)) for _ in range(kills)]


@contextmanager
def started(workspace: Workspace, log: Path) -> Iterator[subprocess.Popen[str]]:
    """Start the smoke experiment in a session of its own; nothing of it outlives the block."""
    with log.open("w") as out:
        process = subprocess.Popen(
            workspace.command(),
            cwd=workspace.folder,
            env=workspace.environment,
            stdout=out,
            stderr=out,
            text=True,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    """Kill Snakemake and every job of it at once, without a chance to tidy up."""
    family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    os.killpg(process.pid, signal.SIGKILL)
    for member in family:
        if member.is_running():
            member.kill()
    process.wait()


def kill_after(workspace: Workspace, jobs: int, delay: float) -> None:
    """Run until so many jobs have finished and so many seconds have passed, then kill everything."""
    log = workspace.folder / "killed.log"
    with started(workspace, log) as process:
        deadline = time.monotonic() + TIMEOUT
        while log.read_text().count(FINISHED) < jobs and time.monotonic() < deadline and process.poll() is None:
            time.sleep(0.02)
        time.sleep(delay)
        assert process.poll() is None, f"the run was over before the kill:\n{log.read_text()[-3000:]}"
        kill(process)
    workspace.snakemake("--unlock")


@pytest.mark.parametrize("run", range(-(-KILLS // PER_RUN)))
def test_killed_run_ends_as_an_uninterrupted_one(empty: Workspace, finished: Workspace, run: int) -> None:
    plan = moments(run, jobs=len(list(finished.results.rglob("*.timing.json"))))
    for jobs, delay in plan:
        kill_after(empty, jobs, delay)
    assert not (empty.results / "figures" / "runtime.png").exists(), "the last kill came after the end"
    empty.snakemake()
    assert differing(finished.results, empty.results) == []
    assert empty.planned() == {}
