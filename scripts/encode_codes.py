"""Encode the stored tokens of a data set with every dictionary of a backbone, all splits but train."""

from pathlib import Path

from _job import data_root, device, job

from conceptbench.activations import ActivationStore
from conceptbench.data import open_dataset
from conceptbench.dictionaries import CodesWriter, load_dictionary
from conceptbench.provenance import write_manifest
from conceptbench.tables import read_json

IMAGES = 512

with job(snakemake) as spec:
    place = device(snakemake)
    dataset = open_dataset(Path(snakemake.input.dataset).parent, data_root(snakemake))
    weights = read_json(Path(snakemake.input.backbone)).get("digest")
    expected = {"backbone": spec["backbone"], "backbone_digest": weights, "dataset_digest": dataset.digest}
    store = ActivationStore.open(Path(snakemake.input.activations).parent, expected)
    rows = [row for split in spec["splits"] if split in dataset.card["splits"] for row in dataset.rows(split)]
    learnt, out, files = Path(snakemake.input.dictionaries).parent, Path(snakemake.output.manifest).parent, {}
    for block in spec["blocks"]:
        for name, seeds in spec["seeds_of"].items():
            for seed in seeds:
                folder = Path(f"block{block}") / name / f"seed{seed}"
                dictionary = load_dictionary(learnt / folder)
                with CodesWriter(out / folder / "codes.safetensors") as codes:
                    for _, tokens in store.iterate(block, rows, IMAGES):
                        codes.append(dictionary.encode(tokens, place))
                files[f"{block}.{name}.{seed}"] = out / folder / "codes.safetensors"
    write_manifest(
        snakemake.output.manifest,
        outputs=files,
        inputs={"store": Path(snakemake.input.activations), "dictionaries": Path(snakemake.input.dictionaries)},
        spec=spec,
        extra={"rows": [int(row) for row in rows]},
    )
