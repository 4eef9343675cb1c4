"""A copy of the tree in which Snakemake runs the smoke experiment."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from .processes import TAIL, finish

ROOT = Path(__file__).parents[2]
TREE = (
    *("Snakefile", "Makefile", "config.yaml", "pyproject.toml", "requirements.lock", "rules", "scripts", "src"),
    *("report", "profiles", "examples", "reference", "dvc.yaml", ".dvc/config", ".dvc/.gitignore", ".dvcignore"),
    ".gitignore",
)
"""What the workflow and its records need of the checkout."""
SMOKE = "examples/smoke.yaml"
TIMEOUT = 1800
"""Seconds after which a command is stuck; a busy machine takes many times the two minutes of a quiet one."""


@dataclass(frozen=True)
class Workspace:
    """A copy of the tree in which Snakemake runs."""

    folder: Path

    @property
    def results(self) -> Path:
        return self.folder / "results" / "smoke"

    @property
    def environment(self) -> dict[str, str]:
        bin_folder = str(Path(sys.executable).parent)
        return {
            **os.environ,
            "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(self.folder / "src"),
            "NO_COLOR": "1",
        }

    def command(self, *arguments: str, overlay: Mapping[str, Any] | None = None, cores: int = 2) -> list[str]:
        """The Snakemake command for the smoke experiment with further keys laid over it."""
        files = [SMOKE]
        if overlay is not None:
            path = self.folder / "overlay.yaml"
            path.write_text(yaml.safe_dump(overlay))
            files.append(path.name)
        settings = ["--cores", str(cores), "--configfile", *files, "--nocolor"]
        return [sys.executable, "-m", "snakemake", *settings, *arguments]

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command in the copy; standard output and error come back as one text."""
        done = finish(command, self.folder, self.environment, TIMEOUT)
        if check and done.returncode:
            pytest.fail(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-TAIL:]}")
        return done

    def snakemake(
        self, *arguments: str, overlay: Mapping[str, Any] | None = None, check: bool = True
    ) -> subprocess.CompletedProcess[str]:
        return self.run(*self.command(*arguments, overlay=overlay), check=check)

    def planned(self, *arguments: str, overlay: Mapping[str, Any] | None = None) -> dict[str, int]:
        """Rules that a dry run would execute and how often.

        Parameter stamps are written when the Snakefile is read, in a dry run too; they are put back afterwards.
        """
        stamps, kept = self.results / "stamps", self.folder / "stamps.kept"
        shutil.copytree(stamps, kept)
        try:
            text = self.snakemake("--dry-run", *arguments, overlay=overlay).stdout
        finally:
            shutil.rmtree(stamps)
            kept.rename(stamps)
        return planned_rules(text)

    def copy(self, folder: Path) -> "Workspace":
        """A copy with all results and Snakemake's own records, times kept; large results are links."""
        shutil.copytree(self.folder, folder, symlinks=True, copy_function=_link_large_results)
        return Workspace(folder)


def _link_large_results(source: str, target: str) -> None:
    """The workflow replaces large files, it never writes into them; so a copy may share them."""
    if "/results/" in source and Path(source).stat().st_size > 2**19:
        os.link(source, target)
    else:
        shutil.copy2(source, target)


def planned_rules(text: str) -> dict[str, int]:
    """Read the job statistics of a dry run; nothing to be done is an empty plan."""
    if "Nothing to be done" in text:
        return {}
    table = re.search(r"^Job stats:\n(.*?)\n\n", text, flags=re.DOTALL | re.MULTILINE)
    assert table, f"no job statistics in\n{text[-3000:]}"
    rows = [line.split() for line in table[1].splitlines()[2:]]
    return {rule: int(count) for rule, count in rows if rule not in ("all", "total")}


def copy_tree(folder: Path, checkout: Path = ROOT) -> Workspace:
    """Copy what the workflow needs of a checkout, without anything computed."""
    for name in TREE:
        source, target = checkout / name, folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy2(source, target)
    return Workspace(folder)
