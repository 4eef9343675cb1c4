"""Existing and recruited shares of every adaptation, with controls and the converse."""

from pathlib import Path

import pandas as pd
from _job import job
from _remapping import adapted_dictionaries, followed_dictionaries, task_inputs

from conceptbench.measures.stages.concepts import FOLLOWED, measure_concepts
from conceptbench.tables import write_table

with job(snakemake) as spec:
    dictionaries = {FOLLOWED: {"": followed_dictionaries(snakemake, spec)}}
    for name in spec["random_dictionaries"]:
        dictionaries["random"] = {"": followed_dictionaries(snakemake, spec, name)}
    tables = []
    for of in task_inputs(snakemake, spec):
        adapted = adapted_dictionaries(snakemake, spec, of.task)
        mine = dictionaries | ({"adapted": adapted} if adapted else {})
        tables.append(measure_concepts(of.task, of.backbone, of.dataset, of.adapters, mine, spec))
    write_table(pd.concat(tables, ignore_index=True), Path(snakemake.output.concepts).with_suffix(""))
