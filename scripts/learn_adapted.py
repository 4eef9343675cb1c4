"""Learn the followed dictionary again on the activations of an adapted model, for all seeds."""

from functools import partial
from pathlib import Path
from shutil import rmtree

import numpy as np
from _job import data_root, device, job
from _learning import HELD_OUT_IMAGES, digest_of_files, learn_from

from conceptbench.activations import ActivationStore, RecordingContext, record
from conceptbench.adaptation import load_adapter
from conceptbench.backbones import load_backbone
from conceptbench.data import open_dataset
from conceptbench.dictionaries import CheckpointPolicy, Dictionary, load_dictionary, specify
from conceptbench.dictionaries.ledger import Ledger
from conceptbench.provenance import write_manifest
from conceptbench.tables import sha256_file

with job(snakemake) as spec:
    backbone = load_backbone(Path(snakemake.input.backbone).parent, device(snakemake), name=spec["backbone"])
    dataset = open_dataset(Path(snakemake.input.dataset).parent, data_root(snakemake))
    adapters, block = Path(snakemake.input.adapters).parent, spec["block"]
    learnt = Path(snakemake.input.dictionaries).parent / f"block{block}" / spec["dictionary"]
    rows = dataset.sample("train", spec["images"], spec["seed"])
    held_out = dataset.sample("val", HELD_OUT_IMAGES, spec["seed"])
    out, work, files = Path(snakemake.output.manifest).parent / "dictionary", Path(snakemake.params.work), {}
    every = np.sort(np.concatenate([rows, held_out]))
    ledger = Ledger(work / "checkpoints", digest_of_files(snakemake.input))

    def learn(seed: int, policy: CheckpointPolicy) -> dict[tuple[str, int], Dictionary]:
        """The followed dictionary on the adapted model of one seed."""
        adapter = load_adapter(adapters / f"seed{seed}", backbone)
        digest = sha256_file(adapters / f"seed{seed}" / "adapter.safetensors")
        context = RecordingContext(f"{spec['method']}/seed{seed}", digest, partial(adapter.image_context, backbone))
        of_seed = work / f"seed{seed}"
        record(backbone, dataset, [block], of_seed / "store", work=of_seed / "work", rows=every, context=context)
        store = ActivationStore.open(of_seed / "store", {"backbone": spec["backbone"], "block": block})
        first = learnt / f"seed{seed}"
        options = load_dictionary(first if first.is_dir() else learnt / f"seed{spec['seeds'][0]}").card["spec"]
        methods, seeds = [specify(**options)], {options["name"]: [seed]}
        return learn_from(store, block, methods, seeds, (rows, held_out), spec, device(snakemake), policy)

    for seed in spec["seeds"]:
        ledger.part(f"seed{seed}", partial(learn, seed), lambda _, of: out / f"seed{of}")
        files[f"seed{seed}"] = out / f"seed{seed}" / "card.json"
        rmtree(work / f"seed{seed}", ignore_errors=True)
    inputs = {"adapters": Path(snakemake.input.adapters), "dictionaries": Path(snakemake.input.dictionaries)}
    write_manifest(snakemake.output.manifest, outputs=files, inputs=inputs, spec=spec)
    ledger.close()
