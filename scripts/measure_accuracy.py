"""Accuracy of every adaptation on base and novel classes, and its difference to zero-shot."""

from pathlib import Path

import pandas as pd
from _job import job

from conceptbench.measures.stages.accuracy import measure_accuracy
from conceptbench.tables import write_table

with job(snakemake) as spec:
    predictions = [pd.read_parquet(path) for path in snakemake.input.predictions]
    for name, table in measure_accuracy(predictions, spec).items():
        write_table(table, Path(snakemake.output[name]).with_suffix(""))
