"""The followed dictionary on the adapted models, beside one learnt there."""

from pathlib import Path

import pandas as pd
from _job import job
from _remapping import adapted_dictionaries, followed_dictionaries, task_inputs

from conceptbench.measures.stages.validity import measure_validity
from conceptbench.tables import write_table

with job(snakemake) as spec:
    followed = followed_dictionaries(snakemake, spec)
    tables = []
    for of in task_inputs(snakemake, spec):
        adapted = adapted_dictionaries(snakemake, spec, of.task)
        tables.append(measure_validity(of.task, of.backbone, of.dataset, of.adapters, followed, adapted, spec))
    write_table(pd.concat(tables, ignore_index=True), Path(snakemake.output.validity).with_suffix(""))
