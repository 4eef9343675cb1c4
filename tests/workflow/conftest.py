"""One run of the smoke experiment in a copy of the tree, shared by all workflow tests."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from .workspace import Workspace, copy_tree


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
def workspace(finished: Workspace, tmp_path: Path) -> Iterator[Workspace]:
    """A copy of the finished experiment that a test may change."""
    copied = finished.copy(tmp_path / "checkout")
    yield copied
    shutil.rmtree(copied.folder)


@pytest.fixture
def empty(tmp_path: Path) -> Iterator[Workspace]:
    """A copy of the tree without results."""
    copied = copy_tree(tmp_path / "checkout")
    yield copied
    shutil.rmtree(copied.folder)
