"""Judge the statements of PatchSAE from the tables of the experiment, as tables and as a page."""

from pathlib import Path

from _job import job

from conceptbench.measures.claims import claims_page, measure_claims
from conceptbench.tables import atomic_write, read_table, write_table

with job(snakemake) as spec:
    found = measure_claims({Path(path).stem: read_table(path) for path in snakemake.input.tables}, spec)
    for name, table in found.items():
        write_table(table, Path(snakemake.output[name]).with_suffix(""))
    with atomic_write(Path(snakemake.output.page)) as path:
        page = claims_page(found["claims"], found["claim_parts"], snakemake.config["experiment"])
        path.write_text(page, encoding="utf-8")
