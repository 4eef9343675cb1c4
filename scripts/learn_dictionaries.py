"""Learn every dictionary (method, seed) at every hook point of a backbone, one pass over the tokens of a block.

The tokens come from a store, or from the backbone itself where the configuration says `live`.
"""

import hashlib
from itertools import product
from pathlib import Path

import numpy as np
from _job import data_root, device, job

from conceptbench.activations import ActivationStore, LiveTokens
from conceptbench.data import open_dataset
from conceptbench.dictionaries import CheckpointPolicy, learn_many, specify
from conceptbench.provenance import write_manifest
from conceptbench.seeds import rng
from conceptbench.tables import read_json

BATCH, BUFFER, HELD_OUT_IMAGES = 8192, 2**20, 512

with job(snakemake) as spec:
    dataset = open_dataset(Path(snakemake.input.dataset).parent, data_root(snakemake))
    card = Path(snakemake.input.backbone)
    if spec.get("live"):
        from conceptbench.backbones import load_backbone  # takes seconds, which a store does not need

        backbone = load_backbone(card.parent, device(snakemake), name=spec["backbone"])
        source = LiveTokens(backbone, dataset, spec["blocks"], precision=spec.get("precision", "float32"))
    else:
        weights = read_json(card).get("digest")
        expected = {"backbone": spec["backbone"], "backbone_digest": weights, "dataset_digest": dataset.digest}
        source = ActivationStore.open(Path(snakemake.input.activations).parent, expected)
    methods = [specify(name=name, **options) for name, options in spec["methods"].items()]
    rows = dataset.sample("train", spec["images"], spec["seed"])
    held_out = dataset.sample("val", HELD_OUT_IMAGES, spec["seed"])
    out, files = Path(snakemake.output.manifest).parent, {}
    # a killed job goes on from its checkpoints; other parameters look for theirs elsewhere
    checkpoints = out / "checkpoints" / hashlib.sha256(Path(snakemake.input.stamp).read_bytes()).hexdigest()[:16]
    halved = [method for method in methods if method.name in spec["halves"]]
    halves = np.array_split(rng(spec["seed"], "halves").permutation(rows), 2) if halved else []
    runs = [
        ("seed", methods, spec["seeds_of"], rows),
        *(("half", halved, [at], part) for at, part in enumerate(halves)),
    ]
    for block, (kind, chosen, seeds, images) in product(spec["blocks"], runs):
        learnt = learn_many(
            chosen,
            lambda epoch, block=block, images=images: source.shuffled_tokens(
                block, BATCH, spec["seed"], epoch, BUFFER, images
            ),
            d=source.shape[2],
            seeds=seeds,
            held_out=source.read(block, held_out).reshape(-1, source.shape[2]),
            tokens_per_epoch=len(images) * source.shape[1],
            experiment_seed=spec["seed"],
            device=device(snakemake),
            provenance={"store": source.spec_digest, "block": block, "backbone": spec["backbone"]},
            checkpoint=CheckpointPolicy(checkpoints / f"block{block}-{kind}"),
        )
        for (name, seed), dictionary in learnt.items():
            folder = out / f"block{block}" / name / f"{kind}{seed}"
            dictionary.save(folder)
            files[f"{block}.{name}.{seed}" if kind == "seed" else f"{block}.{name}.half{seed}"] = folder / "card.json"
    inputs = {"backbone": card} if spec.get("live") else {"store": Path(snakemake.input.activations)}
    write_manifest(snakemake.output.manifest, outputs=files, inputs=inputs, spec=spec)
