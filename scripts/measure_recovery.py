"""Score dictionaries that were learnt on synthetic worlds against the atoms and codes that made these."""

from pathlib import Path

from _job import job

from conceptbench.measures.stages.recovery import measure_recovery
from conceptbench.tables import write_table

with job(snakemake) as spec:
    folders = {Path(path).parent.name: Path(path).parent for path in snakemake.input.synthetic}
    for name, table in measure_recovery(folders, spec).items():
        write_table(table, Path(snakemake.output[name]).with_suffix(""))
