"""Learn every dictionary (method, seed) at every hook point of a backbone, one pass over the tokens of a block.

The tokens come from a store, or from the backbone itself where the configuration says `live`.
"""

from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
from _job import data_root, device, job
from _learning import HELD_OUT_IMAGES, digest_of_files, learn_from, open_tokens, place

from conceptbench.data import open_dataset
from conceptbench.dictionaries import specify
from conceptbench.dictionaries.ledger import Ledger
from conceptbench.provenance import write_manifest
from conceptbench.seeds import rng

with job(snakemake) as spec:
    dataset = open_dataset(Path(snakemake.input.dataset).parent, data_root(snakemake))
    tokens = open_tokens(snakemake.input, dataset, spec, device(snakemake))
    methods = [specify(name=name, **options) for name, options in spec["methods"].items()]
    rows = dataset.sample("train", spec["images"], spec["seed"])
    held_out = dataset.sample("val", HELD_OUT_IMAGES, spec["seed"])
    halved = [method for method in methods if method.name in spec["halves"]]
    halves = np.array_split(rng(spec["seed"], "halves").permutation(rows), 2) if halved else []
    runs = [
        ("seed", methods, spec["seeds_of"], rows),
        *(("half", halved, [at], part) for at, part in enumerate(halves)),
    ]
    out, files = Path(snakemake.output.manifest).parent, {}
    ledger = Ledger(out / "checkpoints", digest_of_files(snakemake.input))
    for block, (kind, chosen, seeds, images) in product(spec["blocks"], runs):
        learn = partial(learn_from, tokens, block, chosen, seeds, (images, held_out), spec, device(snakemake))
        saved = ledger.part(f"block{block}-{kind}", learn, place(out / f"block{block}", kind))
        for (name, seed), folder in saved.items():
            files[f"{block}.{name}.{seed}" if kind == "seed" else f"{block}.{name}.half{seed}"] = folder / "card.json"
    source = ("backbone", snakemake.input.backbone) if spec.get("live") else ("store", snakemake.input.activations)
    write_manifest(snakemake.output.manifest, outputs=files, inputs={source[0]: Path(source[1])}, spec=spec)
    ledger.close()
