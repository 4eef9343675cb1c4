"""K-SVD against other toolkits: sparse coding in signals/s, and one whole iteration, at what error.

    python -m benchmarks.ksvd            all sizes (about three minutes on two cores)
    python -m benchmarks.ksvd --quick    one small size (seconds)

Signals are sums of 16 of 2,048 random unit atoms in 512 dimensions with coefficients 1 + U[0, 1] and noise of 0.3 of
the signal's norm. All toolkits code the same signals with the same atoms and start an iteration from the same ones;
they run in processes of their own and take turns.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from benchmarks import environments
from benchmarks.common import OURS, WORK, Child, Row, cores, scratch, take_turns, write_results
from conceptbench.errors import ConceptBenchError
from conceptbench.seeds import rng
from conceptbench.tables import atomic_write, digest

Task = Literal["code", "iterate"]
POWER_STEPS: Final = 3
"""Warm-started power steps of our update, which its operations are counted with."""
NAMES: Final[dict[Task, str]] = {"code": "OMP", "iterate": "K-SVD iteration"}


@dataclass(frozen=True, kw_only=True)
class Problem:
    """One size and task."""

    task: Task
    signals: int
    steps: int = 4
    d: int = 512
    width: int = 2048
    k: int = 16
    noise: float = 0.3
    seed: int = 0


@dataclass(frozen=True)
class Contestant:
    """One toolkit in one setting, and the largest number of signals it is asked to bear."""

    toolkit: str
    setting: str
    environment: str | None
    tasks: tuple[Task, ...]
    most_signals: int = 10**9

    @property
    def label(self) -> str:
        """Return a unique name."""
        return f"{self.toolkit} ({self.setting})"


CONTESTANTS: Final = (
    Contestant(OURS, "as shipped", None, ("code", "iterate")),
    Contestant("dictlearn", "batch OMP", "dictlearn", ("code",)),
    Contestant("dictlearn", "ksvd", "dictlearn", ("iterate",)),
    Contestant("dictlearn", "aksvd", "dictlearn", ("iterate",)),
    Contestant("scikit-learn", "orthogonal_mp_gram", None, ("code",), most_signals=2000),
)
FULL: Final = (
    Problem(task="code", signals=2000),
    Problem(task="code", signals=20_000, steps=3),
    Problem(task="iterate", signals=1000),
    Problem(task="iterate", signals=8000, steps=3),
)
QUICK: Final = (
    Problem(task="code", signals=500, d=64, width=256, k=4),
    Problem(task="iterate", signals=500, d=64, width=256, k=4),
)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one small size")
    problems, name = (QUICK, "ksvd_quick") if parser.parse_args().quick else (FULL, "ksvd")
    rows = [row for problem in problems for row in rows_of(problem, *run(problem))]
    settings = {"threads": cores(), "problems": [asdict(problem) for problem in problems]}
    print(f"Wrote {write_results(name, rows, settings)}")


def run(problem: Problem) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the results by label, and the rates of this machine."""
    folder, results, children = scratch(), {}, {}
    request = {**asdict(problem), "threads": cores(), "warm_up": 1, "turn": 1, **files(problem)}
    for contestant in taking_part(problem):
        reason = environments.missing(contestant.environment) if contestant.environment else None
        if reason:
            results[contestant.label] = {"failed": reason}
            continue
        own = contestant.environment is None
        python = Path(sys.executable) if own else environments.python_of(str(contestant.environment))
        asked = {**request, "toolkit": contestant.toolkit, "setting": contestant.setting}
        children[contestant.label] = Child(python, "pursuit.py", asked, folder / contestant.label.replace(" ", "_"))
    for label, result in take_turns(children).items():
        results[label] = {"failed": result} if isinstance(result, str) else result
        print(
            f"  {NAMES[problem.task]}, {problem.signals} signals, {label}: {told(problem, results[label])}", flush=True
        )
    asked = {"d": problem.d, "width": problem.width, "batch": 4096, "steps": 5, "warm_up": 1, "turn": 0}
    rates = take_turns({"": Child(sys.executable, "measure_rates.py", {**asked, "threads": cores()}, folder / "rates")})
    if isinstance(rates[""], str):
        raise ConceptBenchError(f"The rates of this machine could not be measured: {rates['']}.")
    return results, rates[""]


