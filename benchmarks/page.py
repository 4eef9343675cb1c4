"""docs/performance.md and its pictures from benchmarks/results/*.json: `make bench-page`."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from benchmarks.common import OURS, RESULTS, ROOT
from benchmarks.floor import Shape
from benchmarks.pictures import draw_phases, draw_speeds
from conceptbench.dictionaries.specs import TopK
from conceptbench.tables import atomic_write, read_json

PAGE: Final = ROOT / "docs" / "performance.md"
IMAGES: Final = ROOT / "docs" / "images"
DASH: Final = "-"
SAVED: Final = 0.6
"""Of the time of separate runs: what lockstep should cost at most."""
DEAD_TOKENS: Final = TopK.__dataclass_fields__["dead_tokens"].default

Results = Mapping[str, Any]


def main() -> None:
    """Write the page from the results that are there."""
    found = {path.stem: dict(read_json(path)) for path in sorted(RESULTS.glob("*.json")) if "quick" not in path.stem}
    with atomic_write(PAGE) as path:
        path.write_text(page(found, IMAGES), encoding="utf-8")
    print(f"Wrote {PAGE}")


def page(found: Mapping[str, Results], images: Path) -> str:
    """Return the page; a benchmark without results is named with its command. Pictures go to `images`."""
    sections: dict[str, tuple[str, Callable[[Results, Path], list[str]]]] = {
        "sae_training": ("Training sparse autoencoders", training),
        "step_breakdown": ("Where the time of a step goes", breakdown),
        "lockstep": ("Dictionaries in lockstep", lockstep),
        "scaling": ("Cost and memory against tokens", scaling),
        "ksvd": ("K-SVD", ksvd),
        "recording": ("Recording and reading activations", recording),
        "masking_curve": ("A masking curve", masking_curve),
        "maple_step": ("A step of MaPLe", maple_step),
    }
    if "step_breakdown" in found:
        rates = {"sae_training": with_measured_floors, "ksvd": with_measured_product}
        found = {
            **found,
            **{name: of(found[name], found["step_breakdown"]) for name, of in rates.items() if name in found},
        }
    parts = [
        "# Performance",
        "Written by `make bench-page` from `benchmarks/results/*.json`; not edited by hand. `make bench` measures; how "
        "and what is asked of every toolkit stands in [benchmarks/README.md](../benchmarks/README.md).",
        "No GPU was used for any figure on this page. The GPU path has not been timed: its Triton kernels are run by "
        "Triton's interpreter in the tests and compiled for compute capability 8.0 and 9.0, its torch forms are tested "
        "for equal results on a stand-in.",
    ]
    for name, (title, section) in sections.items():
        parts.append(f"## {title}")
        if name not in found:
            parts.append(f"Not measured yet: `python -m benchmarks.{name}`.")
            continue
        parts += [machine(found[name]), *section(found[name], images)]
    return "\n\n".join(parts) + "\n"


def machine(results: Results) -> str:
    """Return one line on what was measured where."""
    about, code = results["machine"], results["code"]
    revision = f"{(code['revision'] or 'unknown')[:12]}{' with changes' if code['dirty'] else ''}"
    memory = f"{about['memory_mib'] / 1024:.0f} GiB" if about["memory_mib"] else "unknown memory"
    return (
        f"{about['cpu']}, {about['cores']} cores, {memory}, Python {about['python']}, "
        f"torch {results['versions']['torch']}, numba {results['versions']['numba']}; "
        f"revision {revision}, {results['time'][:10]}."
    )


def training(results: Results, images: Path) -> list[str]:
    """Return the table of every width, what a step must do, and the picture."""
    rows = results["rows"]
    draw_speeds(rows, images / "performance_training")
    parts = ["![Tokens per second](images/performance_training.png)"]
    for width in sorted({row["width"] for row in rows}):
        shown = [row for row in rows if row["width"] == width]
        parts += [f"### Width {width:,}", table(TRAINING, shown)]
        floors = next((row for row in shown if row.get("floor_seconds")), None)
        if floors is not None:
            parts.append(floor_line(floors))
    notes = sorted({(toolkit(row), row["note"]) for row in rows if row["note"] and row["tokens_per_s"] is not None})
    if any(row.get("floor_of_breakdown") for row in rows):
        parts.append(
            "Shares of the floor: that of the next section for all rows, by the precision that a toolkit's encoder "
            "product is computed in."
        )
    if any((row.get("share_of_floor") or 0) > 1 for row in rows):
        parts.append(
            "A share above 100 %: the product was faster within the steps than where the floor was measured, so the "
            "rate that a floor rests on is known to no more than that."
        )
    parts += training_remarks(results)
    return [*parts, "\n".join(f"* {name}: {note}" for name, note in notes)]


def training_remarks(results: Results) -> list[str]:
    """Return what a reader must know of the tables: learning rates, tokens, and what was on in the timed steps."""
    settings = results["settings"]
    rates = settings["learning_rates"] or {}
    tuned = rates.get("tuned_at", {}).get("width")
    remarks = []
    if tuned:
        untried = sorted(set(rates["multiples"]) - set(rates["fvu"]))
        remarks.append(
            f"Learning rates were tuned at width {tuned:,} and taken to the others by the rule of each toolkit; one "
            "whose rate does not depend on the width may be badly tuned at the large ones, so a large FVU there is no "
            "verdict on it."
            + (f" Of {' and '.join(untried)} the values that were tried are not on record." if untried else "")
        )
    apart = [f"{group['width']:,}" for group in settings["groups"] if not group["turn"]]
    if apart:
        remarks.append(
            f"At width {' and '.join(apart)} the toolkits run one after another instead of by turns, because together "
            "they would not fit in memory."
        )
    remarks.append(
        "The rows of ours to hold against the peers are those in which no latent counts as dead, because no peer has "
        "dead latents within so few tokens (their windows are longer, or they have no loss for them). As shipped ours "
        f"has them after {DEAD_TOKENS:,} tokens, and its steps then take longer: they train these latents as well."
    )
    return remarks


def floor_line(row: Mapping[str, Any]) -> str:
    """Return what one step must compute and move, and how long that takes at least on the machine of the row."""
    shape = Shape(row["d"], row["width"], row["k"], row["batch"])
    least = row["floor_seconds"]
    return (
        f"Floor of a step: {shape.encoder_operations / 1e9:,.1f} G operations in the encoder product "
        f"({least['encoder']:.3f} s), {shape.sparse_operations / 1e9:.2f} G in the sparse work "
        f"({least['sparse']:.3f} s), "
        f"{shape.bytes_moved / 1e9:.2f} GB of parameters, moments and tokens ({least['traffic']:.3f} s)."
    )


def breakdown(results: Results, images: Path) -> list[str]:
    """Return the phases of our step."""
    draw_phases(results["rows"], images / "performance_phases")
    return ["![Phases of a step](images/performance_phases.png)", table(BREAKDOWN, results["rows"])]


def lockstep(results: Results, images: Path) -> list[str]:
    """Return lockstep against separate runs, and how long a training may be for the saving to last."""
    together, apart = ({row["setting"]: row for row in results["rows"]}[name] for name in ("lockstep", "one by one"))
    count, one = apart["dictionaries"], apart["seconds"] / apart["dictionaries"]
    started = [row["process_seconds"] - row["seconds"] for row in (together, apart)]
    share = together["seconds"] / apart["seconds"]
    text = (
        f"Learning itself takes {share:.0%} of the time: the products of a TopK step cannot be shared, reading and "
        f"preparing the tokens can. The rest of the saving is the start-up of {count} processes, {started[1]:.0f} s "
        f"against {started[0]:.0f} s here."
    )
    if share > SAVED:
        longest = (SAVED * started[1] - started[0]) / (count * (share - SAVED))
        text += (
            f" So {count} dictionaries cost at most {SAVED:.0%} of {count} runs while one of them learns for less than "
            f"{longest:.0f} s (here {one:.1f} s); with longer trainings the cost tends to {share:.0%}."
        )
    return [table(LOCKSTEP, results["rows"]), text]


def scaling(results: Results, images: Path) -> list[str]:
    """Return the picture that the benchmark drew, and its table."""
    return ["![Cost and memory against tokens](images/scaling.png)", table(SCALING, results["rows"])]


def ksvd(results: Results, images: Path) -> list[str]:
    """Return the table of coding and iterations, and what each must compute."""
    ours = [row for row in results["rows"] if row["toolkit"] == OURS and row["signals_per_s"] is not None]
    least = "; ".join(
        f"{row['method']} on {row['signals']:,} signals {row['operations'] / 1e9:,.1f} G operations, "
        f"{4 * row['d'] * (row['signals'] + row['width']) / 1e9:.2f} GB of signals and atoms"
        for row in ours
    )
    return [
        table(KSVD, results["rows"]),
        f"Floor: {least}, all at the rate of the fp32 product of the step's breakdown. Updating correlations and "
        "gathering atoms cannot reach that rate, so a share near 100 % is out of reach.",
    ]


def recording(results: Results, images: Path) -> list[str]:
    """Return recording against the bare forward, and reading against a raw file."""
    return [
        "Recording is compared with the bare forward on the same images; shuffled tokens of the store with the same "
        "rows gathered from one memory-mapped file. Reading that file in order is the most that memory gives.",
        table(RECORDING, results["rows"]),
    ]


def masking_curve(results: Results, images: Path) -> list[str]:
    """Return the cost of a curve against its floor."""
    return [
        "The floor is one lower half, one encoding and an upper half for every k, on the same images.",
        table(MASKING_CURVE, results["rows"]),
    ]


def maple_step(results: Results, images: Path) -> list[str]:
    """Return our step against the way the original takes it."""
    return [
        "The original inserts prompts explicitly and computes the text features of all classes at every step; the "
        "losses of both agree to the relative difference given.",
        table(MAPLE_STEP, results["rows"]),
    ]


def with_measured_floors(training: Results, breakdown: Results) -> Results:
    """Return the training rows with their shares of the floor that the breakdown measured for width and precision."""
    floors = {(row["width"], row["setting"]): sum(row["floor_seconds"].values()) for row in breakdown["rows"]}
    rows = []
    for row in training["rows"]:
        floor = floors.get((row["width"], row.get("precision")))
        if row.get("tokens_per_s") and floor is not None:
            row = {**row, "share_of_floor": floor * row["tokens_per_s"] / row["batch"], "floor_of_breakdown": True}
        rows.append(row)
    return {**training, "rows": rows}


def with_measured_product(ksvd: Results, breakdown: Results) -> Results:
    """Return the rows of K-SVD with their floor at the rate of the faster product that the breakdown measured."""
    rates = [row["rates"]["fp32_operations_per_s"] for row in breakdown["rows"] if row["setting"] == "fp32"]
    if not rates:
        return ksvd
    done = [(row, row.get("operations"), row.get("signals_per_s")) for row in ksvd["rows"]]
    rows = [
        {**row, "share_of_floor": operations / max(rates) * speed / row["signals"]} if operations and speed else row
        for row, operations, speed in done
    ]
    return {**ksvd, "rows": rows}


Columns = Sequence[tuple[str, Callable[[Mapping[str, Any]], str]]]


def number(value: Any, form: str = ",.3g") -> str:
    """Return a value for a cell; what is missing is a dash."""
    if value is None:
        return DASH
    if isinstance(value, bool | str):
        return str(value)
    return format(value, ",d" if isinstance(value, int) and form == ",.3g" else form)


def of(name: str, form: str = ",.3g") -> Callable[[Mapping[str, Any]], str]:
    """Return the reader of one column."""
    return lambda row: number(row.get(name), form)


def toolkit(row: Mapping[str, Any]) -> str:
    """Return name, version and setting; ours in bold."""
    name = " ".join(str(part) for part in (row["toolkit"], row["version"]) if part)
    named = f"**{name}**" if row["toolkit"] == OURS else name
    return named if row["setting"] == "as shipped" else f"{named}, {row['setting']}"


def rate_or_reason(name: str) -> Callable[[Mapping[str, Any]], str]:
    """Return the reader of a rate, or of why there is none."""
    return lambda row: number(row[name], ",.0f") if row[name] is not None else f"not run: {row['note']}"


def quartiles(row: Mapping[str, Any]) -> str:
    """Return the quartiles of the seconds of a step."""
    return ", ".join(f"{value:.3f}" for value in row["step_seconds"]) if row.get("step_seconds") else DASH


TRAINING: Final[Columns] = (
    ("toolkit", toolkit),
    ("tokens/s", rate_or_reason("tokens_per_s")),
    ("seconds a step, quartiles", quartiles),
    ("against the fastest peer", of("ratio_to_fastest_peer", ".2f")),
    ("against sparsify changed to bf16", of("ratio_to_fastest_changed_peer", ".2f")),
    ("peak memory (MiB)", of("peak_rss_mib", ",.0f")),
    ("held-out FVU", of("fvu", ".4f")),
    ("tokens", of("tokens")),
    ("steps timed", of("steps_timed")),
    ("learning rate", of("lr", ".2g")),
    ("share of the floor", of("share_of_floor", ".0%")),
)
BREAKDOWN: Final[Columns] = (
    ("width", of("width")),
    ("candidates in", of("setting")),
    ("step (s)", of("step_seconds", ".3f")),
    *(
        (f"{phase} (s)", lambda row, phase=phase: number(row["phase_seconds"].get(phase), ".3f"))
        for phase in ("product", "selection", "reconstruction", "update", "rest")
    ),
    ("floor (s)", lambda row: f"{sum(row['floor_seconds'].values()):.3f}"),
    ("share of the floor", of("share_of_floor", ".0%")),
    ("tokens/s", of("tokens_per_s", ",.0f")),
)
LOCKSTEP: Final[Columns] = (
    ("how", of("setting")),
    ("dictionaries", of("dictionaries")),
    ("seconds of learning", of("seconds", ".1f")),
    ("of one by one", of("cost", ".0%")),
    ("seconds with start-up", of("process_seconds", ".1f")),
    ("of one by one, with start-up", of("process_cost", ".0%")),
    ("tokens/s over all", of("tokens_per_s", ",.0f")),
    ("peak memory of a process (MiB)", of("peak_rss_mib", ",.0f")),
)
SCALING: Final[Columns] = (
    ("width", of("width")),
    ("tokens", of("tokens")),
    ("seconds", of("seconds", ".1f")),
    ("tokens/s", of("tokens_per_s", ",.0f")),
    ("off the straight line", of("over_line", "+.1%")),
    ("peak memory (MiB)", of("peak_rss_mib", ",.0f")),
)
KSVD: Final[Columns] = (
    ("task", of("method")),
    ("signals", of("signals")),
    ("toolkit", toolkit),
    ("signals/s", rate_or_reason("signals_per_s")),
    ("against the fastest peer", of("ratio_to_fastest_peer", ".2f")),
    ("relative error", of("relative_error", ".4f")),
    ("peak memory (MiB)", of("peak_rss_mib", ",.0f")),
    ("share of the floor", of("share_of_floor", ".0%")),
)


RECORDING: Final[Columns] = (
    ("backbone", of("model")),
    ("what", of("method")),
    ("images/s", of("images_per_s", ",.1f")),
    ("GiB/s", of("gib_per_s", ".2f")),
    ("of the bare forward, or of the file in order", of("share_of_floor", ".0%")),
    ("of the file gathered", of("ratio_to_fastest_peer", ".0%")),
)
MASKING_CURVE: Final[Columns] = (
    ("dictionary behind block", of("block")),
    ("how", of("method")),
    ("values of k", of("values_of_k")),
    ("images", of("images")),
    ("seconds", of("seconds", ".2f")),
    ("cost over the floor", of("cost_over_floor", ".2f")),
)
MAPLE_STEP: Final[Columns] = (
    ("backbone and task", of("model")),
    ("classes", of("classes")),
    ("how", of("setting")),
    ("steps/s", of("steps_per_s", ".3g")),
    ("against the original's way", of("ratio_to_fastest_peer", ".2f")),
    ("relative difference of the losses", of("largest_relative_loss_difference", ".0e")),
)


def table(columns: Columns, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return a Markdown table."""
    head = [" | ".join(title for title, _ in columns), " | ".join("---" for _ in columns)]
    body = [" | ".join(read(row) for _, read in columns) for row in rows]
    return "\n".join(f"| {line} |" for line in [*head, *body])


if __name__ == "__main__":
    main()
