"""`conceptbench check-method PATH`: run the contract of a dictionary method and print what was found."""

import argparse
from typing import Any, TypeAlias

import yaml

from conceptbench.errors import ConceptBenchError

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "check-method",
        help="check a dictionary method: shapes, seeds, storage, noise, planted atoms",
        description="Learn on a small world with known atoms and on noise, and check what every method must keep to. "
        "The exit status is 0 when all checks pass and 1 when one fails.",
    )
    parser.add_argument("path", help="package.module:Class, or a method of the project such as topk")
    parser.add_argument(
        "--option", "-o", action="append", default=[], metavar="NAME=VALUE", help="an option of the method, as in YAML"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Print one line for each check and return 1 when any fails."""
    # torch is slow to import, and the help needs none
    from conceptbench.dictionaries.contract import Contract

    contract = Contract(options.path, dict(_parse(text) for text in options.option))
    print(f"{options.path}: {contract.settings()}")
    failed = 0
    for finding in contract.run():
        failed += not finding.passed
        print(f"{'pass' if finding.passed else 'FAIL'}  {finding.check:<30}  {finding.detail}", flush=True)
    print("all checks passed" if not failed else f"{failed} of the checks failed")
    return 1 if failed else 0


def _parse(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ConceptBenchError(f"The option '{text}' is not of the form NAME=VALUE; write for example k=8.")
    try:
        return name, yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConceptBenchError(f"The option '{text}' has a value that is not YAML; quote it.") from error
