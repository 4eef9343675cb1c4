"""Measure what vision-language backbones know of the rendered world before anything is learnt or adapted."""

from pathlib import Path

import pandas as pd
from _job import device, job

from conceptbench.backbones import load_backbone
from conceptbench.data import open_dataset
from conceptbench.measures.backbones import measure_backbone
from conceptbench.measures.kinds_text import measure_kinds_text
from conceptbench.measures.resampling import costly_resamples
from conceptbench.seeds import rng
from conceptbench.tables import write_table

with job(snakemake) as spec:
    scenes = open_dataset(Path(snakemake.input.dataset).parent)
    tables, kinds = [], []
    for card in snakemake.input.backbones:
        backbone = load_backbone(Path(card).parent, device(snakemake), name=Path(card).parent.name)
        if backbone.has_text:
            tables.append(measure_backbone(backbone, scenes, rng(spec["seed"], "backbones"), spec["resamples"]))
            resamples = costly_resamples(spec["resamples"])
            kinds.append(measure_kinds_text(backbone, scenes, rng(spec["seed"], "kinds"), resamples))
    write_table(pd.concat(tables, ignore_index=True), Path(snakemake.output.backbones).with_suffix(""))
    write_table(pd.concat(kinds, ignore_index=True), Path(snakemake.output.kinds_text).with_suffix(""))
