"""Where the time of our TopK step goes, against the floor measured in the same process.

    python -m benchmarks.step_breakdown            widths 6,144, 16,384 and 49,152 (about a minute on two cores)
    python -m benchmarks.step_breakdown --quick    one small width

Steps and rates alternate. A phase counts the calls of one function of the engine; the rest is what lies between them.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, Final

from benchmarks.common import OURS, WORK, Child, Row, cores, scratch, take_turns, write_results
from benchmarks.floor import Shape, floor
from benchmarks.tokens import CHUNK, Planted, token_file
from conceptbench.errors import ConceptBenchError

FULL: Final = tuple(Shape(768, width, 32, CHUNK) for width in (6144, 16_384, 49_152))
QUICK: Final = (Shape(256, 1024, 16, CHUNK),)
STEPS: Final = 8


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one small width")
    shapes, name = (QUICK, "step_breakdown_quick") if parser.parse_args().quick else (FULL, "step_breakdown")
    rows = [row_of(shape, precision, run(shape, precision)) for shape in shapes for precision in ("bf16", "fp32")]
    print(f"Wrote {write_results(name, rows, {'threads': cores(), 'steps': STEPS})}")


def run(shape: Shape, precision: str) -> dict[str, Any]:
    """Return the median seconds of every phase, and the rates of the machine."""
    request = {
        "d": shape.d, "width": shape.width, "k": shape.k, "batch": shape.batch, "steps": STEPS, "warm_up": 2,
        "turn": 0, "threads": cores(), "setting": precision,
        "tokens_file": str(token_file(WORK / "tokens", Planted(d=shape.d), STEPS)),
    }  # fmt: skip
    result = take_turns({"": Child(sys.executable, "time_phases.py", request, scratch() / precision)})[""]
    if isinstance(result, str):
        raise ConceptBenchError(f"The step at width {shape.width} could not be timed: {result}.")
    return result


def row_of(shape: Shape, precision: str, result: Mapping[str, Any]) -> Row:
    """Return the row of one width and precision."""
    least = floor(shape, result["rates"], "fp32" if precision == "fp32" else "bf16")
    step = statistics.median(result["step_seconds"])
    print(f"  width {shape.width}, {precision}: {step:.3f} s, {least.seconds / step:.0%} of the floor", flush=True)
    return Row(
        toolkit=OURS, method="TopK", setting=precision, rate="tokens_per_s", value=shape.batch / step,
        shapes=asdict(shape), version=result["versions"]["conceptbench"],
        share_of_floor=least.seconds / step,
        more={
            "step_seconds": round(step, 4), "phase_seconds": result["phases"], "rates": result["rates"],
            "floor_seconds": {part: round(seconds, 4) for part, seconds in asdict(least).items()},
        },
    )  # fmt: skip


if __name__ == "__main__":
    try:
        main()
    except ConceptBenchError as error:
        sys.exit(f"Error: {error}")
