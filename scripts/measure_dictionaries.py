"""Put the held-out metrics of all dictionaries into one table."""

from pathlib import Path

from _job import job

from conceptbench.measures.dictionaries import measure_dictionaries
from conceptbench.tables import write_table

with job(snakemake) as spec:
    folders = {Path(path).parent.name: Path(path).parent for path in snakemake.input.dictionaries}
    write_table(measure_dictionaries(folders), Path(snakemake.output.table).with_suffix(""))
