"""Describe a data set: its images, labels, captions, factors and splits."""

from pathlib import Path

from _job import job

from conceptbench.data import DatasetSpec, prepare_dataset

with job(snakemake) as spec:
    name, seed = spec.pop("name"), spec.pop("seed")
    root = snakemake.params.data_root
    prepare_dataset(
        DatasetSpec.of(name, spec),
        Path(snakemake.output.card).parent,
        Path(root) if root else None,
        seed,
    )
