"""Record one part of the tokens of a data set at the hook points of a backbone."""

from pathlib import Path

from _job import data_root, device, job

from conceptbench.activations import Part, record_part
from conceptbench.backbones import load_backbone
from conceptbench.data import open_dataset

with job(snakemake) as spec:
    place = device(snakemake)
    record_part(
        Part.parse(snakemake.wildcards.part),
        load_backbone(Path(snakemake.input.backbone).parent, place, name=spec["backbone"]),
        open_dataset(Path(snakemake.input.dataset).parent, data_root(snakemake)),
        spec["blocks"],
        Path(snakemake.output.part).parent,
        precision=spec.get("precision", "float32"),
    )
