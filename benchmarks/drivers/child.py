"""What the drivers share. It runs inside the environments of the peers, so it needs numpy only.

A driver gets one argument, the path of its request (JSON), and leaves `result.json` and, where asked for,
`reconstruction.npy` beside it. Its training loop pulls batches from `Tokens`: a step lasts from the moment a batch was
handed over to the moment the next one is asked for, whatever the toolkit does in between.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np


def read_request() -> dict[str, Any]:
    """Return the request of this process, with `folder` added: where results go."""
    path = Path(sys.argv[1])
    return {**json.loads(path.read_text(encoding="utf-8")), "folder": str(path.parent)}


class Tokens:
    """Batches read one by one from a flat float32 file; notes when each was handed over and when the next was wanted.

    The process waits for its turn every `turn` batches, so that the toolkits alternate; waiting is not counted.
    """

    def __init__(self, request: dict[str, Any]) -> None:
        """Start before the first batch."""
        self._path = request["tokens_file"]
        self._batch, self._d, self._steps = request["batch"], request["d"], request["steps"]
        self._warm_up, self._turn = request["warm_up"], request["turn"]
        self._handed_over: float | None = None
        self.served = 0
        self.step_seconds: list[float] = []

    def __iter__(self) -> "Tokens":
        """Return itself: there is one pass."""
        return self

    def __next__(self) -> np.ndarray:
        """Return the next batch, shape (batch, d)."""
        now = time.perf_counter()
        if self._handed_over is not None and self.served > self._warm_up:
            self.step_seconds.append(now - self._handed_over)
        if self.served >= self._steps:
            self._handed_over = None
            raise StopIteration
        past = self.served - self._warm_up
        if self._turn and past >= 0 and past % self._turn == 0:
            wait_for_turn()
        count = self._batch * self._d
        values = np.fromfile(self._path, np.float32, count, offset=4 * count * self.served)
        self.served += 1
        self._handed_over = time.perf_counter()
        return values.reshape(self._batch, self._d)


def wait_for_turn() -> None:
    """Tell the parent that this process rests, and wait until it may go on."""
    if "BENCHMARK_REST" in os.environ:
        os.write(int(os.environ["BENCHMARK_REST"]), b".")
        sys.stdin.readline()


def peak_rss_mib() -> float:
    """Return the most resident memory this process ever had.

    Read from the kernel's account of the program now running: `ru_maxrss` would start at the parent's size.
    """
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("no VmHWM in /proc/self/status; the memory of a benchmark is measured on Linux only")


def version(package: str) -> str:
    """Return the version of a package, also of one that is imported from a checkout and not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return str(sys.modules[package].__version__)


def finish(
    request: dict[str, Any],
    *,
    packages: tuple[str, ...],
    measured: dict[str, Any],
    reconstruct: Callable[[np.ndarray], np.ndarray] | None = None,
) -> None:
    """Write what was measured; the reconstruction of the held-out tokens is made after the peak was read."""
    folder = Path(request["folder"])
    result = {
        **measured,
        "peak_rss_mib": peak_rss_mib(),
        "versions": {name: version(name) for name in (*packages, "numpy")},
    }
    if reconstruct is not None and request.get("held_out_file"):
        held_out = np.fromfile(request["held_out_file"], np.float32).reshape(-1, request["d"])
        pieces = np.split(held_out, range(request["batch"], len(held_out), request["batch"]))
        np.save(folder / "reconstruction.npy", np.concatenate([reconstruct(piece) for piece in pieces]))
    (folder / "result.json").write_text(json.dumps(result), encoding="utf-8")
