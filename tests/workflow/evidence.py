"""What a failed test leaves to read: the logs of its workflow, and both versions of files that differ."""

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from .workspace import ROOT, Workspace

KEPT = Path(os.environ.get("CONCEPTBENCH_KEPT", str(ROOT / ".kept")))
"""Where it is kept, by the name of the test."""
LOGS = ("*.log", ".snakemake/log", "results/*/logs", "results/*/stamps")


def place(test: str) -> Path:
    """The folder of a test, named by its node."""
    return KEPT / test.replace("/", "-").replace("::", "-")


def keep_logs(workspace: Workspace, test: str) -> Path:
    """Copy the logs of a workflow; returns the folder of the test, in which nothing of an earlier failure is left."""
    folder = place(test)
    shutil.rmtree(folder / "logs", ignore_errors=True)
    for found in sorted(path for pattern in LOGS for path in workspace.folder.glob(pattern)):
        target = folder / "logs" / found.relative_to(workspace.folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(found, target) if found.is_dir() else shutil.copy2(found, target)
    return folder


def keep_both(expected: Path, found: Path, names: Iterable[str], test: str) -> Path:
    """Copy the files of these names, of the results that were expected and of those that were found."""
    folder = place(test)
    for side, results in (("expected", expected), ("found", found)):
        shutil.rmtree(folder / side, ignore_errors=True)
        for name in names:
            if (results / name).is_file():
                (folder / side / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(results / name, folder / side / name)
    return folder
