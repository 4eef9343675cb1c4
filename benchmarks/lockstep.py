"""Dictionaries in lockstep against one by one.

    python -m benchmarks.lockstep            (about three minutes on two cores)
    python -m benchmarks.lockstep --quick    a tiny size (seconds)

Eight TopK dictionaries learnt by one `learn_many` on one pass, against eight runs, each in a process of its own that
reads the tokens again: what a sweep of single jobs does. Seconds are counted twice: of the learning alone, and of the
whole process with its start and imports.
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from benchmarks.common import OURS, WORK, Child, Row, cores, scratch, take_turns, write_results
from benchmarks.tokens import CHUNK, Planted, token_file
from conceptbench.errors import ConceptBenchError


@dataclass(frozen=True, kw_only=True)
class Study:
    """Sizes."""

    d: int = 256
    width: int = 4096
    k: int = 16
    batch: int = CHUNK
    dictionaries: int = 8
    chunks: int = 32
    repetitions: int = 2


FULL: Final = Study()
QUICK: Final = Study(d=64, width=256, k=4, dictionaries=3, chunks=17, repetitions=1)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny size")
    study, name = (QUICK, "lockstep_quick") if parser.parse_args().quick else (FULL, "lockstep")
    print(f"Wrote {write_results(name, rows_of(study), {'threads': cores(), **asdict(study)})}")


def learn_in_child(study: Study, seeds: Sequence[int]) -> dict[str, Any]:
    """Learn one dictionary for each seed in one process; return its seconds and peak memory."""
    request = {
        "d": study.d, "width": study.width, "k": study.k, "batch": study.batch, "steps": study.chunks, "turn": 0,
        "warm_up": 0, "threads": cores(), "seeds": list(seeds),
        "tokens_file": str(token_file(WORK / "tokens", Planted(d=study.d), study.chunks)),
    }  # fmt: skip
    began = time.perf_counter()
    result = take_turns({"": Child(sys.executable, "learn_lockstep.py", request, scratch() / "learn")})[""]
    if isinstance(result, str):
        raise ConceptBenchError(f"Learning {len(seeds)} dictionaries failed: {result}.")
    result["process_seconds"] = time.perf_counter() - began
    print(f"  {len(seeds)} dictionaries: {result['seconds']:.2f} s of learning", flush=True)
    return result


def rows_of(study: Study) -> list[Row]:
    """Return one row for lockstep and one for separate runs; both alternate, the quickest repetition counts."""
    seeds = range(study.dictionaries)
    runs: dict[str, list[dict[str, float]]] = {"lockstep": [], "one by one": []}
    for _ in range(study.repetitions):
        runs["lockstep"].append(total([learn_in_child(study, seeds)]))
        runs["one by one"].append(total([learn_in_child(study, [seed]) for seed in seeds]))
    best = {
        setting: {name: min(run[name] for run in repeated) for name in ("seconds", "process_seconds", "peak_rss_mib")}
        for setting, repeated in runs.items()
    }
    return [row_of(study, setting, best[setting], best["one by one"]) for setting in best]


def total(results: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return the summed seconds and the largest peak of processes that ran one after another."""
    summed = {name: sum(result[name] for result in results) for name in ("seconds", "process_seconds")}
    return {**summed, "peak_rss_mib": max(result["peak_rss_mib"] for result in results)}


def row_of(study: Study, setting: str, own: Mapping[str, float], apart: Mapping[str, float]) -> Row:
    """Return the row of one way to learn them all."""
    tokens = study.chunks * study.batch * study.dictionaries
    return Row(
        toolkit=OURS, method="TopK", setting=setting, rate="tokens_per_s", value=tokens / own["seconds"],
        shapes={"d": study.d, "width": study.width, "k": study.k, "batch": study.batch},
        peak_rss_mib=own["peak_rss_mib"],
        more={
            "dictionaries": study.dictionaries, "seconds": own["seconds"], "process_seconds": own["process_seconds"],
            "cost": own["seconds"] / apart["seconds"],
            "process_cost": own["process_seconds"] / apart["process_seconds"],
        },
    )  # fmt: skip


if __name__ == "__main__":
    try:
        main()
    except ConceptBenchError as error:
        sys.exit(f"Error: {error}")
