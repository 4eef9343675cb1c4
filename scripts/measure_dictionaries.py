"""Put the held-out metrics of all dictionaries, and how often their latents fire, into tables."""

from pathlib import Path

from _job import job

from conceptbench.measures.dictionaries import count_densities, measure_dictionaries
from conceptbench.tables import write_table

with job(snakemake) as spec:
    folders = {Path(path).parent.name: Path(path).parent for path in snakemake.input.dictionaries}
    write_table(measure_dictionaries(folders), Path(snakemake.output.table).with_suffix(""))
    write_table(count_densities(folders), Path(snakemake.output.densities).with_suffix(""))
