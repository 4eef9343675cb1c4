"""Encode the stored tokens of a data set with every dictionary of a backbone, all splits but train."""

from pathlib import Path

from _encoding import IMAGES, Encoding
from _job import data_root, device, job, rows_of
from _learning import open_tokens

from conceptbench.data import open_dataset
from conceptbench.dictionaries import load_dictionary
from conceptbench.provenance import write_manifest

with job(snakemake) as spec:
    place = device(snakemake)
    dataset = open_dataset(Path(snakemake.input.dataset).parent, data_root(snakemake))
    store, rows = open_tokens(snakemake.input, dataset, spec, place), rows_of(dataset, spec)
    learnt, out, files = Path(snakemake.input.dictionaries).parent, Path(snakemake.output.manifest).parent, {}
    encoding = Encoding(out / "notes", snakemake.input, place)
    for block in spec["blocks"]:
        for name, seeds in spec["seeds_of"].items():
            for seed in seeds:
                of, folder = f"{block}.{name}.{seed}", Path(f"block{block}") / name / f"seed{seed}"
                files[of] = out / folder / "codes.safetensors"
                encoding.write(of, files[of], load_dictionary(learnt / folder), store.iterate(block, rows, IMAGES))
    write_manifest(
        snakemake.output.manifest,
        outputs=files,
        inputs={"store": Path(snakemake.input.activations), "dictionaries": Path(snakemake.input.dictionaries)},
        spec=spec,
        extra={"rows": rows},
    )
    encoding.close()
