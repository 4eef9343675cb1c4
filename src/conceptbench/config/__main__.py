"""Command line: `python -m conceptbench.config schema | check FILE...`."""

import argparse
import json
import sys
from pathlib import Path

from conceptbench.config.describe import json_schema, update_page
from conceptbench.config.load import load_config
from conceptbench.errors import ConceptBenchError


def main(arguments: list[str] | None = None) -> int:
    """Write the schema and the table of keys, or check configuration files; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m conceptbench.config", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    schema = commands.add_parser("schema", help="write schemas/config.schema.json and the table in docs/")
    schema.add_argument("--root", type=Path, default=Path(), help="folder of the checkout")
    check = commands.add_parser("check", help="check a configuration with its overlays")
    check.add_argument("files", nargs="+", type=Path)
    options = parser.parse_args(arguments)
    if options.command == "schema":
        target = options.root / "schemas" / "config.schema.json"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        page = options.root / "docs" / "configuration.md"
        page.write_text(update_page(page.read_text(encoding="utf-8")), encoding="utf-8")
        return 0
    try:
        config = load_config(*options.files)
    except ConceptBenchError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{config.experiment}: {len(config.datasets)} data sets, {len(config.backbones)} backbones: valid")
    return 0


if __name__ == "__main__":
    sys.exit(main())
