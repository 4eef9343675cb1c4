"""`conceptbench plan`: images, tokens, time, memory and disk of an experiment before anything runs."""

import argparse
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from conceptbench.config import load_config
from conceptbench.errors import ConceptBenchError
from conceptbench.planning import Machine, load_rates, make_plan, require_disk
from conceptbench.planning.text import plan_text

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "plan",
        help="say what an experiment will take: time, memory, disk",
        description="Print images, tokens, time, memory and disk of an experiment, stage by stage, from rates that "
        "were measured on finished runs. The exit status is 2 when the disk is too small for it.",
    )
    parser.add_argument("--configfile", nargs="*", default=[], type=Path, metavar="OVERLAY", help="as of snakemake")
    parser.add_argument("--config", nargs="*", default=[], metavar="KEY=VALUE", help="as of snakemake")
    parser.add_argument("--base", type=Path, default=Path("config.yaml"), help="configuration under the overlays")
    parser.add_argument("--rates", type=Path, default=Path("reference/rates.json"), help="what work costs")
    parser.add_argument("--cores", type=int, default=2, help="cores of the machine (default 2)")
    parser.add_argument("--gpus", type=int, default=0, help="its GPUs (default 0)")
    parser.add_argument(
        "--gpu-tflops", type=float, help="1e12 operations a second that a GPU keeps up; an assumption of yours"
    )
    parser.add_argument("--all", action="store_true", help="show small stages too")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print the plan; a disk that is too small is an error."""
    if options.cores < 1 or options.gpus < 0:
        raise ConceptBenchError(f"No machine has {options.cores} cores and {options.gpus} GPUs; ask for others.")
    if options.gpus and not options.gpu_tflops:
        raise ConceptBenchError("The rates are those of a CPU; say with --gpu-tflops what a GPU of yours keeps up.")
    rates = load_rates(options.rates)
    config = load_config(options.base, *options.configfile, dict(_parse(text) for text in options.config))
    plan = make_plan(config, rates, Machine(options.cores, options.gpus), options.gpu_tflops)
    print(plan_text(plan, rates, every=options.all))
    require_disk(plan, Path("results") / config.experiment)
    return 0


def _parse(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ConceptBenchError(f"The setting '{text}' is not of the form KEY=VALUE; write for example data_root=data.")
    return name, yaml.safe_load(value)
