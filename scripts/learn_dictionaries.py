"""Learn every dictionary (method, seed) at every hook point of a backbone, one pass over the tokens of a block.

The tokens come from a store, or from the backbone itself where the configuration says `live`. Several GPUs learn
together where the configuration asks for them.
"""

from pathlib import Path

from _job import job
from _learning_together import Request, learn, processes_of

from conceptbench.provenance import write_manifest

with job(snakemake) as spec:
    request = Request.of(snakemake, spec)
    files = learn(request, processes_of(snakemake), int(snakemake.threads))
    outputs = {name: Path(card) for name, card in files.items()}
    source = ("backbone", snakemake.input.backbone) if spec.get("live") else ("store", snakemake.input.activations)
    write_manifest(snakemake.output.manifest, outputs=outputs, inputs={source[0]: Path(source[1])}, spec=spec)
    request.ledger().close()
