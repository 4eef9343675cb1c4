"""Rule measure_masking: curves of on-top-k and off-top-k masking of zero-shot and adapted models, with controls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from conceptbench.adaptation import Adapter
from conceptbench.backbones import Backbone
from conceptbench.data import Dataset
from conceptbench.dictionaries import Dictionary
from conceptbench.measures.edits import Base
from conceptbench.measures.masking import (
    BALANCE,
    CONTROL_OF,
    OUTCOMES,
    RANGES,
    RANGES_OF_DIFFERENCES,
    Beside,
    Curves,
    Outcomes,
    balance,
    contrasts,
    control_overlaps,
    curve_table,
    image_ranks,
    k_grid,
    masking_curves,
    pca_curves,
)
from conceptbench.measures.masking_changes import CHANGED, less, minus, plain_outcomes
from conceptbench.measures.matched import active_latents
from conceptbench.measures.readout import targets_of
from conceptbench.measures.selection import Dense, Selected, select_on
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

TABLES = ("masking", "masking_contrasts", "masking_balance", "masking_changes")
CROSSED = ("true", "dataset")
"""Rankings that, with their controls, are also taken from the other model: one backbone selects, the other infers."""
Found = dict[tuple[str, str], Outcomes]


@dataclass(frozen=True)
class View:
    """One family of curves."""

    selected_by: str
    model: str
    edit: Base
    dense: Dense


def measure_masking(
    task: str,
    backbone: Backbone,
    dataset: Dataset,
    adapters: Mapping[str, Mapping[int, Adapter]],
    dictionaries: Mapping[int, Dictionary],
    spec: Mapping[str, Any],
) -> dict[str, pd.DataFrame]:
    """Tables ``masking``, ``masking_contrasts``, ``masking_balance``, ``masking_changes`` of a task (docs/method.md).

    Args:
        adapters: model (zero-shot first, then methods) -> seed -> adapter. dictionaries: seed -> dictionary.
    """
    options = spec["masking"]
    images = trained_half(task, dataset, spec["setting"], options["images"], spec["seed"])
    found: dict[View, list[Found]] = {}
    hits: dict[tuple[str, str], list[Found]] = {}
    beside: dict[tuple[str, str, str], list[Beside]] = {}
    plain: dict[str, list[Outcomes]] = {}
    ks = k_grid(options["k"], next(iter(dictionaries.values())).width)
    for seed, dictionary in dictionaries.items():
        models = {
            name: run_model(backbone, of_seed[seed], dataset, images, spec["block"], dictionary)
            for name, of_seed in adapters.items()
        }
        for name, model in models.items():
            plain.setdefault(name, []).append(plain_outcomes(model.readout, model.activations[SPLIT_B]))
            for dense in tqdm(options["dense"], desc=f"masking {name} on {task}, seed {seed}", unit="round"):
                stream = rng(spec["seed"], "masking", task, name, dense, seed)
                curves, hit, near = _mask(models, name, dictionary, ks, dense, spec, stream)
                for view, of_view in curves.items():
                    found.setdefault(view, []).append(of_view)
                hits.setdefault((name, dense), []).append(hit)
                for source, of_source in near.items():
                    beside.setdefault((source, name, dense), []).append(of_source)
    curves_of = [
        Curves(_heading(images, v), tuple(of_seed), tuple(beside[v.selected_by, v.model, v.dense]))
        for v, of_seed in found.items()
    ]
    hit_of = [
        Curves(heading(images, model=name) | {"dense": dense}, tuple(of_seed), tuple(beside[name, name, dense]))
        for (name, dense), of_seed in hits.items()
    ]
    targets = targets_of(dataset, images.rows[SPLIT_B], images.candidates)
    return _tables(images, curves_of, hit_of, _changes(images, found, plain), ks, targets, spec)


def _heading(images: Images, view: View) -> dict[str, Any]:
    names = heading(images, model=view.model, selected_by=view.selected_by)
    return names | {"edit": view.edit, "dense": view.dense}


def _changes(images: Images, found: Mapping[View, list[Found]], plain: Mapping[str, list[Outcomes]]) -> list[Curves]:
    """Every view less its own start, less the unedited model, less another ranking or less zero-shot."""
    out = []
    for view, of_seed in found.items():
        against = {"start": [less(mine) for mine in of_seed]}
        if view.edit != "keep-error":
            against["unedited"] = [less(mine, of) for mine, of in zip(of_seed, plain[view.model], strict=True)]
        own = replace(view, selected_by=view.model)
        if own != view:
            against["own-ranking"] = [minus(*pair) for pair in zip(of_seed, found[own], strict=True)]
        elif view.model != ZERO_SHOT:
            other = replace(view, model=ZERO_SHOT, selected_by=ZERO_SHOT)
            against[ZERO_SHOT] = [minus(*pair) for pair in zip(of_seed, found[other], strict=True)]
        for name, values in against.items():
            out.append(Curves(_heading(images, view) | {"against": name}, tuple(values)))
    return out


def _tables(
    images: Images,
    curves: list[Curves],
    hit: list[Curves],
    changes: list[Curves],
    ks: np.ndarray,
    targets: np.ndarray,
    spec: Mapping[str, Any],
) -> dict[str, pd.DataFrame]:
    """The four tables, each with its own stream of resamples."""
    parts = {
        "masking": (curves, OUTCOMES, RANGES),
        "masking_contrasts": ([c for c in map(contrasts, curves) if c.of_seed[0]], OUTCOMES, RANGES_OF_DIFFERENCES),
        "masking_balance": (hit, BALANCE, RANGES),
        "masking_changes": (changes, CHANGED, RANGES_OF_DIFFERENCES),
    }
    return {
        name: curve_table(group, names, ks, targets, rng(spec["seed"], name, images.task), spec["resamples"], ranges)
        for name, (group, names, ranges) in parts.items()
    }


def _mask(
    models: Mapping[str, Model],
    name: str,
    dictionary: Dictionary,
    ks: np.ndarray,
    dense: Dense,
    spec: Mapping[str, Any],
    stream: np.random.Generator,
) -> tuple[dict[View, Found], Found, dict[str, Beside]]:
    """Curves of one model and seed, with its own rankings and with another model's; what its top k hit; the controls.

    The last is, by the model that ranks, how far its controls are other latents (`control_overlaps`).
    """
    mine = models[name]
    scored = mine.activations[SPLIT_B]
    predicted = mine.readout.predict(scored).argmax(axis=1)
    statistics = {other: _statistics(model, spec) for other, model in models.items()}
    active = active_latents(mine.codes[SPLIT_B], dictionary, statistics[name].frequency)
    sources = [name] + [o for o in models if dense == "kept" and o != name and ZERO_SHOT in (o, name)]
    ranks = {o: image_ranks(statistics[o], dense, scored.targets, predicted, active, stream) for o in sources}
    reference = pca_curves(mine.readout, scored, mine.activations[SPLIT_A], ks) if dense == "kept" else {}
    out = {}
    for edit, source in product(spec["masking"]["edits"], sources):
        crossed = [*CROSSED, *(CONTROL_OF[selection] for selection in CROSSED)]
        wanted = {key: rank for key, rank in ranks[source].items() if source == name or key in crossed}
        curves = masking_curves(mine.readout, scored, dictionary, mine.codes[SPLIT_B], wanted, ks, edit)
        out[View(source, name, edit, dense)] = curves | (reference if source == name else {})
    hit = balance(active, ranks[name], ks, statistics[name].frequency)
    near = {source: control_overlaps(active, of_source, ks) for source, of_source in ranks.items()}
    return out, {(selection, ""): values for selection, values in hit.items()}, near


def _statistics(model: Model, spec: Mapping[str, Any]) -> Selected:
    targets = model.activations[SPLIT_A].targets
    return select_on(model.codes[SPLIT_A], targets, model.readout.class_names, spec["firing_threshold"])
