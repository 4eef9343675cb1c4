"""Cost against tokens: seconds and peak memory of learning one dictionary on 0.1 to 2 million tokens.

    python -m benchmarks.scaling            measure what is missing, write results/scaling.json and draw the figure
    python -m benchmarks.scaling --again    measure everything again
    python -m benchmarks.scaling --draw     only draw docs/images/scaling.png from results/scaling.json

Tokens come from an iterator, as they do from a live backbone: a pool of them is passed around without end, so that
nothing but the number of steps differs between points. Every point has a process of its own, because a process keeps
its peak of memory; each one takes a few steps first, so that compilation is not timed. A line through the points of one
width tells whether the cost is linear: its deviations stand in the rows.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from matplotlib.figure import Figure

from benchmarks.common import OURS, RESULTS, ROOT, WORK, Row, cores, write_results
from conceptbench.dictionaries import learn, specify
from conceptbench.dictionaries.synthetic import World, WorldSpec
from conceptbench.figures.style import PALETTE, Key, figure_look, new_sheet, tidy
from conceptbench.tables import atomic_write, read_json, write_json

D: Final = 128
K: Final = 16
BATCH: Final = 4096
WIDTHS: Final = (1024, 2048, 4096)
TOKENS: Final = (102_400, 256_000, 512_000, 1_024_000, 2_048_000)
POOL: Final = 131_072
HELD_OUT: Final = 8192
WARM_UP: Final = 16 * BATCH + BATCH
NAME: Final = "scaling"
PICTURE: Final = ROOT / "docs" / "images" / "scaling.png"

Batches = Callable[[int], Iterator[np.ndarray]]


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument("--again", action="store_true", help="measure everything again")
    choice.add_argument("--draw", action="store_true", help="only draw the figure")
    choice.add_argument("--point", nargs=2, type=int, metavar=("WIDTH", "TOKENS"), help="measure one point here")
    asked = parser.parse_args()
    if asked.point:
        measure(*asked.point)
        return
    if not asked.draw:
        points = [(width, tokens) for tokens in TOKENS for width in WIDTHS]
        for width, tokens in points:
            if asked.again or not place(width, tokens).exists():
                command = [sys.executable, "-m", "benchmarks.scaling", "--point", str(width), str(tokens)]
                subprocess.run(command, check=True, cwd=ROOT)
        found = [read_json(place(*point)) for point in points]
        print(f"Wrote {write_results(NAME, rows_of(found), settings())}")
    draw(read_json(RESULTS / f"{NAME}.json")["rows"])
    print(f"Wrote {PICTURE}")


def settings() -> dict[str, Any]:
    """Return how the points are measured."""
    return {"d": D, "k": K, "batch": BATCH, "threads": cores(), "pool": POOL, "warm_up_tokens": WARM_UP}


def place(width: int, tokens: int) -> Path:
    """Return where the measurement of one point is kept, so that a benchmark that was stopped goes on where it was."""
    return WORK / NAME / f"{width}-{tokens}.json"


def measure(width: int, tokens: int) -> None:
    """Measure one point in this process and keep it."""
    world = World.draw(WorldSpec(name=NAME, features=1024, d=D, l0=16), 0)
    pool, held_out = world.tokens("train", POOL).x, world.tokens("held-out", HELD_OUT).x
    spec = specify(name="topk", method="topk", width=width, k=K, batch_size=BATCH, warmup_steps=20)
    ready = memory_mib("VmRSS")
    seconds: dict[int, float] = {}
    for count in (WARM_UP, tokens):
        began = time.perf_counter()
        dictionary = learn(
            spec, around(pool, count), d=D, seed=0, held_out=held_out, tokens_per_epoch=count, progress=False
        )
        seconds[count] = time.perf_counter() - began
    point = {
        "width": width, "tokens": tokens, "seconds": seconds[tokens], "peak_rss_mib": memory_mib("VmHWM"),
        "start_rss_mib": ready, "fvu": dictionary.card["metrics"]["fvu"],
    }  # fmt: skip
    print(json.dumps(point), flush=True)
    write_json(point, place(width, tokens))


def around(pool: np.ndarray, tokens: int) -> Batches:
    """Return an epoch of `tokens` tokens in chunks of a batch, taken from the pool round and round."""

    def epoch_of(_epoch: int) -> Iterator[np.ndarray]:
        """Yield the chunks; every epoch is the same."""
        for start in range(0, tokens, BATCH):
            at = start % len(pool)
            yield pool[at : at + min(BATCH, tokens - start)]

    return epoch_of


def memory_mib(field: str) -> float:
    """Return a figure of this process's memory as Linux keeps it: VmRSS is what it holds now, VmHWM its peak."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"/proc/self/status has no {field}; run this benchmark on Linux.")


