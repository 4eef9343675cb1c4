"""Tokens, and one pass over those of a block that learns dictionaries: shared by the rules that learn."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from conceptbench.activations import ActivationStore, LiveTokens
from conceptbench.data import Dataset
from conceptbench.dictionaries import CheckpointPolicy, Dictionary, DictionarySpec, learn_many
from conceptbench.tables import digest, read_json, sha256_file

BATCH, BUFFER, HELD_OUT_IMAGES = 8192, 2**20, 512


def open_tokens(inputs: Any, dataset: Dataset, spec: Mapping[str, Any], device: str) -> ActivationStore | LiveTokens:
    """The tokens of a data set: stored ones, or those that the backbone computes on demand where the stamp says `live`.

    Raises:
        ConceptBenchError: for a store of another backbone or data set.
    """
    card = Path(inputs.backbone)
    if spec.get("live"):
        from conceptbench.backbones import load_backbone  # takes seconds, which a store does not need

        backbone = load_backbone(card.parent, device, name=spec["backbone"])
        return LiveTokens(backbone, dataset, spec["blocks"], precision=spec.get("precision", "float32"))
    weights = read_json(card).get("digest")
    expected = {"backbone": spec["backbone"], "backbone_digest": weights, "dataset_digest": dataset.digest}
    return ActivationStore.open(Path(inputs.activations).parent, expected)


def learn_from(
    source: ActivationStore | LiveTokens,
    block: int,
    methods: Sequence[DictionarySpec],
    seeds: Sequence[int] | Mapping[str, Sequence[int]],
    images: tuple[np.ndarray, np.ndarray],
    spec: Mapping[str, Any],
    device: str,
    checkpoint: CheckpointPolicy,
) -> dict[tuple[str, int], Dictionary]:
    """Dictionaries by (method, seed) from the tokens of a store, or of a backbone that computes them on demand.

    Args:
        source: the tokens, stored or computed on demand.
        block: the hook point.
        methods: what to learn.
        seeds: repetitions, for all methods or by name.
        images: dataset rows to learn from, and those held out for the metrics of the cards.
        spec: the rule's stamp; its `seed` orders the tokens and its `backbone` goes to the cards.
        device: torch device.
        checkpoint: where a killed job finds what it had.
    """
    rows, held_out = images
    return learn_many(
        methods,
        lambda epoch: source.shuffled_tokens(block, BATCH, spec["seed"], epoch, BUFFER, rows),
        d=source.shape[2],
        seeds=seeds,
        held_out=source.read(block, held_out).reshape(-1, source.shape[2]),
        tokens_per_epoch=len(rows) * source.shape[1],
        experiment_seed=spec["seed"],
        device=device,
        provenance={"store": source.spec_digest, "block": block, "backbone": spec["backbone"]},
        checkpoint=checkpoint,
    )


def digest_of_files(paths: Iterable[str]) -> str:
    """The digest of the files that a job depends on: parameters, code, and the manifests of its data."""
    return digest([sha256_file(Path(path)) for path in paths])


def place(folder: Path, kind: str = "seed") -> Callable[[str, int], Path]:
    """From the name and the seed of a dictionary to where it is saved below a folder."""
    return lambda name, seed: folder / name / f"{kind}{seed}"
