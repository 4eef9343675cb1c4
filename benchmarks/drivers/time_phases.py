"""Steps of our TopK engine with a clock around each phase, alternating with the rates that its floor is made of."""

import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from child import Tokens, finish, read_request
from measure_rates import Rates

from conceptbench.dictionaries import candidates, selection, sparse_step, topk_fused
from conceptbench.dictionaries.learner import Parameters, unit_rows
from conceptbench.dictionaries.specs import TopK

PHASES = (
    ("product", candidates.torch, "mm"),
    ("product", candidates, "product"),
    ("selection", selection, "parallel_largest"),
    ("reconstruction", topk_fused, "explain"),
    ("update", sparse_step.SparseAdam, "update"),
)


def main() -> None:
    request = read_request()
    torch.set_num_threads(request["threads"])
    generator = torch.Generator().manual_seed(0)
    atoms = unit_rows(torch.randn(request["width"], request["d"], generator=generator))
    zeros = torch.zeros(request["width"]), torch.zeros(request["d"])
    spec = TopK(name="phases", width=request["width"], k=request["k"], batch_size=request["batch"])
    engine = topk_fused.FusedTopK(Parameters(atoms, atoms.clone(), *zeros), spec, request["setting"])
    tokens = Tokens({**request, "turn": 0})
    nothing_dead = torch.zeros(0, dtype=torch.int64)
    rates, clock = Rates(request), Clock()
    steps: dict[str, list[float]] = defaultdict(list)
    for repetition in range(request["steps"]):
        rates.measure()
        with clock:
            batch = torch.from_numpy(next(tokens))
            began = time.perf_counter()
            engine.step(batch, nothing_dead, 1e-4)
            total = time.perf_counter() - began
        if repetition >= request["warm_up"]:
            steps["step"].append(total)
            for phase in dict.fromkeys(phase for phase, _, _ in PHASES):
                steps[phase].append(clock.seconds[phase])
            steps["rest"].append(total - sum(clock.seconds.values()))
        clock.seconds.clear()
    phases = {phase: round(statistics.median(values), 4) for phase, values in steps.items() if phase != "step"}
    measured = {"step_seconds": steps["step"], "phases": phases, "rates": rates.summary(request["warm_up"])}
    finish(request, packages=("conceptbench", "torch"), measured=measured)


class Clock:
    """Inside it, calls of the phases are timed; a phase that runs several times adds up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._originals: list[tuple[Any, str, Callable]] = []

    def __enter__(self) -> "Clock":
        for phase, owner, name in PHASES:
            original = getattr(owner, name)
            self._originals.append((owner, name, original))
            setattr(owner, name, self._timed(phase, original))
        return self

    def __exit__(self, *_: object) -> None:
        for owner, name, original in self._originals:
            setattr(owner, name, original)
        self._originals.clear()

    def _timed(self, phase: str, original: Callable) -> Callable:
        def call(*arguments, **options):
            began = time.perf_counter()
            try:
                return original(*arguments, **options)
            finally:
                self.seconds[phase] += time.perf_counter() - began

        return call


if __name__ == "__main__":
    main()
