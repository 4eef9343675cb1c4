"""Learn every dictionary (method, seed) on every draw of a synthetic world, one pass over the tokens of a draw."""

from functools import partial
from pathlib import Path

from _job import device, job
from _learning import digest_of_files, place

from conceptbench.dictionaries import CheckpointPolicy, Dictionary, learn_many, specify
from conceptbench.dictionaries.ledger import Ledger
from conceptbench.dictionaries.synthetic import World, world_spec
from conceptbench.provenance import write_manifest

with job(snakemake) as spec:
    world, methods = world_spec(spec["name"], spec["world"]), spec["methods"]
    out, files = Path(snakemake.output.manifest).parent, {}
    ledger = Ledger(out / "checkpoints", digest_of_files(snakemake.input))

    def learn(seed: int, policy: CheckpointPolicy) -> dict[tuple[str, int], Dictionary]:
        """All dictionaries of one draw."""
        draw = World.draw(world, seed, spec["seed"])
        return learn_many(
            [specify(name=name, **options) for name, options in methods.items()],
            draw.batches(spec["tokens"]),
            d=world.d,
            seeds=spec["seeds_of"],
            held_out=draw.tokens("held-out", spec["held_out"]).x,
            tokens_per_epoch=spec["tokens"],
            experiment_seed=spec["seed"],
            device=device(snakemake),
            provenance={"world": world.digest, "name": world.name, "draw": seed},
            checkpoint=policy,
        )

    for seed in spec["seeds"]:
        saved = ledger.part(f"draw{seed}", partial(learn, seed), place(out / f"draw{seed}"))
        files |= {f"{seed}.{name}.{repetition}": folder / "card.json" for (name, repetition), folder in saved.items()}
    write_manifest(snakemake.output.manifest, outputs=files, inputs={}, spec=spec, extra={"world_digest": world.digest})
    ledger.close()