def line_through(tokens: Sequence[float], seconds: Sequence[float]) -> tuple[float, float]:
    """Return (seconds at 0 tokens, seconds per token) of least squares on relative errors."""
    x, y = np.asarray(tokens, np.float64), np.asarray(seconds, np.float64)
    design = np.stack([1 / y, x / y], axis=1)
    start, slope = np.linalg.lstsq(design, np.ones(len(x)), rcond=None)[0]
    return float(start), float(slope)


def rows_of(found: Sequence[Mapping[str, Any]]) -> list[Row]:
    """Return the rows of the results, each with its deviation from the line of its width."""
    rows = []
    for width in sorted({int(point["width"]) for point in found}):
        mine = sorted((point for point in found if point["width"] == width), key=lambda point: point["tokens"])
        start, slope = line_through([point["tokens"] for point in mine], [point["seconds"] for point in mine])
        for point in mine:
            expected = start + slope * point["tokens"]
            more = {
                "seconds": point["seconds"], "over_line": point["seconds"] / expected - 1,
                "line_seconds": start, "line_seconds_per_million": 1e6 * slope,
                "start_rss_mib": point["start_rss_mib"],
                "rss_over_fewest_tokens_mib": point["peak_rss_mib"] - mine[0]["peak_rss_mib"],
            }  # fmt: skip
            row = Row(
                toolkit=OURS, method="topk", shapes={"d": D, "width": width, "k": K, "tokens": point["tokens"]},
                rate="tokens_per_s", value=point["tokens"] / point["seconds"], peak_rss_mib=point["peak_rss_mib"],
                fvu=point["fvu"], more=more,
            )  # fmt: skip
            rows.append(row)
    return rows


@figure_look()
def draw(rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw seconds and peak memory against tokens, one line a width."""
    widths = sorted({row["width"] for row in rows})
    colours = dict(zip(widths, PALETTE, strict=False))
    worst = max(abs(row["over_line"]) for row in rows)
    growth = max(abs(row["rss_over_fewest_tokens_mib"]) for row in rows)
    title = "Cost of learning a TopK dictionary against the number of tokens"
    note = (
        f"d = {D}, k = {K}, batches of {BATCH} tokens from an iterator, one process a point. Left: straight lines "
        f"fitted to the points of a width; no point deviates by more than {100 * worst:.0f} %. Right: peak memory of "
        f"the whole process; it differs by at most {growth:.0f} MiB from that on the fewest tokens."
    )
    keys = [Key(f"{width:,} latents", colours[width]) for width in widths]
    sheet = new_sheet(title, width=8.4, height=3.0, keys=keys, notes=[note])
    left, right = sheet.body.subplots(1, 2)
    for width in widths:
        mine = [row for row in rows if row["width"] == width]
        tokens = np.array([row["tokens"] for row in mine]) / 1e6
        line = mine[0]["line_seconds"] + mine[0]["line_seconds_per_million"] * tokens
        left.plot(tokens, line, color=colours[width], lw=1.4)
        left.plot(tokens, [row["seconds"] for row in mine], "o", color=colours[width], ms=5)
        right.plot(tokens, [row["peak_rss_mib"] for row in mine], "o-", color=colours[width], ms=5, lw=1.4)
    for axes, label in ((left, "seconds"), (right, "peak resident memory (MiB)")):
        axes.set_xlabel("training tokens (millions)")
        axes.set_ylabel(label)
        axes.set_ylim(0, 1.15 * axes.get_ylim()[1])
        axes.set_xlim(left=0)
        tidy(axes, grid="y")
    save(sheet.figure)


def save(figure: Figure) -> None:
    """Write the picture, complete or absent, without a date."""
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(PICTURE) as path:
        figure.savefig(path, format="png", dpi=130, metadata={"Software": None}, facecolor="white")


if __name__ == "__main__":
    main()
