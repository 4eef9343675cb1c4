"""Compare every dictionary with its repetitions on other seeds, and on disjoint halves of the training images."""

from pathlib import Path

from _job import data_root, job

from conceptbench.measures.stages.stability import measure_stability
from conceptbench.tables import write_table

with job(snakemake) as spec:
    learnt = {Path(path).parent.name: Path(path).parent for path in snakemake.input.dictionaries}
    codes = {Path(path).parent.parent.name: Path(path).parent for path in snakemake.input.codes}
    stores = {}
    if spec["halves"]:  # which alone need what learning imports
        from _learning import HELD_OUT_IMAGES

        from conceptbench.activations import ActivationStore
        from conceptbench.data import open_dataset

        dataset = open_dataset(Path(snakemake.input.dataset).parent, data_root(snakemake))
        rows = dataset.sample("val", HELD_OUT_IMAGES, spec["seed"])
        folders = [Path(path).parent for path in snakemake.input.activations]
        stores = {folder.parent.name: (ActivationStore.open(folder), rows) for folder in folders}
    table = measure_stability(learnt, codes, stores, spec)
    write_table(table, Path(snakemake.output.stability).with_suffix(""))
