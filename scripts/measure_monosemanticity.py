"""Judge the latents of every dictionary by the image embeddings of a backbone that it was not learnt on."""

from pathlib import Path

from _job import data_root, device, job

from conceptbench.activations import ActivationStore
from conceptbench.backbones import load_backbone
from conceptbench.data import open_dataset
from conceptbench.measures.stages.monosemanticity import embed_stored, measure_monosemanticity
from conceptbench.tables import read_json, write_table

with job(snakemake) as spec:
    dataset = open_dataset(Path(snakemake.input.dataset).parent, data_root(snakemake))
    rows, embeddings = dataset.rows("test"), {}
    for card in snakemake.input.backbones:
        name = Path(card).parent.name
        backbone = load_backbone(Path(card).parent, device(snakemake), name=name)
        store = ActivationStore.open(Path(snakemake.params.activations) / name / spec["on"], {"backbone": name})
        embeddings[name] = embed_stored(backbone, store, rows)
    codes = {Path(path).parent.parent.name: Path(path).parent for path in snakemake.input.codes}
    stores = {Path(path).parent.parent.name: read_json(path) for path in snakemake.input.activations}
    grids = {name: tuple(manifest["spec"]["grid"]) for name, manifest in stores.items()}
    for name, table in measure_monosemanticity(codes, grids, embeddings, rows, spec).items():
        write_table(table, Path(snakemake.output[name]).with_suffix(""))
