"""Measure what vision-language backbones know of the rendered world before anything is learnt or adapted."""

from pathlib import Path

import pandas as pd
from _job import device, job

from conceptbench.backbones import load_backbone
from conceptbench.data import open_dataset
from conceptbench.measures.backbones import measure_backbone
from conceptbench.seeds import rng
from conceptbench.tables import write_table

with job(snakemake) as spec:
    scenes = open_dataset(Path(snakemake.input.dataset).parent)
    tables = []
    for card in snakemake.input.backbones:
        backbone = load_backbone(Path(card).parent, device(snakemake), name=Path(card).parent.name)
        if backbone.has_text:
            tables.append(measure_backbone(backbone, scenes, rng(spec["seed"], "backbones"), spec["resamples"]))
    write_table(pd.concat(tables, ignore_index=True), Path(snakemake.output.table).with_suffix(""))
