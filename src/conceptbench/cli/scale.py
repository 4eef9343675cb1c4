"""`conceptbench scale`: write docs/scale.md from the rates."""

import argparse
from pathlib import Path
from typing import TypeAlias

from conceptbench.planning import load_rates
from conceptbench.planning.page import scale_page

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("scale", help="write docs/scale.md: plans from the default to the papers' settings")
    parser.add_argument("--root", type=Path, default=Path(), help="folder of the checkout")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Write the page."""
    page = scale_page(options.root, load_rates(options.root / "reference" / "rates.json"))
    (options.root / "docs" / "scale.md").write_text(page, encoding="utf-8")
    return 0
