"""Describe a data set: its images, labels, captions, factors and splits."""

from pathlib import Path

from _job import data_root, job

from conceptbench.data import DatasetSpec, prepare_dataset

with job(snakemake) as spec:
    name, seed = spec.pop("name"), spec.pop("seed")
    prepare_dataset(
        DatasetSpec.of(name, spec),
        Path(snakemake.output.card).parent,
        data_root(snakemake),
        seed,
        workers=snakemake.threads,
    )
