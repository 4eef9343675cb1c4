"""Rank all dictionaries by what the other measures found."""

from pathlib import Path

from _job import job

from conceptbench.measures.leaderboard import measure_leaderboard
from conceptbench.tables import read_table, write_table

with job(snakemake) as spec:
    tables = {Path(path).stem: read_table(path) for path in snakemake.input.tables}
    table = measure_leaderboard(tables, spec["dictionaries"], spec["configured"], spec["reference"])
    write_table(table, Path(snakemake.output.leaderboard).with_suffix(""))
