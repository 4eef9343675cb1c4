"""Rule measure_validity: the followed dictionary on the adapted models, beside one learnt there."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd

from conceptbench.adaptation import Adapter
from conceptbench.backbones import Backbone
from conceptbench.data import Dataset
from conceptbench.dictionaries import Dictionary
from conceptbench.measures.readout import activations_of, targets_of
from conceptbench.measures.stages.models import SPLIT_B, ZERO_SHOT, heading, trained_half
from conceptbench.measures.validity import Fit, fit_of, flagged, validity_rows
from conceptbench.seeds import rng


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
        adapters: zero-shot first, then methods -> seed. adapted: method -> seed -> dictionary learnt on that model.

    Returns:
        task, method, half, dictionary (followed, adapted, and followed-on-zero-shot, the reference), statistic (fvu,
        l0, dead_share), estimate, low, high, n, seed, note, valid.
    """
    images = trained_half(task, dataset, spec["setting"], spec["concepts"]["images"], spec["seed"])
    rows = images.rows[SPLIT_B]
    targets = targets_of(dataset, rows, images.candidates)
    out = []
    for method in adapted:
        fits: dict[str, dict[str, Fit]] = {}
        for seed, dictionary in followed.items():
            pairs = {
                "followed-on-zero-shot": (ZERO_SHOT, dictionary),
                "followed": (method, dictionary),
                "adapted": (method, adapted[method][seed]),
            }
            for name, (model, of_pair) in pairs.items():
                adapter = adapters[model][seed]
                tokens = activations_of(backbone, adapter, dataset, rows, images.candidates, spec["block"]).numpy()
                fits.setdefault(name, {})[str(seed)] = fit_of(of_pair, tokens, of_pair.encode(tokens))
        for name, of_seed in fits.items():
            head = heading(images, method=method, dictionary=name)
            stream = rng(spec["seed"], "validity", task, method)
            out += [head | row for row in validity_rows(of_seed, targets, stream, spec["resamples"])]
    return flagged(pd.DataFrame(out))
