"""The metrics that every dictionary carries in its card, as one table."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from conceptbench.errors import ConceptBenchError
from conceptbench.tables import read_json

METRICS = ("fvu", "l0", "dead_share", "dense_share", "cosine")
COST = ("tokens", "seconds", "tokens_per_s")


def measure_dictionaries(folders: Mapping[str, Path]) -> pd.DataFrame:
    """One row a dictionary (backbone, block, name, seed) with its held-out metrics and what its learning cost.

    Args:
        folders: backbone -> R/dictionaries/<backbone>.

    Returns:
        backbone, block, dictionary, seed, method, width, fvu, l0, dead_share, dense_share, cosine, and those of
        tokens, seconds, tokens_per_s that the card has.
    """
    rows = []
    for backbone, folder in folders.items():
        spec = read_json(folder / "manifest.json")["spec"]
        for block in spec["blocks"]:
            for name, options in spec["methods"].items():
                for seed in spec["seeds_of"][name]:
                    card = read_json(folder / f"block{block}" / name / f"seed{seed}" / "card.json")
                    ids = {"backbone": backbone, "block": block, "dictionary": name, "seed": str(seed)}
                    rows.append({**ids, "method": options["method"], "width": card["width"], **_metrics(card)})
    if not rows:
        raise ConceptBenchError("No dictionary was found to measure; configure dictionaries.methods.")
    return pd.DataFrame(rows)


def _metrics(card: Mapping[str, Any]) -> dict[str, Any]:
    return {name: card["metrics"][name] for name in (*METRICS, *COST) if name in card["metrics"]}
