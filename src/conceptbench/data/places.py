"""Where files may be put: below the folder they belong to, and on a disk that has the room."""

import shutil
from pathlib import Path, PurePosixPath

from conceptbench.errors import ConceptBenchError

GIGA = 1e9


def leads_outside(name: str) -> bool:
    """Whether a path that should be relative to a folder leads out of it: absolute, with a drive, or with `..`."""
    path = PurePosixPath(name.replace("\\", "/"))
    drive = bool(path.parts) and path.parts[0].endswith(":")
    return path.is_absolute() or drive or ".." in path.parts


def require_room(folder: Path, needed: float, what: str) -> None:
    """Raise ConceptBenchError when `folder`, which exists, lies on a disk with less than `needed` bytes free.

    `what` is the beginning of the sentence, up to the size.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ConceptBenchError(
            f"{what} {needed / GIGA:.1f} GB, but {folder} has {free / GIGA:.1f} GB; free some room."
        )
