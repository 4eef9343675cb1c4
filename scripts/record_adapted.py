"""Record the tokens of a task at the hook point of the adapted model, for all seeds."""

from functools import partial
from pathlib import Path

from _job import data_root, device, job

from conceptbench.activations import RecordingContext, record
from conceptbench.adaptation import load_adapter
from conceptbench.backbones import load_backbone
from conceptbench.data import open_dataset
from conceptbench.provenance import write_manifest
from conceptbench.tables import sha256_file

with job(snakemake) as spec:
    backbone = load_backbone(Path(snakemake.input.backbone).parent, device(snakemake), name=spec["backbone"])
    dataset = open_dataset(Path(snakemake.input.dataset).parent, data_root(snakemake))
    adapters, out, files = Path(snakemake.input.adapters).parent, Path(snakemake.output.manifest).parent, {}
    for seed in spec["seeds"]:
        adapter = load_adapter(adapters / f"seed{seed}", backbone)
        digest = sha256_file(adapters / f"seed{seed}" / "adapter.safetensors")
        context = RecordingContext(f"{spec['method']}/seed{seed}", digest, partial(adapter.image_context, backbone))
        place = out / f"seed{seed}"
        work = Path(snakemake.params.work) / f"seed{seed}"
        options = {"rows": dataset.rows("test"), "context": context, "precision": spec.get("precision", "float32")}
        record(backbone, dataset, [spec["block"]], place, work=work, workers=snakemake.threads, **options)
        files[f"seed{seed}"] = place / "manifest.json"
    write_manifest(
        snakemake.output.manifest, outputs=files, inputs={"adapters": Path(snakemake.input.adapters)}, spec=spec
    )
