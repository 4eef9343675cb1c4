"""Rule measure_plants: the estimators of remapping scored on adaptations whose truth is known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from conceptbench.adaptation import Adapter
from conceptbench.adaptation.tasks import candidate_labels
from conceptbench.backbones import Backbone
from conceptbench.data import Dataset
from conceptbench.dictionaries import Codes, Dictionary
from conceptbench.errors import ConceptBenchError
from conceptbench.measures.association import Effects, first_order
from conceptbench.measures.plant_harvest import Harvest, Known, harvest
from conceptbench.measures.plant_summary import validation_table
from conceptbench.measures.plant_validation import POOLED, pooled_repetitions, remapping_claims, repetitions
from conceptbench.measures.plants import PLANTS, Plant, PlantName, Soil, grow
from conceptbench.measures.readout import Activations, Readout, activations_of
from conceptbench.measures.selection import select_on
from conceptbench.seeds import rng

HALVINGS = 20
"""Halvings behind each remapping of a repetition."""
REMAPPING_JUDGED: Final[tuple[PlantName, ...]] = ("relabel", "null")
"""Plants on which remapping is claimed: where it is true without a change of the image side, and where it is not."""
POWER_SEEDS = 5
"""Seeds of a plant on which the power of the claim of remapping is found: each costs a backward pass a class."""
Grown = dict[PlantName, list[tuple[Plant, Harvest]]]
TABLES = ("plants", "plant_repetitions", "plant_claims")


def measure_plants(
    backbone: Backbone, dataset: Dataset, adapter: Adapter, dictionary: Dictionary, spec: Mapping[str, Any]
) -> dict[str, pd.DataFrame]:
    """Tables ``plants`` (bias, coverage, false positives, power), ``plant_repetitions`` and ``plant_claims``.

    Nothing is trained, so all images of the trained classes may serve: one half grows the plants, the other is the
    population that samples are drawn from.

    Args:
        adapter: zero-shot.
    """
    options, base = spec["plants"], spec["seed"]
    labels = next(iter(candidate_labels(dataset.classes, spec["setting"]).values()))
    readout = Readout(backbone, adapter, spec["block"], tuple(dataset.classes[label] for label in labels))
    growing, population = _halves(dataset, labels, options["population"], rng(base, "plants", "halves"))
    soil = _soil(readout, dataset, growing, labels, dictionary, spec)
    field = activations_of(backbone, adapter, dataset, population, labels, spec["block"])
    known = Known.of(readout, field, dictionary, dictionary.encode(field.numpy(), str(backbone.device)))
    effects = first_order(readout, field, dictionary, known.side.codes)
    grown = _grown(soil, known, spec)
    repeated = pd.DataFrame(_repeated(grown, spec))
    claimed = pd.DataFrame(_claimed(grown, effects, known, spec))
    table = validation_table(repeated, claimed, rng(base, "plants", "summary"))
    return dict(zip(TABLES, (table, repeated, claimed), strict=True))


def _grown(soil: Soil, known: Known, spec: Mapping[str, Any]) -> Grown:
    """Every plant for every seed, with its scores."""
    options, base = spec["plants"], spec["seed"]
    grown: Grown = {name: [] for name in PLANTS}
    for seed in range(options["seeds"]):
        mine = _subset(soil, spec, rng(base, "plants", "soil", seed))
        for name in PLANTS:
            plant = grow(name, mine, rng(base, "plants", name, seed))
            grown[name].append((plant, harvest(plant, seed, mine, known, options["q"])))
    return grown


def _repeated(grown: Grown, spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Estimates of one planted model, and of three pooled: a third as many threes, on three times as many samples."""
    options, base = spec["plants"], spec["seed"]
    rows: list[dict[str, Any]] = []
    for name, of_plant in grown.items():
        fields = [found for _, found in of_plant]
        for found in fields:
            stream = rng(base, "plants", name, found.seed, "draws")
            rows += repetitions(found, options["resamples"], options["images"], stream)
        stream = rng(base, "plants", name, "pooled")
        rows += pooled_repetitions(fields, POOLED * options["resamples"], options["images"], stream)
    return rows


