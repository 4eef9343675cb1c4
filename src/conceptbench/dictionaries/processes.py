"""Processes of this machine that learn together: started as `torchrun` does, and all ended when one of them fails.

Who starts them (`run_group`) and what each of them runs (`member`) share a folder. In it they meet, and the first that
fails says why: later ones only know that a neighbour is gone. A process whose starter is gone, however it ended, ends
itself, so that none is left behind.
"""

import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NoReturn

import torch

from conceptbench.dictionaries.distributed import group
from conceptbench.errors import ConceptBenchError

_MEETING: Final = "meeting"
_FAILURE: Final = "failure.txt"
_LOOKS_PER_SECOND: Final = 10
_THREADS: Final = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


def run_group(command: Sequence[str], processes: int, folder: Path, threads: int) -> None:
    """Run a command in several processes, each of which takes part by `member`; what they print goes where this prints.

    Args:
        command: of each process. processes: how many, one a GPU.
        folder: empty but for what the command reads; gone through by one group only.
        threads: of all processes together.

    Raises:
        ConceptBenchError: when one fails, with its sentence; the others are ended before.
    """
    started: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(processes):
            environment = {**os.environ, **_environment(rank, processes, max(1, threads // processes))}
            started.append(subprocess.Popen(command, env=environment, stdin=subprocess.PIPE))
        while any(process.poll() is None for process in started):
            _refuse_failure(started, folder)
            time.sleep(1 / _LOOKS_PER_SECOND)
        _refuse_failure(started, folder)
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.communicate()


@contextmanager
def member(folder: Path, device: str) -> Iterator[torch.device]:
    """Take part in the group that `run_group` started with this folder; yields the device of this process.

    An error is printed and ends the process at once: one that waits for its neighbours cannot be ended in order.

    Args:
        folder: as given to `run_group`. device: `cuda` or `cpu`, as for `group`.
    """
    threading.Thread(target=_end_with_starter, daemon=True).start()
    with _failing_at_once(folder), group(device, folder / _MEETING) as place, _failing_at_once(folder):
        yield place


def _environment(rank: int, processes: int, threads: int) -> Mapping[str, str]:
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes}
    return {name: str(value) for name, value in (*places.items(), *((name, threads) for name in _THREADS))}


def _refuse_failure(started: Sequence["subprocess.Popen[bytes]"], folder: Path) -> None:
    """Raise ConceptBenchError when a process was ended by a signal, or has failed with a sentence or without one."""
    codes = [process.poll() for process in started]
    ended = [(rank, code) for rank, code in enumerate(codes) if code]
    for rank, code in ended:
        if code < 0:
            raise ConceptBenchError(
                f"Process {rank + 1} of {len(codes)} that learn together was ended by {signal.Signals(-code).name}, "
                "perhaps for lack of memory; the others were ended too."
            )
    if (failure := folder / _FAILURE).exists():
        raise ConceptBenchError(failure.read_text(encoding="utf-8"))
    if ended:
        rank, code = ended[0]
        raise ConceptBenchError(f"Process {rank + 1} of {len(codes)} that learn together ended with status {code}.")


def _end_with_starter() -> None:
    """End this process when the one that started it is gone: its end of the pipe is closed then."""
    while os.read(0, 1):
        pass
    os._exit(1)


@contextmanager
def _failing_at_once(folder: Path) -> Iterator[None]:
    try:
        yield
    except ConceptBenchError as error:
        _fail(folder, str(error))
    except Exception as error:
        traceback.print_exc()
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        _fail(folder, f"One of the processes that learn together stopped with {what}; the log has the traceback.")


def _fail(folder: Path, sentence: str) -> NoReturn:
    """Note the sentence, unless another process has failed before, and end this process."""
    whole = folder / f"{_FAILURE}.{os.getpid()}"
    whole.write_text(sentence, encoding="utf-8")
    try:
        os.link(whole, folder / _FAILURE)
    except FileExistsError:
        print(f"Error: {sentence}", file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)
