"""Find a published data set below data_root, or download, verify and unpack it there."""

from pathlib import Path

from _job import data_root, job

from conceptbench.data import provide_dataset
from conceptbench.data.catalogue import SOURCES
from conceptbench.errors import ConceptBenchError
from conceptbench.tables import write_json

with job(snakemake) as spec:
    root = data_root(snakemake)
    if root is None:
        raise ConceptBenchError(
            f"Data set {spec['name']} needs image files; set data_root to the folder that holds them."
        )
    found = provide_dataset(SOURCES[spec["kind"]], root, snakemake.config.get("downloads", "never"))
    write_json(found, Path(snakemake.output.source))
