"""Provide a small backbone: the shipped one when its recipe and everything that defines it match, else train it."""

from pathlib import Path

from _job import job

from conceptbench.backbones import seal_backbone
from conceptbench.backbones.shipped import provide_trained

with job(snakemake) as spec:
    provide_trained(
        spec["name"],
        spec["recipe"],
        Path(snakemake.output.card).parent,
        work=Path(snakemake.params.work),
        seed=spec["seed"],
        images=spec["images"],
    )
    seal_backbone(Path(snakemake.output.card).parent)
