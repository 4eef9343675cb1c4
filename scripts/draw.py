"""Draw one figure: the rule draw_<name> calls conceptbench.figures.<name>.draw_<name> with its input tables."""

from importlib import import_module
from pathlib import Path

from _job import job

from conceptbench.tables import read_table

NOT_TABLES = ("stamp", "code")
figure = import_module(f"conceptbench.figures.{snakemake.rule.removeprefix('draw_')}")

with job(snakemake) as spec:
    inputs = {name: Path(path) for name, path in snakemake.input.items() if name not in NOT_TABLES}
    tables = {name: read_table(path) if path.suffix == ".parquet" else path for name, path in inputs.items()}
    options = {name: value for name, value in spec.items() if name in ("latents", "images")}
    options |= dict(snakemake.params.get("options", {}))
    stem = Path(snakemake.output.png).with_suffix("")
    getattr(figure, snakemake.rule)(*tables.values(), stem, formats=spec["format"], dpi=spec["dpi"], **options)
