"""Record the tokens of a data set at the hook points of a backbone."""

from pathlib import Path

from _job import data_root, device, job, rows_of

from conceptbench.activations import record
from conceptbench.backbones import load_backbone
from conceptbench.data import open_dataset

with job(snakemake) as spec:
    place = device(snakemake)
    dataset = open_dataset(Path(snakemake.input.dataset).parent, data_root(snakemake))
    record(
        load_backbone(Path(snakemake.input.backbone).parent, place, name=spec["backbone"]),
        dataset,
        spec["blocks"],
        Path(snakemake.output.manifest).parent,
        work=Path(snakemake.params.work),
        rows=rows_of(dataset, spec),
        precision=spec.get("precision", "float32"),
        workers=snakemake.threads,
    )
