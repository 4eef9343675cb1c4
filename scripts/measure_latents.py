"""Statistics and exemplars of every latent, and the pictures of the exemplar figure."""

from pathlib import Path

import numpy as np
from _job import data_root, job

from conceptbench.data import open_dataset
from conceptbench.measures.stages.latents import choose_latents, measure_latents, picture_exemplars
from conceptbench.tables import atomic_write, write_table

with job(snakemake) as spec:
    folders = {Path(path).parent.name: Path(path).parent for path in snakemake.input.codes}
    datasets = {
        Path(path).parent.name: open_dataset(Path(path).parent, data_root(snakemake))
        for path in snakemake.input.datasets
    }
    latents, exemplars = measure_latents({name: (folders[name], datasets[name]) for name in folders}, spec)
    write_table(latents, Path(snakemake.output.latents).with_suffix(""))
    write_table(exemplars, Path(snakemake.output.exemplars).with_suffix(""))
    shown = choose_latents(latents, spec)
    arrays = picture_exemplars(folders[shown.dataset], datasets[shown.dataset], exemplars, shown)
    with atomic_write(Path(snakemake.output.pictures)) as path, path.open("wb") as file:
        np.savez(file, **arrays)
