"""Which latents speak for which class before and after adaptation, and how far that moved."""

from pathlib import Path

import numpy as np
from _job import job
from _remapping import adapted_dictionaries, followed_dictionaries, task_inputs

from conceptbench.measures.stages.association import measure_association
from conceptbench.measures.stages.overlap import join_tables
from conceptbench.tables import atomic_write, write_table

with job(snakemake) as spec:
    dictionaries = followed_dictionaries(snakemake, spec)
    parts, pictures = [], []
    for of in task_inputs(snakemake, spec):
        adapted = adapted_dictionaries(snakemake, spec, of.task)
        tables, arrays = measure_association(of.task, of.backbone, of.dataset, of.adapters, dictionaries, adapted, spec)
        parts.append(tables)
        pictures.append(arrays)
    for name, table in join_tables(parts).items():
        write_table(table, Path(snakemake.output[name]).with_suffix(""))
    shown = [arrays for arrays in pictures if len(arrays["latent"])] or pictures[:1]
    joined = {key: np.concatenate([arrays[key] for arrays in shown]) for key in shown[0]}
    with atomic_write(Path(snakemake.output.pictures)) as path, path.open("wb") as file:
        np.savez_compressed(file, **joined)
