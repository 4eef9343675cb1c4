"""Put the parts of a recording together and verify every shard."""

from pathlib import Path

from _job import job

from conceptbench.activations import gather

with job(snakemake):
    gather(
        [Path(path) for path in snakemake.input.parts],
        Path(snakemake.output.manifest).parent,
        work=Path(snakemake.params.work),
    )
