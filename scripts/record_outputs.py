"""Record the output of a backbone, one embedding an image, on the train, val and test images of a data set."""

from pathlib import Path

import numpy as np
from _job import device, job

from conceptbench.activations.outputs import record_outputs
from conceptbench.backbones import load_backbone
from conceptbench.data import open_dataset

with job(snakemake) as spec:
    dataset = open_dataset(Path(snakemake.input.dataset).parent)
    record_outputs(
        load_backbone(Path(snakemake.input.backbone).parent, device(snakemake), name=spec["backbone"]),
        dataset,
        np.concatenate([dataset.rows(split) for split in ("train", "val", "test")]),
        Path(snakemake.output.outputs),
    )
