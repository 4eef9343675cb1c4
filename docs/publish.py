"""Bring the pictures and numbers of a finished default run into the documents: `make docs`.

Writes docs/images/*.png, docs/results.md and the drawing of the DAG in README.md; nothing in them is typed by hand.
docs/claims.md is the page of the remapping study (examples/remapping.yaml), where that has run here too.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd

from conceptbench.config import load_config
from conceptbench.errors import ConceptBenchError
from conceptbench.tables import read_json, read_table

ROOT = Path(__file__).resolve().parents[1]
FIGURES = (
    "factor_recovery",
    "decomposition",
    "accuracy",
    "exemplars",
    "overlap",
    "zero_shot",
    "named_kinds",
    "pareto",
    "leaderboard",
    "stability",
    "monosemanticity",
    "runtime",
)
DAG = re.compile(r"(<!-- dag: .*? -->\n).*?(<!-- /dag -->)", re.DOTALL)


def main() -> None:
    """Publish the default experiment."""
    results = ROOT / "results" / load_config(ROOT / "config.yaml").experiment
    if not (results / "metrics.json").is_file():
        raise ConceptBenchError(f"{results} holds no finished run; run `make run` first.")
    images = ROOT / "docs" / "images"
    images.mkdir(exist_ok=True)
    for name in FIGURES:
        shutil.copyfile(results / "figures" / f"{name}.png", images / f"{name}.png")
    (ROOT / "docs" / "results.md").write_text(results_page(results), encoding="utf-8")
    study = ROOT / "results" / load_config(ROOT / "config.yaml", ROOT / "examples" / "remapping.yaml").experiment
    publish_claims(study, ROOT / "docs" / "claims.md")
    readme = ROOT / "README.md"
    drawn = DAG.sub(lambda found: found[1] + rule_graph() + found[2], readme.read_text(encoding="utf-8"))
    readme.write_text(drawn, encoding="utf-8")


def publish_claims(study: Path, page: Path) -> None:
    """Copy the claims page of the remapping study; without one the page stays, and a line says so."""
    made = study / "claims.md"
    if made.is_file():
        shutil.copyfile(made, page)
    else:
        print(f"{made} does not exist: {page.name} stays as it is; for a new one run examples/remapping.yaml.")


def rule_graph() -> str:
    """The rules and what flows between them as a Mermaid drawing; all figures are one node, `all` is left out."""
    command = [sys.executable, "-m", "snakemake", "--rulegraph", "mermaid-js"]
    text = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    names = dict(re.findall(r"(id\d+)\[(\w+)\]", text))
    short = {node: "draw_*" if name.startswith("draw_") else name for node, name in names.items()}
    edges = {(short[a], short[b]) for a, b in re.findall(r"(id\d+) --> (id\d+)", text)}
    shown = sorted((a, b) for a, b in edges if b != "all" and a != b)
    used = sorted({name for edge in shown for name in edge})
    ids = {name: f"r{number}" for number, name in enumerate(used)}
    lines = [f'    {ids[name]}["{name}"]' for name in used] + [f"    {ids[a]} --> {ids[b]}" for a, b in shown]
    return "\n".join(["```mermaid", "flowchart LR", *lines, "```", ""])


def results_page(results: Path) -> str:
    """The headline numbers of the default run and where its time went."""
    metrics = read_json(results / "metrics.json")
    machine = read_json(next((results / "dictionaries").glob("*/manifest.json")))["machine"]
    parts = [
        "# Results of the default run",
        "Written by `make docs` from `results/testbed`; not edited by hand. Intervals are 95 %. "
        f"Machine: {machine['cpu']}, {machine['cores']} cores, Python {machine['python']}.",
        "![Accuracy before and after adaptation](images/accuracy.png)",
        "![Exemplars](images/exemplars.png)",
        "## Headline numbers",
        _markdown(metric_rows(metrics)),
        "## Where the time goes",
        _summary(read_table(results / "tables" / "runtime_summary.parquet").iloc[0]),
        _markdown(read_table(results / "tables" / "runtime.parquet").round(1)),
        "![Runtime](images/runtime.png)",
    ]
    return "\n\n".join(parts) + "\n"


def metric_rows(metrics: dict[str, float]) -> pd.DataFrame:
    """One row a key of metrics.json, its interval in the same row."""
    keys = [key for key in metrics if not key.endswith((".low", ".high"))]
    rows = []
    for key in keys:
        low, high = metrics.get(f"{key}.low"), metrics.get(f"{key}.high")
        interval = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
        rows.append({"key": f"`{key}`", "estimate": f"{metrics[key]:.3f}", "95 % interval": interval})
    return pd.DataFrame(rows)


def _summary(row: pd.Series) -> str:
    return (
        f"{row['jobs']:.0f} jobs in {row['wall_seconds']:.0f} s of wall time; in {row['outside_seconds']:.0f} s of it "
        f"({100 * row['outside_share']:.0f} %) no job was at work (start-up, imports, scheduling)."
    )


def _markdown(table: pd.DataFrame) -> str:
    head = [" | ".join(table.columns), " | ".join("---" for _ in table.columns)]
    return "\n".join(f"| {line} |" for line in [*head, *(" | ".join(map(str, row)) for row in table.to_numpy())])


if __name__ == "__main__":
    try:
        main()
    except ConceptBenchError as error:
        sys.exit(f"Error: {error}")
