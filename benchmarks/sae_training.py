"""TopK training against other toolkits: tokens/s, peak memory, and the FVU reached after the same tokens.

    python -m benchmarks.sae_training            all widths (about 35 minutes on two cores)
    python -m benchmarks.sae_training --quick    one small width, to see that every toolkit runs (about a minute)
    python -m benchmarks.sae_training --tune     choose each toolkit's learning rate (benchmarks/learning_rates.json)

Every toolkit trains with its own loop on the same batches in the same order, in a process of its own, all with the same
torch and as many threads as there are cores. They take turns of a few steps. A width that was measured is kept in
benchmarks/.work and not measured again at the same revision, unless --fresh is given.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from benchmarks import environments
from benchmarks.common import FOLDER, OURS, WORK, Child, Row, cores, remembered, scratch, take_turns, write_results
from benchmarks.floor import Precision, Shape, floor
from benchmarks.tokens import CHUNK, Planted, token_file
from conceptbench.dictionaries.evaluate import FvuCalculator
from conceptbench.errors import ConceptBenchError
from conceptbench.provenance import describe_code
from conceptbench.tables import read_json, write_json

RATES: Final = FOLDER / "learning_rates.json"
TUNING_REACH: Final = 8
"""Largest exponent j of the multiples 3^(j/2) that are tried."""
DIVERGED: Final = 1e9
"""Stands for the FVU of a training that did not stay finite."""
HELD_OUT_CHUNKS: Final = 4
HEAD_STEPS: Final = 16
"""Our `learn` reads this many batches before its first step, to fit the normaliser; they are trained on too."""
SEED: Final = 0


@dataclass(frozen=True)
class Toolkit:
    """One way to train, in one setting."""

    name: str
    setting: str
    default_rate: Callable[[int], float]
    """The toolkit's own learning rate for a width."""
    script: str
    package: str
    environment: str | None
    """None: the project's own."""
    note: str = ""
    precision: Precision = "fp32"
    """What the encoder product is computed in, and its floor."""
    offered: bool = True
    """Whether the toolkit has this setting; if not, it was changed for this benchmark."""

    @property
    def label(self) -> str:
        """Return a unique name."""
        return f"{self.name} ({self.setting})"


def by_root_of_width(base: float) -> Callable[[int], float]:
    """Return the rule lr = base / sqrt(width / 2^14)."""
    return lambda width: base / (width / 2**14) ** 0.5


def constant(rate: float) -> Callable[[int], float]:
    """Return a rule that does not look at the width."""
    return lambda width: rate


