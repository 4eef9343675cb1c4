"""Learn every dictionary (method, seed) on the recorded outputs of a backbone, and encode the val and test images."""

from pathlib import Path

import numpy as np
from _job import device, job
from _learning import digest_of_files, place

from conceptbench.activations.outputs import read_outputs
from conceptbench.data import open_dataset
from conceptbench.dictionaries import CheckpointPolicy, Dictionary, learn_many, load_dictionary, specify
from conceptbench.dictionaries.arrays import shuffled_epochs
from conceptbench.dictionaries.ledger import Ledger
from conceptbench.provenance import write_manifest

BATCH = 4096

with job(snakemake) as spec:
    dataset, outputs = open_dataset(Path(snakemake.input.dataset).parent), Path(snakemake.input.outputs)
    train, held_out = (read_outputs(outputs, dataset.rows(split)) for split in ("train", "val"))
    rows = np.concatenate([dataset.rows("val"), dataset.rows("test")])
    out, files = Path(snakemake.output.manifest).parent, {}
    ledger = Ledger(out / "checkpoints", digest_of_files(snakemake.input))

    def learn(policy: CheckpointPolicy) -> dict[tuple[str, int], Dictionary]:
        """All dictionaries of the backbone's outputs."""
        return learn_many(
            [specify(name=name, **options) for name, options in spec["methods"].items()],
            shuffled_epochs(train, BATCH, spec["seed"]),
            d=train.shape[1],
            seeds=spec["seeds_of"],
            held_out=held_out,
            tokens_per_epoch=len(train),
            experiment_seed=spec["seed"],
            device=device(snakemake),
            provenance={"hook": "output", "backbone": spec["backbone"]},
            checkpoint=policy,
        )

    saved = ledger.part("outputs", learn, place(out))
    for (name, seed), folder in saved.items():
        load_dictionary(folder).encode(read_outputs(outputs, rows)).save(folder / "codes.safetensors")
        files[f"{name}.{seed}"] = folder / "card.json"
        files[f"{name}.{seed}.codes"] = folder / "codes.safetensors"
    inputs, extra = {"outputs": outputs}, {"rows": [int(row) for row in rows]}
    write_manifest(snakemake.output.manifest, outputs=files, inputs=inputs, spec=spec, extra=extra)
    ledger.close()
