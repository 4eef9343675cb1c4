"""Rule measure_accuracy: accuracy of every task and method, and its difference to zero-shot."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from conceptbench.measures.accuracy import accuracy_tables
from conceptbench.seeds import rng


def measure_accuracy(predictions: Sequence[pd.DataFrame], spec: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Tables ``accuracy`` and ``accuracy_difference`` from the predictions of every task and method."""
    table = pd.concat(predictions, ignore_index=True)
    accuracy, difference = accuracy_tables(table, rng(spec["seed"], "accuracy"), spec["resamples"])
    return {"accuracy": accuracy, "accuracy_difference": difference}
