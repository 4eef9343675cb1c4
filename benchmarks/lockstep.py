"""Dictionaries in lockstep against one by one.

    python -m benchmarks.lockstep            (about three minutes on two cores)
    python -m benchmarks.lockstep --quick    a tiny size (seconds)

Eight TopK dictionaries learnt by one `learn_many` on one pass, against eight runs, each in a process of its own that
reads the tokens again: what a sweep of single jobs does.
"""

import argparse
import sys
from collections.abc import Sequence
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
    result = take_turns({"": Child(sys.executable, "learn_lockstep.py", request, scratch() / "learn")})[""]
    if isinstance(result, str):
        raise ConceptBenchError(f"Learning {len(seeds)} dictionaries failed: {result}.")
    print(f"  {len(seeds)} dictionaries: {result['seconds']:.2f} s", flush=True)
    return result


def rows_of(study: Study) -> list[Row]:
    """Return one row for lockstep and one for separate runs; both alternate, the quickest repetition counts."""
    seeds = range(study.dictionaries)
    together, apart, peaks = [], [], ([], [])  # type: ignore[var-annotated]
    for _ in range(study.repetitions):
        done = learn_in_child(study, seeds)
        together.append(done["seconds"])
        single = [learn_in_child(study, [seed]) for seed in seeds]
        apart.append(sum(one["seconds"] for one in single))
        peaks[0].append(done["peak_rss_mib"])
        peaks[1].append(max(one["peak_rss_mib"] for one in single))
    tokens = study.chunks * study.batch * study.dictionaries
    shapes = {"d": study.d, "width": study.width, "k": study.k, "batch": study.batch}
    rows = []
    for setting, seconds, peak in zip(("lockstep", "one by one"), (together, apart), peaks, strict=True):
        more = {"dictionaries": study.dictionaries, "seconds": seconds, "cost": min(seconds) / min(apart)}
        rows.append(
            Row(
                toolkit=OURS, method="TopK", setting=setting, shapes=shapes, rate="tokens_per_s",
                value=tokens / min(seconds), peak_rss_mib=max(peak), more=more,
            )
        )  # fmt: skip
    return rows


if __name__ == "__main__":
    try:
        main()
    except ConceptBenchError as error:
        sys.exit(f"Error: {error}")
