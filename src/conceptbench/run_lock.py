"""The lock of an experiment's results: one run at a time, from whatever checkout or machine it is started.

The lock is a folder with one file that says who holds it. It is filled first and then renamed, which file systems,
also shared ones, do at once and only where no filled folder of that name is.
"""

import json
import os
import shutil
import socket
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil

from conceptbench.errors import ConceptBenchError

LOCK: Final = Path(".work") / "run.lock"
"""Where the lock lies below the results of an experiment."""
_HOLDER = "holder.json"
_SAME_SECONDS = 1.0
"""A process of this number that began at another time than this is another process."""


@dataclass(frozen=True)
class Holder:
    """The run that holds a lock: its machine, process and checkout, and when the process began (seconds since 1970)."""

    host: str
    pid: int
    began: float
    checkout: str

    def __str__(self) -> str:
        """Name it in a sentence."""
        return f"process {self.pid} on {self.host} (checkout {self.checkout})"

    @property
    def gone(self) -> bool:
        """Whether its process is known to have ended, which only its own machine can know."""
        if self.host != socket.gethostname():
            return False
        try:
            return bool(abs(psutil.Process(self.pid).create_time() - self.began) > _SAME_SECONDS)
        except psutil.NoSuchProcess:
            return True


class RunLock:
    """The lock of the results of one experiment, as this process sees it."""

    def __init__(self, results: Path, checkout: Path) -> None:
        """Look at nothing yet; `checkout` is named to whoever finds the lock taken."""
        process = psutil.Process()
        self._results, self.path = results, results / LOCK
        self._me = Holder(socket.gethostname(), process.pid, process.create_time(), str(checkout))

    def holder(self) -> Holder | None:
        """Return the other run that holds the lock, or None: nobody, this process, or one that is known to be gone."""
        found = self._found()
        return None if found is None or found == self._me or found.gone else found

    def require_free(self, doing: str) -> None:
        """Refuse what another run is in the way of.

        Args:
            doing: what the other run is doing, for the sentence: "are being computed".

        Raises:
            ConceptBenchError: when another run holds the lock; names it and what to remove when it is gone.
        """
        if (other := self.holder()) is not None:
            raise ConceptBenchError(
                f"The results in {self._results} {doing} by {other}; wait until it has ended, or give this experiment "
                f"another name. Only if that process is gone, remove {self.path} and run again."
            )

    def take(self) -> None:
        """Take the lock; that of a process of this machine that was killed is taken over.

        Raises:
            ConceptBenchError: when another run holds it, or the disk refuses.
        """
        found = self._found()
        if found == self._me:
            return
        if found is not None and found.gone:
            self._set_aside(found)
        mine = self.path.with_name(f"{self.path.name}.{self._me.host}.{self._me.pid}")
        try:
            mine.mkdir(parents=True, exist_ok=True)
            (mine / _HOLDER).write_text(json.dumps(asdict(self._me)), encoding="utf-8")
            mine.rename(self.path)
        except OSError as error:
            shutil.rmtree(mine, ignore_errors=True)
            self.require_free("are being computed")
            raise ConceptBenchError(f"Cannot lock {self._results}: {error.strerror} ({self.path}).") from error

    def release(self) -> None:
        """Give the lock back if this process holds it."""
        if self._found() == self._me:
            shutil.rmtree(self.path, ignore_errors=True)

    def _found(self) -> Holder | None:
        """Return who the lock names, whether it still runs or not."""
        try:
            return _read(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _set_aside(self, stale: Holder) -> None:
        """Remove the lock of a dead process; one that another run has taken in this moment goes back."""
        aside = self.path.with_name(f"{self.path.name}.of.{stale.pid}.{os.getpid()}")
        try:
            self.path.rename(aside)
            if _read(aside) != stale:
                aside.rename(self.path)
        except FileNotFoundError:  # another run was quicker
            return
        shutil.rmtree(aside, ignore_errors=True)


def _read(lock: Path) -> Holder:
    """Return whom a lock names; one that cannot be read is held by nobody knows whom."""
    try:
        return Holder(**json.loads((lock / _HOLDER).read_text(encoding="utf-8")))
    except (ValueError, TypeError, PermissionError):
        return Holder("an unknown machine", 0, 0.0, "unknown")
