"""What the benchmarks share: where things lie, rows, the machine, and processes that take turns."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Literal, get_args

from conceptbench.errors import ConceptBenchError
from conceptbench.provenance import describe_code, describe_machine
from conceptbench.tables import read_json, write_json

FOLDER: Final = Path(__file__).resolve().parent
ROOT: Final = FOLDER.parent
RESULTS: Final = FOLDER / "results"
WORK: Final = FOLDER / ".work"
DRIVERS: Final = FOLDER / "drivers"
OURS: Final = "conceptbench"

Rate = Literal["tokens_per_s", "signals_per_s", "images_per_s", "steps_per_s", "sweeps_per_s", "gib_per_s"]


@dataclass(frozen=True, kw_only=True)
class Row:
    """One measurement, or why there is none."""

    toolkit: str
    method: str
    shapes: Mapping[str, int]
    rate: Rate
    value: float | None
    version: str | None = None
    setting: str = "as shipped"
    device: str = "cpu"
    peak_rss_mib: float | None = None
    fvu: float | None = None
    ratio_to_fastest_peer: float | None = None
    share_of_floor: float | None = None
    note: str = ""
    more: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what a reader could not use: a rate that is none, a missing value without a reason."""
        if self.rate not in get_args(Rate):
            raise ConceptBenchError(f"'{self.rate}' of {self.toolkit} is no rate; use one of {get_args(Rate)}.")
        if self.value is None and not self.note:
            raise ConceptBenchError(f"The row of {self.toolkit} ({self.method}) has no value; say why in its note.")
        if self.value is not None and not self.value > 0:
            raise ConceptBenchError(f"The rate of {self.toolkit} ({self.method}) is {self.value}; measure again.")

    def flat(self) -> dict[str, Any]:
        """Return the row as it stands in the file; the rate is named by its unit."""
        fixed = (
            "toolkit", "version", "method", "setting", "device", "peak_rss_mib", "fvu", "ratio_to_fastest_peer",
            "share_of_floor", "note",
        )  # fmt: skip
        row: dict[str, Any] = {name: getattr(self, name) for name in fixed}
        clash = (set(self.shapes) | set(self.more)) & {*fixed, self.rate}
        if clash:
            raise ConceptBenchError(f"The row of {self.toolkit} names {sorted(clash)} twice; rename a shape.")
        return {**row, **self.shapes, self.rate: self.value, **self.more}


def write_results(name: str, rows: Sequence[Row], settings: Mapping[str, Any]) -> Path:
    """Write `benchmarks/results/<name>.json`: the machine once, how it was measured, and the rows."""
    libraries = ("torch", "numpy", "numba", "scikit-learn")
    path = RESULTS / f"{name}.json"
    write_json(
        {
            "benchmark": name,
            "machine": describe_machine(),
            "code": describe_code(),
            "versions": {library: metadata.version(library) for library in libraries},
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "settings": dict(settings),
            "rows": [row.flat() for row in rows],
        },
        path,
    )
    return path


def cores() -> int:
    """Return the number of cores this process may use: the threads of every toolkit."""
    return len(os.sched_getaffinity(0))


class Child:
    """A driver in a process of its own, which rests when its turn is over."""

    def __init__(self, python: Path | str, script: str, request: Mapping[str, Any], folder: Path) -> None:
        """Prepare the process; it starts with `wait`, so that drivers load one after another."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        self.folder = folder
        self.turns = max(1, -(-(request["steps"] - request["warm_up"]) // max(1, request["turn"])))
        self._rest, writing = os.pipe()
        threads = str(request["threads"])
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
        environment = {
            **os.environ, **dict.fromkeys(names, threads), "BENCHMARK_REST": str(writing), "WANDB_MODE": "disabled",
            "HF_HUB_OFFLINE": "1", "SPARSIFY_DISABLE_TRITON": "1",
        }  # fmt: skip
        if str(python) != sys.executable:
            environment.pop("PYTHONPATH", None)
        self._command = [str(python), str(DRIVERS / script), str(folder / "request.json")]
        self._environment, self._writing = environment, writing
        self._process: subprocess.Popen[bytes] | None = None

    def wait(self) -> bool:
        """Wait until the process, which is started if need be, rests (True) or has ended (False)."""
        if self._process is None:
            with (self.folder / "log").open("w") as log:
                self._process = subprocess.Popen(
                    self._command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT,
                    pass_fds=(self._writing,), env=self._environment,
                )  # fmt: skip
            os.close(self._writing)
        return bool(os.read(self._rest, 1))

    def go(self) -> None:
        """Let it have its next turn."""
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()

    def result(self) -> dict[str, Any]:
        """Return what the driver measured, after its end.

        Raises:
            ConceptBenchError: when it failed; the last line it printed is in the message.
        """
        assert self._process is not None
        code = self._process.wait()
        os.close(self._rest)
        if code:
            printed = (self.folder / "log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
            raise ConceptBenchError(f"{(printed or ['no message'])[-1]} (see {self.folder / 'log'})")
        return dict(read_json(self.folder / "result.json"))


def take_turns(children: Mapping[str, Child]) -> dict[str, dict[str, Any] | str]:
    """Run all drivers turn by turn, one at a time; return each one's result, or the reason of its failure.

    The drivers load and warm up one after another, before any of them is timed. The next turn goes to the one that has
    had the smallest share of its turns, so that drivers with few turns are spread over the whole time.
    """
    resting = {name: 0 for name, child in children.items() if child.wait()}
    while resting:
        name = min(resting, key=lambda name: resting[name] / children[name].turns)
        resting[name] += 1
        children[name].go()
        if not children[name].wait():
            del resting[name]
    results: dict[str, dict[str, Any] | str] = {}
    for name, child in children.items():
        try:
            results[name] = child.result()
        except ConceptBenchError as error:
            results[name] = str(error)
    return results


def remembered(name: str, request: Mapping[str, Any]) -> Path:
    """Return where the result of a request is kept, so that a benchmark that was stopped goes on where it was."""
    key = hashlib.sha256(json.dumps(request, sort_keys=True, default=str).encode()).hexdigest()[:16]
    return WORK / name / key


def scratch() -> Path:
    """Return a new folder for one group of drivers."""
    (WORK / "runs").mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=WORK / "runs"))
