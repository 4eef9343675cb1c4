"""Learn every dictionary (method, seed) on every draw of a synthetic world, one pass over the tokens of a draw."""

from pathlib import Path

from _job import device, job

from conceptbench.dictionaries import learn_many, specify
from conceptbench.dictionaries.synthetic import World, world_spec
from conceptbench.provenance import write_manifest

with job(snakemake) as spec:
    world, methods = world_spec(spec["name"], spec["world"]), spec["methods"]
    out, files = Path(snakemake.output.manifest).parent, {}
    for seed in spec["seeds"]:
        draw = World.draw(world, seed, spec["seed"])
        learnt = learn_many(
            [specify(name=name, **options) for name, options in methods.items()],
            draw.batches(spec["tokens"]),
            d=world.d,
            seeds=spec["seeds_of"],
            held_out=draw.tokens("held-out", spec["held_out"]).x,
            tokens_per_epoch=spec["tokens"],
            experiment_seed=spec["seed"],
            device=device(snakemake),
            provenance={"world": world.digest, "name": world.name, "draw": seed},
        )
        for (name, repetition), dictionary in learnt.items():
            folder = out / f"draw{seed}" / name / f"seed{repetition}"
            dictionary.save(folder)
            files[f"{seed}.{name}.{repetition}"] = folder / "card.json"
    write_manifest(snakemake.output.manifest, outputs=files, inputs={}, spec=spec, extra={"world_digest": world.digest})
