"""Collect the headline numbers of the experiment into metrics.json."""

from pathlib import Path

from _job import job

from conceptbench.measures.metrics import MainHook, collect
from conceptbench.tables import read_table, write_json

with job(snakemake) as spec:
    tables = {Path(path).stem: read_table(path) for path in snakemake.input.tables}
    write_json(collect(tables, MainHook(spec["backbone"], spec["block"])), snakemake.output.metrics)
