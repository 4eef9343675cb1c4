"""Encode the stored tokens of a data set with every dictionary of a backbone, all splits but train."""

from pathlib import Path

from _job import job

from conceptbench.activations import ActivationStore
from conceptbench.data import open_dataset
from conceptbench.dictionaries import Codes, load_dictionary
from conceptbench.provenance import write_manifest

IMAGES = 512

with job(snakemake) as spec:
    root = snakemake.params.data_root
    dataset = open_dataset(Path(snakemake.input.dataset).parent, Path(root) if root else None)
    expected = {"backbone": spec["backbone"], "dataset_digest": dataset.digest}
    store = ActivationStore.open(Path(snakemake.input.activations).parent, expected)
    rows = [row for split in spec["splits"] if split in dataset.card["splits"] for row in dataset.rows(split)]
    learnt, out, files = Path(snakemake.input.dictionaries).parent, Path(snakemake.output.manifest).parent, {}
    for block in spec["blocks"]:
        for name, seeds in spec["seeds_of"].items():
            for seed in seeds:
                place = Path(f"block{block}") / name / f"seed{seed}"
                dictionary = load_dictionary(learnt / place)
                parts = [dictionary.encode(tokens) for _, tokens in store.iterate(block, rows, IMAGES)]
                Codes.concatenate(parts).save(out / place / "codes.safetensors")
                files[f"{block}.{name}.{seed}"] = out / place / "codes.safetensors"
    write_manifest(
        snakemake.output.manifest,
        outputs=files,
        inputs={"store": Path(snakemake.input.activations), "dictionaries": Path(snakemake.input.dictionaries)},
        spec=spec,
        extra={"rows": [int(row) for row in rows]},
    )
