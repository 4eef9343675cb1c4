"""Counterfactual pairs: two rows of a scene data set that differ in one factor of one object, or in the background."""

import numpy as np
import pandas as pd

from conceptbench.data.dataset import Dataset
from conceptbench.errors import ConceptBenchError


def counterfactual_pairs(dataset: Dataset) -> pd.DataFrame:
    """One row a pair: pair, before and after (rows of the data set), object, factor, old and new (factor values).

    Raises:
        ConceptBenchError: when the data set has no pairs.
    """
    manifest = dataset.manifest
    if "pair" not in manifest or not (manifest["pair"] >= 0).any():
        raise ConceptBenchError(f"Data set {dataset.name} has no counterfactual pairs; set its option pairs.")
    paired = manifest[manifest["pair"] >= 0].sort_values(["pair", "image"])
    before, after = paired.iloc[0::2], paired.iloc[1::2]
    if not np.array_equal(before["pair"], after["pair"]):
        raise ConceptBenchError(f"Data set {dataset.name} has half a counterfactual pair; prepare it again.")
    columns = [
        factor if factor == "background" else f"object{number}_{factor}"
        for factor, number in zip(before["changed_factor"], before["changed_object"], strict=True)
    ]
    return pd.DataFrame(
        {
            "pair": before["pair"].to_numpy(),
            "before": before["image"].to_numpy(),
            "after": after["image"].to_numpy(),
            "object": before["changed_object"].to_numpy(),
            "factor": before["changed_factor"].to_numpy(),
            "old": [before[column].iloc[i] for i, column in enumerate(columns)],
            "new": [after[column].iloc[i] for i, column in enumerate(columns)],
        }
    )
