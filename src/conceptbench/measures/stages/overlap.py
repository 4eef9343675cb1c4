"""Rule measure_overlap: which latents are the top ones of a class before and after adaptation."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from conceptbench.adaptation.tasks import candidate_labels
from conceptbench.data import Dataset
from conceptbench.dictionaries import Codes
from conceptbench.measures.overlap import ClassInfo, OverlapSpec, overlap_tables
from conceptbench.measures.resampling import costly_resamples
from conceptbench.measures.stages.encoded import label_columns
from conceptbench.seeds import rng

OVERLAP_TABLES = ("overlap", "overlap_regions", "overlap_points")


def measure_overlap(
    task: str, method: str, dataset: Dataset, zero_shot: Codes, adapted: Mapping[str, Codes], spec: Mapping[str, Any]
) -> dict[str, pd.DataFrame]:
    """Tables ``overlap*`` of one task and method; all codes are those of the test split, in its order."""
    halves = candidate_labels(dataset.classes, spec["setting"])
    classes = [ClassInfo(label, dataset.classes[label], half) for half, labels in halves.items() for label in labels]
    resamples = costly_resamples(spec["resamples"])
    options = OverlapSpec(tuple(spec["overlap_k"]), spec["firing_threshold"], n_resamples=resamples)
    labels = dataset.labels(dataset.rows("test"))
    made = overlap_tables(zero_shot, adapted, labels, classes, rng(spec["seed"], "overlap", task, method), options)
    return {
        name: label_columns(table, {"task": task, "method": method})
        for name, table in zip(OVERLAP_TABLES, made, strict=True)
    }


def join_tables(parts: Sequence[Mapping[str, pd.DataFrame]]) -> dict[str, pd.DataFrame]:
    """Tables of the same name put below each other."""
    names = list(dict.fromkeys(name for part in parts for name in part))
    return {name: pd.concat([part[name] for part in parts if name in part], ignore_index=True) for name in names}
