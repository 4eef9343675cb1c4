"""One run of the smoke experiment in a copy of the tree, shared by all workflow tests."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from .workspace import Workspace, copy_tree


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """The smoke experiment, computed once; tests leave it as they found it."""
    workspace = copy_tree(tmp_path_factory.mktemp("smoke") / "checkout")
    workspace.snakemake()
    yield workspace
    shutil.rmtree(workspace.folder)


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
