"""Put together what every job wrote about its own time."""

from pathlib import Path

from _job import job

from conceptbench.measures.runtime import measure_runtime, read_timings
from conceptbench.tables import write_table

with job(snakemake):
    timings = read_timings(Path(snakemake.params.logs).rglob("*.timing.json"))
    for name, table in measure_runtime(timings).items():
        write_table(table, Path(snakemake.output[name]).with_suffix(""))
