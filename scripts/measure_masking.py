"""Curves of on-top-k and off-top-k masking of zero-shot and adapted models, with controls."""

from pathlib import Path

from _job import job
from _remapping import followed_dictionaries, task_inputs

from conceptbench.measures.stages.masking import measure_masking
from conceptbench.measures.stages.overlap import join_tables
from conceptbench.tables import write_table

with job(snakemake) as spec:
    dictionaries = followed_dictionaries(snakemake, spec)
    parts = [
        measure_masking(of.task, of.backbone, of.dataset, of.adapters, dictionaries, spec)
        for of in task_inputs(snakemake, spec)
    ]
    for name, table in join_tables(parts).items():
        write_table(table, Path(snakemake.output[name]).with_suffix(""))