def told(problem: Problem, result: Mapping[str, Any]) -> str:
    """Return a result in words."""
    if "failed" in result:
        return str(result["failed"])
    return f"{speed(problem, result):,.0f} signals/s, relative error {result['relative_error']:.4f}"


def taking_part(problem: Problem) -> list[Contestant]:
    """Return who does this task at this size."""
    return [c for c in CONTESTANTS if problem.task in c.tasks and problem.signals <= c.most_signals]


def speed(problem: Problem, result: Mapping[str, Any]) -> float | None:
    """Return signals/s at the median repetition."""
    return None if "failed" in result else problem.signals / statistics.median(result["step_seconds"])


def operations(problem: Problem) -> int:
    """Return the operations that the task takes at least.

    Coding: products of signals and atoms, and of atoms with each other, and Batch-OMP's update of all correlations at
    each of its k steps. An iteration adds the residual, and power steps and coefficients of all users of every atom.
    """
    n, d, m, k = problem.signals, problem.d, problem.width, problem.k
    coding = 2 * n * m * d + 2 * m * m * d + n * m * k * k
    return coding if problem.task == "code" else coding + (2 + 4 * POWER_STEPS + 4) * n * k * d


def rows_of(problem: Problem, results: Mapping[str, Any], rates: Mapping[str, Any]) -> list[Row]:
    """Return the rows of one problem."""
    speeds = {c.label: speed(problem, results[c.label]) for c in taking_part(problem)}
    peers = [s for c in taking_part(problem) if c.toolkit != OURS and (s := speeds[c.label]) is not None]
    least = operations(problem) / rates["fp32_operations_per_s"]
    rows = []
    for contestant in taking_part(problem):
        result, value = results[contestant.label], speeds[contestant.label]
        common: dict[str, Any] = {
            "toolkit": contestant.toolkit, "method": NAMES[problem.task], "setting": contestant.setting,
            "shapes": {name: getattr(problem, name) for name in ("d", "width", "k", "signals")},
            "rate": "signals_per_s", "value": value,
        }  # fmt: skip
        if value is None:
            rows.append(Row(**common, note=result["failed"]))
            continue
        rows.append(
            Row(
                **common, version=result["versions"][contestant.toolkit], peak_rss_mib=result["peak_rss_mib"],
                fvu=result["relative_error"] ** 2, ratio_to_fastest_peer=value / max(peers) if peers else None,
                share_of_floor=least * value / problem.signals,
                more={
                    "relative_error": result["relative_error"], "operations": operations(problem),
                    "step_seconds": [round(s, 4) for s in result["step_seconds"]],
                },
            )
        )  # fmt: skip
    return rows


def files(problem: Problem) -> dict[str, str]:
    """Return the paths of signals and atoms: for coding the true atoms, for an iteration random ones."""
    names = ("d", "width", "k", "noise", "seed", "signals", "task")
    stem = WORK / "signals" / digest({name: getattr(problem, name) for name in names})[:16]
    paths = {"signals_file": stem.with_suffix(".signals"), "atoms_file": stem.with_suffix(".atoms")}
    if not all(path.is_file() for path in paths.values()):
        signals, true = planted(problem)
        other = unit(rng(problem.seed, "ksvd", "start").standard_normal(true.shape))
        for path, values in zip(paths.values(), (signals, true if problem.task == "code" else other), strict=True):
            with atomic_write(path) as temporary:
                values.astype(np.float32).tofile(temporary)
    return {name: str(path) for name, path in paths.items()}


def planted(problem: Problem) -> tuple[np.ndarray, np.ndarray]:
    """Return signals (n, d) and the atoms (m, d) they are made of."""
    atoms = unit(rng(problem.seed, "ksvd", "atoms").standard_normal((problem.width, problem.d)))
    draw = rng(problem.seed, "ksvd", "signals")
    signals = np.empty((problem.signals, problem.d))
    for row in range(problem.signals):
        chosen = draw.choice(problem.width, problem.k, replace=False)
        signals[row] = (1 + draw.random(problem.k)) @ atoms[chosen]
    noise = unit(draw.standard_normal(signals.shape))
    return signals + problem.noise * np.linalg.norm(signals, axis=1, keepdims=True) * noise, atoms


def unit(rows: np.ndarray) -> np.ndarray:
    """Return rows of norm 1."""
    scaled: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return scaled


if __name__ == "__main__":
    try:
        main()
    except ConceptBenchError as error:
        sys.exit(f"Error: {error}")
