"""Adapt the backbone to a task with one method, for all seeds, and score every test image."""

import shutil
from pathlib import Path

import pandas as pd
from _job import data_root, device, job

from conceptbench.adaptation import PlainFeatures, adapt, evaluate, move_adapters
from conceptbench.backbones import load_backbone
from conceptbench.data import open_dataset
from conceptbench.provenance import write_manifest
from conceptbench.tables import write_table

with job(snakemake) as spec:
    backbone = load_backbone(Path(snakemake.input.backbone).parent, device(snakemake), name=spec["backbone"])
    dataset = open_dataset(Path(snakemake.input.dataset).parent, data_root(snakemake))
    plain, tables = PlainFeatures(backbone, dataset), []
    out, work = Path(snakemake.output.manifest).parent, Path(snakemake.params.work)
    shutil.rmtree(work, ignore_errors=True)
    for seed in spec["seeds"]:
        method = {"name": spec["name"], **spec["method"]}
        adapter = adapt(method, backbone, dataset, spec["shots"], seed, spec["setting"], plain=plain)
        adapter.save(work / f"seed{seed}")
        scored = evaluate(adapter, backbone, dataset, plain=plain)
        tables.append(scored.assign(task=spec["task"], method=spec["name"]))
    names = [f"seed{seed}" for seed in spec["seeds"]]
    move_adapters(work, out, names)
    write_table(pd.concat(tables, ignore_index=True), Path(snakemake.output.predictions).with_suffix(""))
    write_manifest(
        snakemake.output.manifest,
        outputs={name: out / name / "card.json" for name in names},
        inputs={"backbone": Path(snakemake.input.backbone), "dataset": Path(snakemake.input.dataset)},
        spec=spec,
    )