OURS_FAST: Final = Toolkit(
    OURS, "as shipped", by_root_of_width(1e-3 / 8**0.5), "train_conceptbench.py", "conceptbench", None,
    "latents silent for 100,000 tokens count as dead and take part in the auxiliary loss", "bf16",
)  # fmt: skip
"""Its default rate, 1e-3, is taken at width 2,048; the rule is that of sparsify and dictionary_learning."""
TOOLKITS: Final = (
    OURS_FAST,
    replace(OURS_FAST, setting="none dead", note="no latent counts as dead, as in the peers within so few tokens"),
    replace(OURS_FAST, setting="fp32", note="bf16 switched off, and no latent counts as dead", precision="fp32"),
    Toolkit(
        "sparsify", "as shipped", by_root_of_width(5e-3), "train_sparsify.py", "eai-sparsify", "sparsify",
        "signed momentum, schedule-free; its autocast is for CUDA only",
    ),
    Toolkit(
        "sparsify", "bf16", by_root_of_width(5e-3), "train_sparsify.py", "eai-sparsify", "sparsify",
        "changed: its forward pass in bf16 autocast for the CPU, as it has it for CUDA", "bf16", offered=False,
    ),
    Toolkit(
        "overcomplete", "as shipped", constant(5e-4), "train_overcomplete.py", "overcomplete", "overcomplete",
        "batch normalisation in the encoder: its default",
    ),
    Toolkit(
        "dictionary_learning", "as shipped", by_root_of_width(2e-4), "train_dictionary_learning.py",
        "dictionary-learning", "dictionary_learning", "autocast is switched off on a CPU by itself",
    ),
    Toolkit("sae_lens", "as shipped", constant(3e-4), "train_sae_lens.py", "sae-lens", "sae_lens"),
    Toolkit(
        "sae_lens", "bf16", constant(3e-4), "train_sae_lens.py", "sae-lens", "sae_lens", "its option autocast=True",
        "bf16",
    ),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Group:
    """One width: what every toolkit does before the next width."""

    width: int
    steps: int
    turn: int
    """Steps in a turn; 0 lets every toolkit finish before the next starts, where memory is short."""
    d: int = 768
    k: int = 32
    batch: int = CHUNK

    def request(self, toolkit: Toolkit, rate: float, threads: int) -> dict[str, Any]:
        """Return what the driver of a toolkit is asked for."""
        return {
            "d": self.d, "width": self.width, "k": self.k, "batch": self.batch, "steps": self.steps, "turn": self.turn,
            "warm_up": HEAD_STEPS if toolkit.name == OURS else 1, "lr": rate, "seed": SEED, "threads": threads,
            "setting": toolkit.setting,
        }  # fmt: skip


FULL: Final = (
    Group(width=6144, steps=40, turn=3),
    Group(width=16_384, steps=32, turn=4),
    Group(width=49_152, steps=20, turn=0),
)
QUICK: Final = (Group(width=1024, steps=20, turn=4, d=256, k=16),)
TUNING: Final = Group(width=2048, steps=40, turn=0)
"""The best multiple is found here and taken to the other widths by the rule of each toolkit."""


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one small width")
    parser.add_argument("--tune", action="store_true", help="choose learning rates instead of measuring")
    parser.add_argument("--fresh", action="store_true", help="measure again what was measured before")
    parser.add_argument("--only", nargs="+", metavar="TOOLKIT", help="some toolkits only, with --tune")
    arguments = parser.parse_args()
    if arguments.tune:
        tune(TUNING, arguments.only)
        return
    groups, name = (QUICK, "sae_training_quick") if arguments.quick else (FULL, "sae_training")
    rows = [row for group in groups for row in rows_of(group, measured(group, arguments.fresh))]
    settings = {
        "threads": cores(), "tokens": asdict(Planted(d=groups[0].d)), "held_out_tokens": HELD_OUT_CHUNKS * CHUNK,
        "groups": [asdict(group) for group in groups], "learning_rates": read_json(RATES) if RATES.is_file() else None,
    }  # fmt: skip
    print(f"Wrote {write_results(name, rows, settings)}")


def measured(group: Group, fresh: bool) -> dict[str, Any]:
    """Return the raw results of a group by label, measured now or remembered."""
    key = remembered("sae_training", {**asdict(group), "threads": cores(), "code": describe_code()})
    path = key.with_suffix(".json")
    if path.is_file() and not fresh:
        print(f"width {group.width}: measured before ({path})", flush=True)
        return dict(read_json(path))
    print(f"width {group.width}: {len(TOOLKITS)} toolkits", flush=True)
    results = run(group, TOOLKITS, {toolkit.label: chosen_rate(toolkit, group.width) for toolkit in TOOLKITS})
    results["rates"] = run_rates(group)
    write_json(results, path)
    return results


def run(group: Group, toolkits: Sequence[Toolkit], rates: Mapping[str, float]) -> dict[str, Any]:
    """Train with every toolkit that is installed, by turns; what failed has its reason instead of a result."""
    folder, results, children = scratch(), {}, {}
    for toolkit in toolkits:
        reason = environments.missing(toolkit.environment) if toolkit.environment else None
        if reason:
            results[toolkit.label] = {"failed": reason}
            continue
        request = group.request(toolkit, rates[toolkit.label], cores())
        request |= files(group)
        python = environments.python_of(toolkit.environment) if toolkit.environment else Path(sys.executable)
        children[toolkit.label] = Child(python, toolkit.script, request, folder / toolkit.label.replace(" ", "_"))
    for label, result in take_turns(children).items():
        if isinstance(result, str):
            results[label] = {"failed": result}
            print(f"  {label}: {result}", flush=True)
            continue
        results[label] = {**result, "fvu": held_out_fvu(group, children[label].folder), "lr": rates[label]}
        step = statistics.median(result["step_seconds"])
        print(f"  {label}: {group.batch / step:,.0f} tokens/s, FVU {results[label]['fvu']}", flush=True)
    return results


def run_rates(group: Group) -> dict[str, Any]:
    """Measure what the floor is made of, for the shape of a group."""
    request = {**asdict(group), "steps": 6, "warm_up": 1, "turn": 0, "threads": cores()}
    results = take_turns({"rates": Child(sys.executable, "measure_rates.py", request, scratch() / "rates")})
    if isinstance(results["rates"], str):
        raise ConceptBenchError(f"The rates of this machine could not be measured: {results['rates']}.")
    return results["rates"]


def files(group: Group) -> dict[str, str]:
    """Return the paths of the training and held-out tokens."""
    spec = Planted(d=group.d)
    training = token_file(WORK / "tokens", spec, -(-group.steps * group.batch // CHUNK))
    held_out = token_file(WORK / "tokens", spec, HELD_OUT_CHUNKS, first=1_000_000)
    return {"tokens_file": str(training), "held_out_file": str(held_out)}


def held_out_fvu(group: Group, folder: Path) -> float:
    """Return the FVU of the reconstruction a driver left, by our calculator for every toolkit."""
    path = folder / "reconstruction.npy"
    held_out = files(group)["held_out_file"]
    calculator = FvuCalculator()
    calculator.add_batch(np.fromfile(held_out, np.float32).reshape(-1, group.d), np.load(path))
    path.unlink()
    return calculator.compute()


def rows_of(group: Group, results: Mapping[str, Any]) -> list[Row]:
    """Return the rows of one group."""
    speeds = {toolkit.label: speed(group, results[toolkit.label]) for toolkit in TOOLKITS}
    return [row_of(group, toolkit, results, speeds) for toolkit in TOOLKITS]


def fastest_peer(speeds: Mapping[str, float | None], offered: bool) -> float | None:
    """Return the tokens/s of the fastest peer in a setting it offers, or in one that it was changed for."""
    peers = [toolkit.label for toolkit in TOOLKITS if toolkit.name != OURS and toolkit.offered is offered]
    return max((value for label in peers if (value := speeds[label]) is not None), default=None)


def speed(group: Group, result: Mapping[str, Any]) -> float | None:
    """Return tokens/s at the median step, or None for a toolkit that did not run."""
    return None if "failed" in result else group.batch / statistics.median(result["step_seconds"])


def row_of(
    group: Group, toolkit: Toolkit, results: Mapping[str, Any], speeds: Mapping[str, float | None]
) -> Row:  # fmt: skip
    """Return the row of one toolkit."""
    result, shape = results[toolkit.label], Shape(group.d, group.width, group.k, group.batch)
    value, fastest, changed = speeds[toolkit.label], fastest_peer(speeds, True), fastest_peer(speeds, False)
    shapes = {"d": group.d, "width": group.width, "k": group.k, "batch": group.batch}
    common: dict[str, Any] = {
        "toolkit": toolkit.name, "method": "TopK", "setting": toolkit.setting, "shapes": shapes, "rate": "tokens_per_s",
    }  # fmt: skip
    if value is None:
        return Row(**common, value=None, note=result["failed"])
    least = floor(shape, results["rates"], toolkit.precision)
    seconds = np.quantile(result["step_seconds"], [0.25, 0.5, 0.75])
    return Row(
        **common, value=value, version=result["versions"][toolkit.package], peak_rss_mib=result["peak_rss_mib"],
        fvu=result["fvu"], ratio_to_fastest_peer=value / fastest if fastest else None,
        share_of_floor=least.seconds * value / group.batch, note=toolkit.note,
        more={
            "precision": toolkit.precision,
            "tokens": group.steps * group.batch, "lr": result["lr"], "steps_timed": len(result["step_seconds"]),
            "ratio_to_fastest_changed_peer": value / changed if changed else None,
            "step_seconds": [round(float(second), 4) for second in seconds],
            "floor_seconds": {part: round(share, 4) for part, share in asdict(least).items()},
            "operations": shape.encoder_operations + shape.sparse_operations, "bytes": shape.bytes_moved,
            "torch": result["versions"]["torch"],
        },
    )  # fmt: skip


def chosen_rate(toolkit: Toolkit, width: int) -> float:
    """Return the toolkit's own rate for a width, times the multiple that was best when tuning."""
    multiples = read_json(RATES)["multiples"] if RATES.is_file() else {}
    return float(toolkit.default_rate(width) * multiples.get(toolkit.name, 1.0))


def tune(group: Group, only: Sequence[str] | None) -> None:
    """Keep, for every toolkit, the multiple of its own learning rate that ends at the lowest held-out FVU."""
    for toolkit in (toolkit for toolkit in TOOLKITS if toolkit.setting == "as shipped"):
        if only and toolkit.name not in only:
            continue
        known = read_json(RATES) if RATES.is_file() else {"multiples": {}, "fvu": {}}
        before = known["fvu"].get(toolkit.name, {}) if known.get("tuned_at") == asdict(group) else {}
        tried = climb(lambda multiple, toolkit=toolkit: tuning_fvu(group, toolkit, multiple), before)
        known["fvu"][toolkit.name] = tried
        known["multiples"][toolkit.name] = float(min(tried, key=lambda multiple: tried[multiple]))
        write_json({"multiples": known["multiples"], "fvu": known["fvu"], "tuned_at": asdict(group)}, RATES)


def tuning_fvu(group: Group, toolkit: Toolkit, multiple: float) -> float:
    """Return the FVU at a multiple of the toolkit's own learning rate; `DIVERGED` where it is no number."""
    result = run(group, [toolkit], {toolkit.label: multiple * toolkit.default_rate(group.width)})[toolkit.label]
    if "failed" in result and multiple == 1:
        raise ConceptBenchError(f"{toolkit.label} cannot be tuned: {result['failed']}.")
    return DIVERGED if "failed" in result or not np.isfinite(result["fvu"]) else round(float(result["fvu"]), 4)


def climb(fvu: Callable[[float], float], before: Mapping[str, float]) -> dict[str, float]:
    """Return the FVU of multiples 3^(j/2), j even: 1 and upwards or downwards while it falls; then beside the best.

    Multiples are written with three digits; those known from `before` are not tried again.
    """
    tried: dict[int, float] = {}

    def at(exponent: int) -> float:
        """Return the FVU of 3^(exponent/2)."""
        if exponent not in tried:
            name = multiple_name(exponent)
            tried[exponent] = before[name] if name in before else fvu(float(name))
        return tried[exponent]

    direction = 2 if at(2) < at(0) else -2
    best = max(direction, 0)
    while abs(best) < TUNING_REACH and at(best + direction) < at(best):
        best += direction
    for exponent in (best - 1, best + 1):
        at(exponent)
    return {multiple_name(exponent): tried[exponent] for exponent in sorted(tried)}


def multiple_name(exponent: int) -> str:
    """Return 3^(exponent/2) with three digits."""
    return f"{3 ** (exponent / 2):.3g}"


if __name__ == "__main__":
    try:
        main()
    except ConceptBenchError as error:
        sys.exit(f"Error: {error}")
