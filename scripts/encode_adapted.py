"""Encode the tokens of the adapted models (all seeds) with one dictionary learnt on the unadapted backbone."""

from pathlib import Path

from _encoding import IMAGES, Encoding
from _job import device, job

from conceptbench.activations import ActivationStore
from conceptbench.dictionaries import load_dictionary
from conceptbench.provenance import write_manifest
from conceptbench.tables import read_json, sha256_file

with job(snakemake) as spec:
    given, block = snakemake.input, spec["block"]
    out, work, files = Path(snakemake.output.manifest).parent, Path(snakemake.params.work), {}
    seed_of = f"seed{spec['seeds'][0]}"
    dictionary = load_dictionary(Path(given.dictionaries).parent / f"block{block}" / spec["dictionary"] / seed_of)
    digests = {f"{name}_digest": read_json(Path(given[name])).get("digest") for name in ("backbone", "dataset")}
    expected = {"backbone": spec["backbone"], "block": block, **digests}
    encoding = Encoding(work / "notes", given, device(snakemake))
    for seed in (f"seed{seed}" for seed in spec["seeds"]):
        context = sha256_file(Path(given.adapters).parent / seed / "adapter.safetensors")
        store = ActivationStore.open(out / seed, {**expected, "context_digest": context})
        encoding.write(seed, work / f"{seed}.safetensors", dictionary, store.iterate(block, None, IMAGES))
        files[seed] = out / seed / "codes.safetensors"
    for seed, path in files.items():
        (work / f"{seed}.safetensors").replace(path)
    inputs = {"store": Path(given.activations), "dictionaries": Path(given.dictionaries)}
    write_manifest(snakemake.output.manifest, outputs=files, inputs=inputs, spec=spec)
    encoding.close()
    work.rmdir()
