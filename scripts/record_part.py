"""Record one part of the tokens of a data set at the hook points of a backbone."""

from pathlib import Path

from _job import data_root, device, job, rows_of

from conceptbench.activations import Part, record_part
from conceptbench.backbones import load_backbone
from conceptbench.data import open_dataset

with job(snakemake) as spec:
    place = device(snakemake)
    dataset = open_dataset(Path(snakemake.input.dataset).parent, data_root(snakemake))
    record_part(
        Part.parse(snakemake.wildcards.part),
        load_backbone(Path(snakemake.input.backbone).parent, place, name=spec["backbone"]),
        dataset,
        spec["blocks"],
        Path(snakemake.output.part).parent,
        rows=rows_of(dataset, spec),
        precision=spec.get("precision", "float32"),
        workers=snakemake.threads,
    )
