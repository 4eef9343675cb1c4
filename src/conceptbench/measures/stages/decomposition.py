"""Rule measure_decomposition: hybrids of the zero-shot and the adapted model, and the parts of the gain."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from conceptbench.adaptation import Adapter, PlainFeatures
from conceptbench.adaptation.tasks import candidate_labels
from conceptbench.backbones import Backbone
from conceptbench.data import Dataset
from conceptbench.measures.decomposition import decompose
from conceptbench.measures.hybrids import hybrid_predictions, unmoved_predictions
from conceptbench.measures.stages.encoded import label_columns
from conceptbench.seeds import rng


def measure_decomposition(
    task: str,
    method: str,
    backbone: Backbone,
    dataset: Dataset,
    adapters: Mapping[int, tuple[Adapter, Adapter]],
    spec: Mapping[str, Any],
    plain: PlainFeatures,
) -> dict[str, pd.DataFrame]:
    """Tables ``hybrids`` and ``decomposition`` of one task and method.

    Args:
        adapters: seed -> (zero-shot, adapted).
        plain: features of the task's images under the plain backbone, shared by all methods that do not change them.
    """
    halves = candidate_labels(dataset.classes, spec["setting"])
    frames = []
    for seed, (zero_shot, adapted) in adapters.items():
        if adapted.moves_images:
            scored = hybrid_predictions(backbone, zero_shot, adapted, dataset, halves, block=spec["block"])
        else:
            scored = unmoved_predictions(backbone, zero_shot, adapted, dataset, halves, plain)
        frames.append(label_columns(scored, {"task": task, "method": method, "seed": seed}))
    hybrids = pd.concat(frames, ignore_index=True)
    decomposition = decompose(hybrids, rng(spec["seed"], "decomposition", task, method), spec["resamples"])
    return {"hybrids": hybrids, "decomposition": decomposition}
