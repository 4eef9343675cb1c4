"""Put together what every job recorded about itself: the manifest of the run."""

from pathlib import Path

from _job import job

from conceptbench.run_manifest import names_of, read_job_records, write_run_manifest

with job(snakemake):
    results = Path(snakemake.params.results)
    named = set(snakemake.params.named) - {snakemake.rule}
    records = read_job_records(results / "jobs", named)
    backbones = [*names_of(records, "train_backbone"), *names_of(records, "fetch_backbone")]
    write_run_manifest(
        Path(snakemake.output.manifest),
        records=records,
        stamps={name: results / "stamps" / f"{name}.json" for name in named},
        data={name: results / "datasets" / name / "card.json" for name in names_of(records, "prepare_dataset")},
        weights={name: results / "backbones" / name / "open_clip_model.safetensors" for name in backbones},
        results={"metrics.json": Path(snakemake.input.metrics)},
    )
