"""Train the shipped backbones again: `python -m conceptbench.backbones train clip-tiny [--out FOLDER]`."""

import argparse
import sys
from pathlib import Path

from conceptbench.errors import ConceptBenchError


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m conceptbench.backbones", description=__doc__)
    commands = parser.add_subparsers(required=True)
    train = commands.add_parser("train", help="train a shipped backbone from scratch and put it in place")
    train.add_argument("name", help="clip-tiny, image-tiny or random-tiny")
    train.add_argument("--out", type=Path, help="folder to replace (default: the shipped folder of the package)")
    train.add_argument("--work", type=Path, help="folder of checkpoints, from which a killed run goes on")
    options = parser.parse_args(arguments)
    from conceptbench.backbones.shipped import SHIPPED, renew_shipped  # imports torch, so only when needed

    out = options.out or SHIPPED / options.name
    work = options.work or Path("results") / ".work" / "backbones" / options.name
    try:
        card = renew_shipped(options.name, out, work=work)
    except ConceptBenchError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    print(f"{out}: trained in {card['seconds']} s; {card['log'][-1] if card['log'] else 'random weights'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
