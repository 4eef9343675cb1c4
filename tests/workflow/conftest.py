"""One run of the smoke experiment in a copy of the tree, shared by all workflow tests."""

import shutil
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from .evidence import keep_logs
from .processes import stop_on_sigterm
from .workspace import Workspace, copy_tree

FAILED = pytest.StashKey[bool]()


@pytest.fixture(scope="session", autouse=True)
def _stopped_by_sigterm() -> None:
    stop_on_sigterm()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Let fixtures see whether their test has failed."""
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


@contextmanager
def removed_at_the_end(workspace: Workspace, request: pytest.FixtureRequest) -> Iterator[Workspace]:
    """A workspace of one test; when the test fails, its logs are kept."""
    yield workspace
    if request.node.stash.get(FAILED, False):
        print(f"the logs are kept in {keep_logs(workspace, request.node.nodeid)}")
    shutil.rmtree(workspace.folder)


def computed_once(shared: Path) -> Workspace:
    """The smoke experiment in a folder that all workers of this session see; the first to come computes it."""
    workspace, done = Workspace(shared / "smoke"), shared / "smoke.done"
    with FileLock(shared / "smoke.lock"):
        if not done.exists():
            shutil.rmtree(workspace.folder, ignore_errors=True)
            copy_tree(workspace.folder).snakemake()
            done.touch()
    return workspace


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Iterator[Workspace]:
    """The smoke experiment, computed once for all workers; each has its own copy, and tests leave it as it was."""
    base = tmp_path_factory.getbasetemp()
    computed = computed_once(base if worker_id == "master" else base.parent)
    copied = computed.copy(tmp_path_factory.mktemp("finished") / "checkout")
    yield copied
    shutil.rmtree(copied.folder)


@pytest.fixture
def workspace(finished: Workspace, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Workspace]:
    """A copy of the finished experiment that a test may change."""
    with removed_at_the_end(finished.copy(tmp_path / "checkout"), request) as copied:
        yield copied


@pytest.fixture
def empty(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Workspace]:
    """A copy of the tree without results."""
    with removed_at_the_end(copy_tree(tmp_path / "checkout"), request) as copied:
        yield copied


@pytest.fixture
def unstarted(finished: Workspace, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Workspace]:
    """The tree of the finished experiment without its results: the same code, whatever was edited meanwhile."""
    with removed_at_the_end(copy_tree(tmp_path / "checkout", finished.folder), request) as copied:
        yield copied
