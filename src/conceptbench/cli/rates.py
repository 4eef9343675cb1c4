"""`conceptbench rates RUN...`: measure what work costs from finished runs, for `conceptbench plan`."""

import argparse
from pathlib import Path
from typing import TypeAlias

from conceptbench.tables import write_json

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "rates",
        help="measure from finished runs what work costs, for `plan`",
        description="Divide the seconds and the memory that the jobs of finished runs noted by the work that was in "
        "them, and write seconds a unit by rule.",
    )
    parser.add_argument("runs", nargs="+", metavar="FOLDER[=OVERLAY,...]", help="results/<experiment>, its overlays")
    parser.add_argument(
        "--busy",
        nargs="*",
        default=[],
        metavar="FOLDER[=OVERLAY,...]",
        help="runs while others used the machine too: "
        "they serve, by their CPU time, for rules that the other runs lack",
    )
    parser.add_argument("--base", type=Path, default=Path("config.yaml"), help="configuration under the overlays")
    parser.add_argument("--cores", type=int, default=2, help="cores that the runs had (default 2)")
    parser.add_argument(
        "--benchmarks",
        type=Path,
        help="results of benchmarks at real sizes (default: benchmarks/results beside the configuration)",
    )
    parser.add_argument("--output", type=Path, default=Path("reference/rates.json"))
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the rates and say from how many jobs they are."""
    from conceptbench.planning.learnt import FinishedRun, learn_rates

    runs = [FinishedRun.parse(text, options.base) for text in options.runs]
    busy = [FinishedRun.parse(text, options.base) for text in options.busy]
    rates = learn_rates(runs, options.cores, options.benchmarks or options.base.parent / "benchmarks/results", busy)
    write_json(rates.to_json(), options.output)
    jobs = sum(rate.jobs for rate in rates.rules.values())
    counted = f"{', '.join(rates.runs)} and the benchmarks {', '.join(rates.benchmarks)}"
    print(f"{options.output}: {len(rates.rules)} rules from {jobs} jobs of {counted}")
    return 0
