"""The estimators of remapping scored on planted adaptations."""

from pathlib import Path

from _job import job
from _remapping import followed_dictionaries, task_inputs

from conceptbench.measures.stages.models import ZERO_SHOT
from conceptbench.measures.stages.plants import measure_plants
from conceptbench.tables import write_table

with job(snakemake) as spec:
    of, seed = next(iter(task_inputs(snakemake, spec))), spec["seeds"][0]
    dictionary = followed_dictionaries(snakemake, spec)[seed]
    made = measure_plants(of.backbone, of.dataset, of.adapters[ZERO_SHOT][seed], dictionary, spec)
    for name, table in made.items():
        write_table(table, Path(snakemake.output[name]).with_suffix(""))
