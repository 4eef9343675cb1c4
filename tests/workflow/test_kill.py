"""kill -9 at random moments of the smoke experiment: whatever was being written, the end is the uninterrupted one.

A run is killed up to four times, continued after each, and compared when it has ended. CONCEPTBENCH_KILLS says how
often in all: 3 with the other tests, 20 with `make kill-test`.
"""

import os
import random
import time
from pathlib import Path

import pytest

from .equality import differences
from .evidence import keep_both
from .processes import TAIL, kill, session
from .workspace import TIMEOUT, Workspace

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

KILLS = int(os.environ.get("CONCEPTBENCH_KILLS", "3"))
PER_RUN = 4
LONGEST_DELAY = 6.0
"""Seconds: a kill comes at random within this time after a job has ended, so in start-up, in work and in writing."""


def moments(run: int, jobs: int) -> list[tuple[int, float]]:
    """When to kill a run of so many jobs: how many have then finished since its beginning, and how many seconds ago."""
    random_of = random.Random(f"kill {run}")
    kills = min(PER_RUN, KILLS - run * PER_RUN)
    return [
        (finished, random_of.uniform(0, LONGEST_DELAY)) for finished in sorted(random_of.sample(range(jobs), kills))
    ]


def finished_jobs(results: Path) -> int:
    """Jobs that have come to their end so far, each counted once, however often the run was killed."""
    return len(list((results / "logs").glob("**/*.timing.json")))


def kill_after(workspace: Workspace, finished: int, delay: float, jobs: int) -> None:
    """Run until so many jobs have finished and so many seconds have passed, or only the last job is left; then kill."""
    log = workspace.folder / "killed.log"
    with log.open("a") as out, session(workspace.command(), workspace.folder, workspace.environment, out) as process:
        deadline = time.monotonic() + TIMEOUT
        while (done := finished_jobs(workspace.results)) < finished and process.poll() is None:
            assert time.monotonic() < deadline, f"{done} jobs in {TIMEOUT} s:\n{log.read_text()[-TAIL:]}"
            time.sleep(0.02)
        deadline = time.monotonic() + delay
        while time.monotonic() < deadline and finished_jobs(workspace.results) < jobs - 1:
            time.sleep(0.02)
        assert process.poll() is None, f"the run was over before the kill:\n{log.read_text()[-TAIL:]}"
        kill(process)
        out.write(f"killed when {finished_jobs(workspace.results)} of {jobs} jobs had finished\n")
    workspace.snakemake("--unlock")


@pytest.mark.parametrize("run", range(-(-KILLS // PER_RUN)))
def test_killed_run_ends_as_an_uninterrupted_one(
    unstarted: Workspace, finished: Workspace, run: int, request: pytest.FixtureRequest
) -> None:
    jobs = finished_jobs(finished.results)
    for moment, delay in moments(run, jobs):
        kill_after(unstarted, moment, delay, jobs)
    assert not (unstarted.results / "manifest.json").exists(), "the last kill came after the end"
    unstarted.snakemake()
    changed = differences(finished.results, unstarted.results)
    if changed:
        kept = keep_both(finished.results, unstarted.results, changed, request.node.nodeid)
        pytest.fail(f"{len(changed)} file(s) differ, both versions are in {kept}:\n{changed}")
    assert unstarted.planned() == {}
