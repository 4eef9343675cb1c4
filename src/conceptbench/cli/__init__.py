"""The command line: `conceptbench <command>`; one file a command, each with `add` and `run`."""

import argparse
import sys
from collections.abc import Sequence

from conceptbench.cli import check_method, plan, rates, scale
from conceptbench.errors import ConceptBenchError

COMMANDS = (plan, rates, scale, check_method)
"""The modules of the commands, in the order of the help."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status; bad input is one sentence and status 2."""
    parser = argparse.ArgumentParser(prog="conceptbench", description="Tools beside the workflow of ConceptBench.")
    commands = parser.add_subparsers(dest="command", required=True)
    for command in COMMANDS:
        command.add(commands)
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
    except ConceptBenchError as error:
        print(error, file=sys.stderr)
        return 2
    return status
