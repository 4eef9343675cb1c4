"""Statistics and exemplars of every latent, and the pictures of the exemplar figure."""

from pathlib import Path

import numpy as np
from _job import data_root, job

from conceptbench.data import open_dataset
from conceptbench.measures.stages.latents import choose_latents, measure_latents, picture_exemplars
from conceptbench.tables import atomic_write, read_json, write_table

with job(snakemake) as spec:
    folders = {Path(path).parent.name: Path(path).parent for path in snakemake.input.codes}
    datasets = {
        Path(path).parent.name: open_dataset(Path(path).parent, data_root(snakemake))
        for path in snakemake.input.datasets
    }
    stores = {Path(path).parent.name: read_json(path) for path in snakemake.input.activations}
    grids = {name: tuple(manifest["spec"]["grid"]) for name, manifest in stores.items()}
    latents, exemplars = measure_latents({name: (folders[name], datasets[name]) for name in folders}, grids, spec)
    write_table(latents, Path(snakemake.output.latents).with_suffix(""))
    write_table(exemplars, Path(snakemake.output.exemplars).with_suffix(""))
    shown = choose_latents(latents, spec)
    on = shown.dataset
    arrays = picture_exemplars(folders[on], datasets[on], grids[on], exemplars, shown)
    with atomic_write(Path(snakemake.output.pictures)) as path, path.open("wb") as file:
        np.savez(file, **arrays)
