"""Fetch a pretrained backbone, or take a local one, and save it as an open_clip local directory."""

from pathlib import Path

from _job import job

from conceptbench.backbones import export_backbone, load_backbone

with job(snakemake) as spec:
    if spec["kind"] == "local":
        backbone = load_backbone(spec["path"], name=spec["name"])
    else:
        backbone = load_backbone(spec["model"], pretrained=spec["pretrained"], name=spec["name"])
    export_backbone(backbone, Path(snakemake.output.card).parent)
