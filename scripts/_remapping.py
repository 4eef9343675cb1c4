"""What the scripts of rules/remapping.smk share: a task's data set, adapters and dictionaries by seed."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _job import data_root, device

from conceptbench.adaptation import Adapter, load_adapter
from conceptbench.backbones import Backbone, load_backbone
from conceptbench.data import Dataset, open_dataset
from conceptbench.dictionaries import Dictionary, load_dictionary


@dataclass(frozen=True, eq=False)
class TaskInputs:
    """Everything that a measure of remapping reads of one task."""

    task: str
    dataset: Dataset
    backbone: Backbone
    adapters: Mapping[str, Mapping[int, Adapter]]
    """Method (zero-shot first) -> seed -> adapter."""


def task_inputs(snakemake: Any, spec: Mapping[str, Any]) -> Iterator[TaskInputs]:
    """One task after the other, with the adapters that are inputs of the rule."""
    backbone = load_backbone(Path(snakemake.input.backbone).parent, device(snakemake), name=spec["backbone"])
    for card in snakemake.input.datasets:
        task = Path(card).parent.name
        folders = [Path(path).parent for path in snakemake.input.adapters if Path(path).parents[1].name == task]
        adapters = {
            folder.name: {seed: load_adapter(folder / f"seed{seed}", backbone) for seed in spec["seeds"]}
            for folder in folders
        }
        yield TaskInputs(task, open_dataset(Path(card).parent, data_root(snakemake)), backbone, adapters)


def followed_dictionaries(snakemake: Any, spec: Mapping[str, Any], name: str = "") -> dict[int, Dictionary]:
    """The dictionary that the measures follow (or another one) for every seed; one without chance serves all seeds."""
    folder = Path(snakemake.input.dictionaries).parent / f"block{spec['block']}" / (name or spec["dictionary"])
    seeds = {seed: folder / f"seed{seed}" for seed in spec["seeds"]}
    first = folder / f"seed{spec['seeds'][0]}"
    return {seed: load_dictionary(path if path.is_dir() else first) for seed, path in seeds.items()}


def adapted_dictionaries(snakemake: Any, spec: Mapping[str, Any], task: str) -> dict[str, dict[int, Dictionary]]:
    """The followed dictionary learnt again on each adapted model, by method and seed; none when nobody asked."""
    folders = [Path(path).parent for path in snakemake.input.get("adapted", []) if Path(path).parents[1].name == task]
    return {
        folder.name: {seed: load_dictionary(folder / "dictionary" / f"seed{seed}") for seed in spec["seeds"]}
        for folder in folders
    }
