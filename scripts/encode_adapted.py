"""Encode the tokens of the adapted models (all seeds) with one dictionary learnt on the unadapted backbone."""

from pathlib import Path

from _job import device, job

from conceptbench.activations import ActivationStore
from conceptbench.dictionaries import CodesWriter, load_dictionary
from conceptbench.provenance import write_manifest

IMAGES = 512

with job(snakemake) as spec:
    place = device(snakemake)
    learnt, out, files = Path(snakemake.input.dictionaries).parent, Path(snakemake.output.manifest).parent, {}
    work = Path(snakemake.params.work)
    dictionary = load_dictionary(learnt / f"block{spec['block']}" / spec["dictionary"] / f"seed{spec['seeds'][0]}")
    for seed in spec["seeds"]:
        store = ActivationStore.open(out / f"seed{seed}", {"backbone": spec["backbone"], "block": spec["block"]})
        with CodesWriter(work / f"seed{seed}.safetensors") as codes:
            for _, tokens in store.iterate(spec["block"], None, IMAGES):
                codes.append(dictionary.encode(tokens, place))
        files[f"seed{seed}"] = out / f"seed{seed}" / "codes.safetensors"
    for name, path in files.items():
        (work / f"{name}.safetensors").replace(path)
    work.rmdir()
    write_manifest(
        snakemake.output.manifest,
        outputs=files,
        inputs={"store": Path(snakemake.input.activations), "dictionaries": Path(snakemake.input.dictionaries)},
        spec=spec,
    )
