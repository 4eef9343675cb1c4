"""Rule measure_concepts: existing and recruited shares of every adaptation, with controls and the converse."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from conceptbench.adaptation import Adapter
from conceptbench.backbones import Backbone
from conceptbench.data import Dataset
from conceptbench.dictionaries import Dictionary
from conceptbench.measures.concepts import (
    Comparison,
    Scores,
    Side,
    averaged_prompts,
    controls,
    measure_pair,
    part_rows,
    sufficiency,
)
from conceptbench.measures.readout import targets_of
from conceptbench.measures.selection import select_on
from conceptbench.measures.stages.models import (
    SPLIT_A,
    SPLIT_B,
    ZERO_SHOT,
    Images,
    Model,
    heading,
    run_model,
    trained_half,
)
from conceptbench.seeds import rng

FOLLOWED = "followed"
Key = tuple[str, str, str, float]
"""Method, dictionary, sets (or control) and q."""


def measure_concepts(
    task: str,
    backbone: Backbone,
    dataset: Dataset,
    adapters: Mapping[str, Mapping[int, Adapter]],
    dictionaries: Mapping[str, Mapping[str, Mapping[int, Dictionary]]],
    spec: Mapping[str, Any],
) -> pd.DataFrame:
    """Table ``concepts`` of one task (docs/method.md).

    Args:
        adapters: zero-shot first, then methods -> seed -> adapter.
        dictionaries: which (followed, random, adapted) -> method ("" serves all) -> seed -> dictionary.

    Returns:
        task, method, half, dictionary, sets (own, predicted, any, matched, permuted, as_coded), q, outcome, part,
        estimate, low, high, n, seed, note.
    """
    options = spec["concepts"]
    images = trained_half(task, dataset, spec["setting"], options["images"], spec["seed"])
    found: dict[Key, dict[str, dict[str, Scores]]] = {}
    for which, by_method in dictionaries.items():
        for method in (name for name in adapters if name != ZERO_SHOT):
            for seed, dictionary in by_method.get(method, by_method.get("", {})).items():
                models = {
                    name: run_model(backbone, adapters[name][seed], dataset, images, spec["block"], dictionary)
                    for name in (ZERO_SHOT, method)
                }
                stream = rng(spec["seed"], "concepts", task, method, which, seed)
                for (sets, q), scores in _scores(models, method, dictionary, which, spec, stream):
                    found.setdefault((method, which, sets, q), {})[str(seed)] = scores
    targets = targets_of(dataset, images.rows[SPLIT_B], images.candidates)
    rows = []
    for (method, which, sets, q), of_seed in found.items():
        head = _head(images, method) | {"dictionary": which, "sets": sets, "q": q}
        stream = rng(spec["seed"], "concepts", task, method, "resamples")
        rows += [head | row for row in part_rows(of_seed, targets, stream, spec["resamples"])]
    return pd.DataFrame(rows)


def _head(images: Images, method: str) -> dict[str, Any]:
    return heading(images, method=method)


def _scores(
    models: Mapping[str, Model],
    method: str,
    dictionary: Dictionary,
    which: str,
    spec: Mapping[str, Any],
    stream: Any,
) -> Iterator[tuple[tuple[str, float], dict[str, Scores]]]:
    """Scores of one seed: all sets and values of q for the followed dictionary, the main ones for the others."""
    options = spec["concepts"]
    sides = {
        name: Side(model.readout, model.activations[SPLIT_B], model.codes[SPLIT_B]) for name, model in models.items()
    }
    before = models[ZERO_SHOT]
    targets = before.activations[SPLIT_A].targets
    selected = select_on(before.codes[SPLIT_A], targets, before.readout.class_names, spec["firing_threshold"])
    prompts = averaged_prompts(models[method].activations[SPLIT_A])
    pair = Comparison(sides[ZERO_SHOT], sides[method], dictionary, selected, prompts)
    main = options["q"]
    qs = [main, *(q for q in options["q_sweep"] if q != main)] if which == FOLLOWED else [main]
    found = measure_pair(pair, qs)
    if which == FOLLOWED:
        own = found["own", main]
        found["own", main] = own | sufficiency(pair, main)
        for control, scores in controls(pair, main, stream).items():
            found[control, main] = own | scores
    yield from found.items()
