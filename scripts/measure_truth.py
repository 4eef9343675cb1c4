"""Score every dictionary against the rendered world, beside its nulls."""

from pathlib import Path

from _job import job

from conceptbench.data import open_dataset
from conceptbench.measures.stages.truth import measure_truth
from conceptbench.tables import read_json, write_table

with job(snakemake) as spec:
    dataset = open_dataset(Path(snakemake.input.dataset).parent)
    sources = {Path(path).parent.parent.name: Path(path).parent for path in snakemake.input.codes}
    stores = {Path(path).parent.parent.name: read_json(path) for path in snakemake.input.activations}
    grids = {name: tuple(manifest["spec"]["grid"]) for name, manifest in stores.items()}
    for name, table in measure_truth(sources, grids, dataset, spec).items():
        write_table(table, Path(snakemake.output[name]).with_suffix(""))
