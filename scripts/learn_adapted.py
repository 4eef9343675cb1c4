"""Learn the followed dictionary again on the activations of an adapted model, for all seeds."""

from functools import partial
from pathlib import Path
from shutil import rmtree

import numpy as np
from _job import data_root, device, job
from _learning import HELD_OUT_IMAGES, learn_from

from conceptbench.activations import ActivationStore, RecordingContext, record
from conceptbench.adaptation import load_adapter
from conceptbench.backbones import load_backbone
from conceptbench.data import open_dataset
from conceptbench.dictionaries import load_dictionary, specify
from conceptbench.provenance import write_manifest
from conceptbench.tables import sha256_file

with job(snakemake) as spec:
    backbone = load_backbone(Path(snakemake.input.backbone).parent, device(snakemake), name=spec["backbone"])
    dataset = open_dataset(Path(snakemake.input.dataset).parent, data_root(snakemake))
    adapters, block = Path(snakemake.input.adapters).parent, spec["block"]
    learnt = Path(snakemake.input.dictionaries).parent / f"block{block}" / spec["dictionary"]
    rows = dataset.sample("train", spec["images"], spec["seed"])
    held_out = dataset.sample("val", HELD_OUT_IMAGES, spec["seed"])
    out, files = Path(snakemake.output.manifest).parent / "dictionary", {}
    for seed in spec["seeds"]:
        adapter = load_adapter(adapters / f"seed{seed}", backbone)
        digest = sha256_file(adapters / f"seed{seed}" / "adapter.safetensors")
        context = RecordingContext(f"{spec['method']}/seed{seed}", digest, partial(adapter.image_context, backbone))
        work = Path(snakemake.params.work) / f"seed{seed}"
        every = np.sort(np.concatenate([rows, held_out]))
        record(backbone, dataset, [block], work / "store", work=work / "work", rows=every, context=context)
        store = ActivationStore.open(work / "store", {"backbone": spec["backbone"], "block": block})
        first = learnt / f"seed{seed}"
        options = load_dictionary(first if first.is_dir() else learnt / f"seed{spec['seeds'][0]}").card["spec"]
        methods, seeds = [specify(**options)], {options["name"]: [seed]}
        dictionaries = learn_from(store, block, methods, seeds, (rows, held_out), spec=spec, device=device(snakemake))
        next(iter(dictionaries.values())).save(out / f"seed{seed}")
        files[f"seed{seed}"] = out / f"seed{seed}" / "card.json"
        rmtree(work)
    inputs = {"adapters": Path(snakemake.input.adapters), "dictionaries": Path(snakemake.input.dictionaries)}
    write_manifest(snakemake.output.manifest, outputs=files, inputs=inputs, spec=spec)
