"""The metrics that every dictionary carries in its card, as tables."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from conceptbench.errors import ConceptBenchError
from conceptbench.tables import read_json

METRICS = ("fvu", "l0", "dead_share", "dense_share", "cosine")
DESCRIBED = ("recovered_norm", "bias", "hoyer", "coherence", "nearest_atom")
"""Metrics that a card may lack or hold no number for."""
COST = ("tokens", "seconds", "tokens_per_s")


def measure_dictionaries(folders: Mapping[str, Path]) -> pd.DataFrame:
    """One row a dictionary (backbone, block, name, seed) with its held-out metrics and what its learning cost.

    Args:
        folders: backbone -> R/dictionaries/<backbone>.

    Returns:
        backbone, block, dictionary, seed, method, width, fvu, l0, dead_share, dense_share, cosine, recovered_norm,
        bias, hoyer, coherence, nearest_atom (empty where they do not exist), and those of tokens, seconds, tokens_per_s
        that the card has: training tokens and seconds, the held-out ones where it has no training.
    """
    rows = [ids | {"method": method, "width": card["width"], **_metrics(card)} for ids, method, card in _cards(folders)]
    if not rows:
        raise ConceptBenchError("No dictionary was found to measure; configure dictionaries.methods.")
    return pd.DataFrame(rows)


def count_densities(folders: Mapping[str, Path]) -> pd.DataFrame:
    """How many latents of each dictionary fire how often on held-out tokens.

    Args:
        folders: as for `measure_dictionaries`.

    Returns:
        backbone, block, dictionary, seed, log10_from, log10_to (of the share of tokens a latent fires on; the first bin
        also holds the latents that never fire), latents, share (of all latents). No rows for a dictionary whose card
        has no histogram.
    """
    columns = ["backbone", "block", "dictionary", "seed", "log10_from", "log10_to", "latents", "share"]
    rows = []
    for ids, _, card in _cards(folders):
        histogram = card["metrics"].get("log10_density_histogram", {"edges": [], "latents": []})
        ends = zip(histogram["edges"], histogram["edges"][1:], histogram["latents"], strict=False)
        rows += [
            ids | {"log10_from": low, "log10_to": high, "latents": count, "share": count / card["width"]}
            for low, high, count in ends
        ]
    return pd.DataFrame(rows, columns=columns)


def _cards(folders: Mapping[str, Path]) -> Iterator[tuple[dict[str, Any], str, dict[str, Any]]]:
    """Identity, method and card of every dictionary."""
    for backbone, folder in folders.items():
        spec = read_json(folder / "manifest.json")["spec"]
        for block in spec["blocks"]:
            for name, options in spec["methods"].items():
                for seed in spec["seeds_of"][name]:
                    card = read_json(folder / f"block{block}" / name / f"seed{seed}" / "card.json")
                    ids = {"backbone": backbone, "block": block, "dictionary": name, "seed": str(seed)}
                    yield ids, options["method"], card


def _metrics(card: Mapping[str, Any]) -> dict[str, Any]:
    metrics, training = card["metrics"], card.get("training", {})
    found = {name: metrics[name] for name in METRICS if name in metrics}
    found |= {name: np.nan if metrics.get(name) is None else metrics[name] for name in DESCRIBED}
    cost = {**{name: metrics[name] for name in COST if name in metrics}, **training}
    return found | {name: cost[name] for name in COST if name in cost}