def _claimed(grown: Grown, effects: Effects, known: Known, spec: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Claims of remapping on the plants that they are judged on."""
    options, base = spec["plants"], spec["seed"]
    rows: list[dict[str, Any]] = []
    for name in REMAPPING_JUDGED:
        for plant, found in grown[name] if name == "null" else grown[name][:POWER_SEEDS]:
            planted = effects if name == "null" else _effects_under(plant, known)
            sampling = options["resamples"], options["images"], HALVINGS
            stream = rng(base, "plants", name, found.seed, "claims")
            rows += remapping_claims(found, effects, planted, *sampling, stream)
    return rows


def _effects_under(plant: Plant, known: Known) -> Effects:
    """First-order effects under the class vectors of a plant that leaves the image side alone."""
    before = known.side.readout
    readout = Readout(before.backbone, plant, before.block, before.class_names)
    return first_order(readout, known.side.activations, known.dictionary, known.side.codes)


def _halves(
    dataset: Dataset, labels: list[int], most: int | None, stream: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """All images of the classes, or at most so many of each, half of each class on either side."""
    every = np.asarray(dataset.labels(np.arange(len(dataset))))
    growing, population = [], []
    for label in labels:
        rows = stream.permutation(np.flatnonzero(every == label))[:most]
        if len(rows) < 4:
            raise ConceptBenchError(
                f"Class {dataset.classes[label]!r} of data set {dataset.name!r} has {len(rows)} images; "
                "plants need at least four of each class."
            )
        growing.append(rows[: len(rows) // 2])
        population.append(rows[len(rows) // 2 :])
    return np.sort(np.concatenate(growing)), np.sort(np.concatenate(population))


def _soil(
    readout: Readout,
    dataset: Dataset,
    rows: NDArray[np.int64],
    labels: list[int],
    dictionary: Dictionary,
    spec: Mapping[str, Any],
) -> Soil:
    backbone = readout.backbone
    activations = activations_of(backbone, readout.adapter, dataset, rows, labels, spec["block"])
    codes = dictionary.encode(activations.numpy(), str(backbone.device))
    with torch.no_grad():
        parts = [backbone.upper(activations.tokens[part], spec["block"]) for part in activations.batches()]
        features = F.normalize(torch.cat(parts), dim=-1)
        texts = readout.adapter.text_features(backbone, readout.class_names)  # type: ignore[attr-defined]
    return Soil(
        readout=readout,
        activations=activations,
        codes=codes,
        dictionary=dictionary,
        selected=select_on(codes, activations.targets, readout.class_names, spec["firing_threshold"]),
        texts=texts,
        features=features,
        effects=first_order(readout, activations, dictionary, codes),
        probabilities=np.exp(readout.predict(activations)),
    )


def _subset(soil: Soil, spec: Mapping[str, Any], stream: np.random.Generator) -> Soil:
    """The soil of one seed: half of the images of each class, so that the sets E_c vary."""
    chosen = np.sort(
        np.concatenate(
            [
                stream.permutation(mine)[: max(2, len(mine) // 2)]
                for mine in (np.flatnonzero(soil.activations.targets == c) for c in np.unique(soil.activations.targets))
            ]
        )
    )
    part = soil.activations
    activations = Activations(part.rows[chosen], part.targets[chosen], part.tokens[chosen], part.prompts[chosen])
    codes: Codes = soil.codes.select_images(chosen)
    effects = Effects(soil.effects.latents, soil.effects.fires[chosen], soil.effects.effect[chosen])
    selected = select_on(codes, activations.targets, soil.readout.class_names, spec["firing_threshold"])
    return Soil(
        soil.readout,
        activations,
        codes,
        soil.dictionary,
        selected,
        soil.texts,
        soil.features[chosen],
        effects,
        soil.probabilities[chosen],
    )
