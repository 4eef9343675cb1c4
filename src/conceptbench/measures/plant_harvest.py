"""Scores of a population of images under a planted adaptation: what the measures see, and what is known.

Scores under every edit are computed once for a plant and its seed. The known truth is the plant without what it
recruited, taken out by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from jaxtyping import Bool, Float, Int64

from conceptbench.dictionaries import Codes, Dictionary
from conceptbench.measures.concepts import Scores, Side, edited, outside, part_scores, restored, score
from conceptbench.measures.decomposition import shapley
from conceptbench.measures.edits import Firings, atoms_in_raw_units
from conceptbench.measures.plants import Plant, Soil
from conceptbench.measures.readout import Activations, Readout

EDITS: Final = ("existing", "baseline", "restored")
_PLAYERS: Final = ("perception", "mapping")


@dataclass(frozen=True, eq=False)
class Harvest:
    """Scores [outcome, image] of the population under one plant and seed, by edit."""

    plant: str
    seed: int
    scores: Mapping[str, Scores]
    targets: Int64[np.ndarray, " image"]

    def estimated(self) -> dict[str, Scores]:
        """The parts as the measures estimate them, image by image."""
        coded = part_scores({name: self.scores[f"{name}_as_coded"] for name in EDITS} | self._unedited())
        return self._parts(part_scores(self.scores), coded)

    def true(self) -> dict[str, Scores]:
        """The parts under the known truth: `existing` is the plant without what it recruited, and costs nothing."""
        left = self.scores["unrecruited"]
        known = {"existing": left, "restored": left, "baseline": self.scores["hybrid"]}
        parts = part_scores(known | self._unedited())
        return self._parts(parts, parts)

    def _unedited(self) -> dict[str, Scores]:
        return {name: self.scores[name] for name in ("zero_shot", "adapted", "hybrid")}

    def _parts(self, parts: Mapping[str, Scores], coded: Mapping[str, Scores]) -> dict[str, Scores]:
        names = {frozenset[str](): "zero_shot", frozenset({"perception"}): "perceived"}
        names |= {frozenset({"mapping"}): "hybrid", frozenset(_PLAYERS): "adapted"}
        values = shapley({coalition: self.scores[name] for coalition, name in names.items()}, _PLAYERS)
        return {**parts, **values, "as_coded": coded["beyond"]}


@dataclass(frozen=True, eq=False)
class Known:
    """The population under the zero-shot model: scored and encoded once, for all plants."""

    side: Side
    dictionary: Dictionary
    plain: Float[np.ndarray, "image class"]
    fitted: Firings

    @classmethod
    def of(cls, readout: Readout, activations: Activations, dictionary: Dictionary, codes: Codes) -> Known:
        """The population with its unedited predictions."""
        side = Side(readout, activations, codes)
        return cls(side, dictionary, side.plain(), side.fitted(dictionary))


def harvest(plant: Plant, seed: int, soil: Soil, known: Known, q: float) -> Harvest:
    """Scores of the population: hybrids, edits by the dictionary, and the plant without what it recruited.

    Args:
        known: the population, on images that the soil does not hold.
    """
    field, targets, zero_shot = known.side.activations, known.side.activations.targets, known.side.readout
    planted = Readout(zero_shot.backbone, plant, zero_shot.block, zero_shot.class_names)
    changed = _with(field, plant.change(field.tokens, targets))
    without = _with(field, plant.change(field.tokens, targets, recruited=False))
    hybrid, sets = Side(planted, field, known.side.codes), soil.selected.class_share >= q
    found = {"zero_shot": score(known.plain, targets), "hybrid": score(hybrid.plain(), targets)}
    found |= _without_outside("baseline", hybrid, known.fitted, known.dictionary, sets)
    if changed is field:
        return Harvest(plant.name, seed, found | _unchanged(found), targets)
    adapted = Side(planted, changed, known.dictionary.encode(changed.numpy()))
    found |= {
        "adapted": score(adapted.plain(), targets),
        "perceived": score(zero_shot.predict(changed), targets),
        "unrecruited": found["hybrid"] if without is field else score(planted.predict(without), targets),
    }
    fitted = adapted.fitted(known.dictionary)
    found |= _without_outside("existing", adapted, fitted, known.dictionary, sets)
    found |= _restored(adapted, fitted, known, sets)
    return Harvest(plant.name, seed, found, targets)


def _unchanged(found: Mapping[str, Scores]) -> dict[str, Scores]:
    """The other scores of a plant that leaves the activations alone."""
    same = {f"existing{suffix}": found[f"baseline{suffix}"] for suffix in ("", "_as_coded")}
    same |= {f"restored{suffix}": found["hybrid"] for suffix in ("", "_as_coded")}
    return same | {"adapted": found["hybrid"], "perceived": found["zero_shot"], "unrecruited": found["hybrid"]}


def _without_outside(
    name: str, side: Side, fitted: Firings, dictionary: Dictionary, sets: Bool[np.ndarray, "class latent"]
) -> dict[str, Scores]:
    """Scores without the latents outside the class of each image, by refitted values and by those of the codes."""
    gone = outside(sets, side.activations.targets, fitted)
    atoms = atoms_in_raw_units(dictionary, side.activations.tokens)
    return {
        name: edited(side, fitted, gone, atoms),
        f"{name}_as_coded": edited(side, Firings.of(side.codes), gone, atoms),
    }


def _restored(side: Side, fitted: Firings, known: Known, sets: Bool[np.ndarray, "class latent"]) -> dict[str, Scores]:
    """Scores with the latents outside the class of each image as on the zero-shot activations, by both values."""
    targets, atoms = side.activations.targets, atoms_in_raw_units(known.dictionary, side.activations.tokens)
    both = {"": (fitted, known.fitted), "_as_coded": (Firings.of(side.codes), Firings.of(known.side.codes))}
    found = {}
    for suffix, pair in both.items():
        now, before = ((firings, outside(sets, targets, firings)) for firings in pair)
        found[f"restored{suffix}"] = restored(side, now, before, atoms)
    return found


def _with(population: Activations, tokens: Any) -> Activations:
    if tokens is population.tokens:
        return population
    return Activations(population.rows, population.targets, tokens, population.prompts)
