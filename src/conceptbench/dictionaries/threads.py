"""One number of threads for torch and the compiled loops."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import count
from typing import Any, Final

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


def spread(loop: Callable[..., object], n: int, *arguments: Any) -> None:
    """Run the compiled `loop(begin, end, *arguments)` over all of range(n), in as many threads as torch uses.

    The loop lets go of Python's lock (`nogil`), and what it writes for one index does not depend on the others. Threads
    of Python's own cost less than compiling every loop a second time for numba's.
    """
    threads = torch.get_num_threads()
    parts = min(n, RANGES_PER_THREAD * threads)
    if threads == 1 or parts < 2:
        loop(0, n, *arguments)
        return
    following = count()

    def work() -> None:
        """Take the next range until there is none; `next` hands each out once."""
        while (i := next(following)) < parts:
            loop(i * n // parts, (i + 1) * n // parts, *arguments)

    others = [_pool(threads).submit(work) for _ in range(threads - 1)]
    work()
    for other in others:
        other.result()


@lru_cache(maxsize=1)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="loops")
