"""Fetch a pretrained backbone, or take a local one, and save it as an open_clip local directory."""

import shutil
from pathlib import Path

from _job import job

from conceptbench.backbones.fetch import fetch_backbone
from conceptbench.backbones.load import export_backbone

with job(snakemake) as spec:
    work = Path(snakemake.params.work)
    backbone, facts = fetch_backbone(spec, work, Path(snakemake.params.locks))
    export_backbone(backbone, Path(snakemake.output.card).parent, facts)
    shutil.rmtree(work, ignore_errors=True)
