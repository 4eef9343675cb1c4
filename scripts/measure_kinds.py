"""Ask of every dictionary over outputs whether one latent unites the members of a named kind."""

from pathlib import Path

from _job import job

from conceptbench.data import open_dataset
from conceptbench.measures.stages.kinds import measure_kinds
from conceptbench.tables import write_table

with job(snakemake) as spec:
    sources = {Path(path).parent.name: Path(path).parent for path in snakemake.input.dictionaries}
    dataset = open_dataset(Path(snakemake.input.dataset).parent)
    for name, table in measure_kinds(sources, dataset, spec).items():
        write_table(table, Path(snakemake.output[name]).with_suffix(""))
