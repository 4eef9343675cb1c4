"""Adapt the backbone to a task with one method, for all seeds, and score every test image."""

from pathlib import Path

import pandas as pd
from _job import data_root, device, job

from conceptbench.adaptation import adapt, evaluate
from conceptbench.backbones import load_backbone
from conceptbench.data import open_dataset
from conceptbench.provenance import write_manifest
from conceptbench.tables import write_table

with job(snakemake) as spec:
    backbone = load_backbone(Path(snakemake.input.backbone).parent, device(snakemake), name=spec["backbone"])
    dataset = open_dataset(Path(snakemake.input.dataset).parent, data_root(snakemake))
    out, files, tables = Path(snakemake.output.manifest).parent, {}, []
    for seed in spec["seeds"]:
        method = {"name": spec["name"], **spec["method"]}
        adapter = adapt(method, backbone, dataset, spec["shots"], seed, spec["setting"])
        adapter.save(out / f"seed{seed}")
        files[f"seed{seed}"] = out / f"seed{seed}" / "card.json"
        tables.append(evaluate(adapter, backbone, dataset).assign(task=spec["task"], method=spec["name"]))
    write_table(pd.concat(tables, ignore_index=True), Path(snakemake.output.predictions).with_suffix(""))
    write_manifest(
        snakemake.output.manifest,
        outputs=files,
        inputs={"backbone": Path(snakemake.input.backbone), "dataset": Path(snakemake.input.dataset)},
        spec=spec,
    )
