"""Overlap of each class's top latents before and after adaptation, beside its nulls."""

from pathlib import Path

from _job import data_root, job

from conceptbench.data import open_dataset
from conceptbench.measures.stages.encoded import read_adapted, read_encoded
from conceptbench.measures.stages.overlap import join_tables, measure_overlap
from conceptbench.tables import write_table

with job(snakemake) as spec:
    parts = []
    for path in snakemake.input.adapted:
        task, method = Path(path).parent.parent.name, Path(path).parent.name
        dataset = open_dataset(Path(snakemake.params.datasets) / task, data_root(snakemake))
        codes = next(read_encoded(Path(snakemake.params.codes) / task, [spec["block"]], [spec["dictionary"]]))
        zero_shot, adapted = codes.of(dataset.rows("test")), read_adapted(Path(path).parent)
        parts.append(measure_overlap(task, method, dataset, zero_shot, adapted, spec))
    for name, table in join_tables(parts).items():
        write_table(table, Path(snakemake.output[name]).with_suffix(""))
