"""Rule measure_decomposition: hybrids of the zero-shot and the adapted model, and the parts of the gain."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from conceptbench.adaptation import Adapter
from conceptbench.adaptation.tasks import candidate_labels
from conceptbench.backbones import Backbone
from conceptbench.data import Dataset
from conceptbench.measures.decomposition import decompose
from conceptbench.measures.hybrids import hybrid_predictions
from conceptbench.measures.stages.encoded import label_columns
from conceptbench.seeds import rng


def measure_decomposition(
    task: str,
    method: str,
    backbone: Backbone,
    dataset: Dataset,
    adapters: Mapping[int, tuple[Adapter, Adapter]],
    spec: Mapping[str, Any],
) -> dict[str, pd.DataFrame]:
    """Tables ``hybrids`` and ``decomposition`` of one task and method.

    Args:
        adapters: seed -> (zero-shot, adapted).
    """
    halves = candidate_labels(dataset.classes, spec["setting"])
    frames = [
        label_columns(
            hybrid_predictions(backbone, zero_shot, adapted, dataset, halves, block=spec["block"]),
            {"task": task, "method": method, "seed": seed},
        )
        for seed, (zero_shot, adapted) in adapters.items()
    ]
    hybrids = pd.concat(frames, ignore_index=True)
    decomposition = decompose(hybrids, rng(spec["seed"], "decomposition", task, method), spec["resamples"])
    return {"hybrids": hybrids, "decomposition": decomposition}
