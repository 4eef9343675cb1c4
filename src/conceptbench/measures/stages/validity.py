"""Rule measure_validity: the followed dictionary on the adapted models, beside one learnt there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
from tqdm import tqdm

from conceptbench.adaptation import Adapter
from conceptbench.backbones import Backbone
from conceptbench.data import Dataset
from conceptbench.dictionaries import Dictionary
from conceptbench.measures.readout import activations_of, targets_of
from conceptbench.measures.stages.models import SPLIT_B, ZERO_SHOT, heading, trained_half
from conceptbench.measures.validity import FOLLOWED, REFERENCE, RELEARNT, Fit, fit_of, flagged, validity_rows
from conceptbench.seeds import rng

COLUMNS: Final = (
    "task", "method", "half", "dictionary", "statistic", "estimate", "low", "high", "n", "seed", "note", "margin",
    "exceeds", "valid",
)  # fmt: skip


def measure_validity(
    task: str,
    backbone: Backbone,
    dataset: Dataset,
    adapters: Mapping[str, Mapping[int, Adapter]],
    followed: Mapping[int, Dictionary],
    adapted: Mapping[str, Mapping[int, Dictionary]],
    spec: Mapping[str, Any],
) -> pd.DataFrame:
    """Table ``validity`` of one task.

    Args:
        adapters: zero-shot first, then methods -> seed; those that leave the image tower alone have no rows, because
            their activations are those of zero-shot. adapted: method -> seed -> dictionary learnt on that model.

    Returns:
        task, method, half, dictionary (followed, adapted where there is one, and followed-on-zero-shot, the reference),
        statistic (fvu, l0, dead_share; of followed also fvu_rise, over the reference, and fvu_excess, over adapted),
        estimate, low, high, n, seed, note, margin and exceeds (of the last two statistics), valid.
    """
    images = trained_half(task, dataset, spec["setting"], spec["concepts"]["images"], spec["seed"])
    rows = images.rows[SPLIT_B]
    targets = targets_of(dataset, rows, images.candidates)

    def tokens_of(adapter: Adapter) -> np.ndarray:
        """The activations of split B [image, token, feature] of one model."""
        return activations_of(backbone, adapter, dataset, rows, images.candidates, spec["block"]).numpy()

    found: dict[str, dict[str, dict[str, Fit]]] = {}
    for seed, dictionary in tqdm(followed.items(), desc=f"validity on {task}", unit="seed"):
        moved = [name for name in adapters if name != ZERO_SHOT and adapters[name][seed].moves_images]
        if not moved:
            continue
        reference = _fit(dictionary, tokens_of(adapters[ZERO_SHOT][seed]))
        for method in moved:
            tokens = tokens_of(adapters[method][seed])
            fits = {REFERENCE: reference, FOLLOWED: _fit(dictionary, tokens)}
            if method in adapted:
                fits[RELEARNT] = _fit(adapted[method][seed], tokens)
            for name, fit in fits.items():
                found.setdefault(method, {}).setdefault(name, {})[str(seed)] = fit
    out: list[dict[str, Any]] = []
    for method, of_method in found.items():
        stream = rng(spec["seed"], "validity", task, method)
        head = heading(images, method=method)
        out += [head | row for row in validity_rows(of_method, targets, stream, spec["resamples"])]
    return flagged(pd.DataFrame(out))[list(COLUMNS)] if out else pd.DataFrame(columns=list(COLUMNS))


def _fit(dictionary: Dictionary, tokens: np.ndarray) -> Fit:
    return fit_of(dictionary, tokens, dictionary.encode(tokens))
