"""Where the gain of an adaptation comes from: hybrids of the two models, and the shares of perception and mapping."""

from pathlib import Path

from _job import data_root, device, job

from conceptbench.adaptation import PlainFeatures, load_adapter
from conceptbench.backbones import load_backbone
from conceptbench.data import open_dataset
from conceptbench.measures.stages.decomposition import measure_decomposition
from conceptbench.measures.stages.overlap import join_tables
from conceptbench.tables import write_table

with job(snakemake) as spec:
    backbone = load_backbone(Path(snakemake.input.backbone).parent, device(snakemake), name=spec["backbone"])
    parts, plain = [], {}
    for path in snakemake.input.adapted:
        trained, method = Path(path).parents[1], Path(path).parent.name
        task = trained.name
        dataset = open_dataset(Path(snakemake.params.datasets) / task, data_root(snakemake))
        adapters = {
            seed: tuple(load_adapter(trained / name / f"seed{seed}", backbone) for name in ("zero-shot", method))
            for seed in spec["seeds"]
        }
        plain.setdefault(task, PlainFeatures(backbone, dataset))
        parts.append(measure_decomposition(task, method, backbone, dataset, adapters, spec, plain[task]))
    for name, table in join_tables(parts).items():
        write_table(table, Path(snakemake.output[name]).with_suffix(""))
