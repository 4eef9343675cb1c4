"""Error against sparsity of every dictionary, with intervals over seeds."""

from pathlib import Path

from _job import job

from conceptbench.measures.pareto import measure_pareto
from conceptbench.tables import read_table, write_table

with job(snakemake) as spec:
    table = measure_pareto(read_table(snakemake.input.dictionaries), spec["dictionaries"], spec["configured"])
    write_table(table, Path(snakemake.output.pareto).with_suffix(""))
