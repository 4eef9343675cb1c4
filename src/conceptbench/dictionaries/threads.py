"""One number of threads for torch and the compiled loops."""

from typing import Final

import numba
import torch

RANGES_PER_THREAD: Final = 8


def share_threads() -> None:
    """Let the compiled loops use as many threads as torch does.

    The two share one OpenMP runtime, whose thread count numba resets when it starts.
    """
    threads = torch.get_num_threads()
    wanted = min(threads, numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
    if numba.get_num_threads() != wanted:
        numba.set_num_threads(wanted)
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def ranges() -> int:
    """Return into how many ranges a loop is cut: several for each thread, one when there is one thread."""
    threads = torch.get_num_threads()
    return RANGES_PER_THREAD * threads if threads > 1 else 1
