"""Rule measure_truth: every dictionary of every backbone scored against the rendered world, beside its nulls."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import pandas as pd

from conceptbench.data import Dataset, counterfactual_pairs, factor_table, patch_masks
from conceptbench.measures.comparison import Contender, compare_with_nulls
from conceptbench.measures.counterfactual import counterfactual_specificity
from conceptbench.measures.matching import MatchingSpec, match_factors, matched_latents
from conceptbench.measures.nulls import NULL_METHODS
from conceptbench.measures.patches import PatchRecovery, PatchSpec, patch_summary, recover_patches
from conceptbench.measures.resampling import MOST_SEARCHES, Pooled, costly_resamples
from conceptbench.measures.stages.encoded import Encoded, label_columns, prefix_tokens, read_encoded
from conceptbench.measures.truth import (
    FactorLabels,
    Recovery,
    TruthSpec,
    factor_labels,
    permutation_null,
    recover_factors,
    recovery_summary,
    sides,
)
from conceptbench.seeds import rng

NULL_RECIPES = {"random": "random backbone", "image": "image-only backbone"}
"""Recipes of backbones that are controls, whatever dictionary is learnt on them, and what they are called."""
KIND = "kind"
"""The factor that is measured apart (`stages/kinds.py`): it is a word for compositions of other factors."""

_Key: TypeAlias = tuple[str, int, str]
"""Backbone, block, dictionary."""
_R = TypeVar("_R", Recovery, PatchRecovery)
_Summary: TypeAlias = Callable[[Mapping[str, _R]], tuple[pd.DataFrame, dict[str, Pooled]]]


@dataclass
class _Collected:
    """Rows of the tables, and the recoveries that summaries and comparisons need."""

    tables: dict[str, list[pd.DataFrame]] = field(default_factory=dict)
    images: dict[_Key, dict[str, Recovery]] = field(default_factory=dict)
    patches: dict[_Key, dict[str, PatchRecovery]] = field(default_factory=dict)

    def add(self, name: str, frame: pd.DataFrame, encoded: Encoded) -> None:
        self.tables.setdefault(name, []).append(label_columns(frame, encoded.ids))


@dataclass(frozen=True)
class _World:
    """What is known about the images of both splits; the same for every dictionary."""

    dataset: Dataset
    rows_a: np.ndarray
    rows_b: np.ndarray
    labels_a: FactorLabels
    labels_b: FactorLabels
    pairs: pd.DataFrame


def measure_truth(
    sources: Mapping[str, Path], grids: Mapping[str, tuple[int, int]], dataset: Dataset, spec: Mapping[str, Any]
) -> dict[str, pd.DataFrame]:
    """Tables truth_* of docs/method.md. Split A is ``val``, split B is ``test``; named kinds are no factor value.

    Args:
        sources: backbone -> folder of its codes on ``dataset``. grids: backbone -> patch grid.
        spec: resamples, permutations, seed; dictionaries (name -> method), backbones (name -> recipe or kind).
    """
    world = _describe(dataset)
    collected = _Collected()
    for backbone, folder in sources.items():
        masks = [
            {
                _name(key): mask
                for key, mask in patch_masks(dataset, rows, grids[backbone]).items()
                if _name(key)[0] != KIND
            }
            for rows in (world.rows_a, world.rows_b)
        ]
        for encoded in read_encoded(folder):
            _score(encoded, world, masks, prefix_tokens(encoded.codes, grids[backbone]), spec, collected)
    tables = {name: pd.concat(parts, ignore_index=True) for name, parts in collected.tables.items()}
    return {**tables, **_summarise(collected, spec, len(world.rows_b))}


def _name(key: str) -> tuple[str, str]:
    factor, value = key.split("=", 1)
    return factor, value


def _describe(dataset: Dataset) -> _World:
    factors = factor_table(dataset)
    factors = factors[factors["factor"] != KIND]
    rows_a, rows_b = dataset.rows("val"), dataset.rows("test")
    labels_a = factor_labels(factors, rows_a)
    labels_b = factor_labels(factors, rows_b, labels_a.names)
    return _World(dataset, rows_a, rows_b, labels_a, labels_b, counterfactual_pairs(dataset))


def _score(
    encoded: Encoded,
    world: _World,
    masks: list[dict[tuple[str, str], np.ndarray]],
    n_prefix: int,
    spec: Mapping[str, Any],
    collected: _Collected,
) -> None:
    """All measures of one dictionary. Generators are the same for every dictionary, so comparisons are paired."""
    codes_a, codes_b = encoded.of(world.rows_a), encoded.of(world.rows_b)
    options = TruthSpec(prefix_tokens=n_prefix, n_resamples=spec["resamples"], n_permutations=spec["permutations"])
    a, b = sides(codes_a, world.labels_a, codes_b, world.labels_b, options)
    key = (encoded.backbone, encoded.block, encoded.dictionary)
    recovery = recover_factors(a, b, rng(spec["seed"], "truth"), options)
    collected.images.setdefault(key, {})[encoded.seed] = recovery
    collected.add("truth_factors", recovery.table, encoded)
    patch = PatchSpec(prefix_tokens=n_prefix, n_resamples=costly_resamples(spec["resamples"]))
    patches = recover_patches(codes_a, masks[0], codes_b, masks[1], rng(spec["seed"], "patches"), patch)
    collected.patches.setdefault(key, {})[encoded.seed] = patches
    collected.add("truth_patches", patches.table, encoded)
    if spec["dictionaries"][encoded.dictionary] in NULL_METHODS:
        return
    draws = min(spec["permutations"], MOST_SEARCHES)
    permuted = permutation_null(a, b, rng(spec["seed"], "permutation"), draws, options)
    collected.add("truth_permutation", permuted, encoded)
    matching = match_factors(a, b, rng(spec["seed"], "matching"), options, MatchingSpec(n_resamples=spec["resamples"]))
    collected.add("truth_matching", matching, encoded)
    matched = {factor: matched_latents(matching, factor) for factor in {name for name, _ in a.labels.names}}
    specificity = counterfactual_specificity(
        encoded.of(world.pairs["before"].to_numpy()),
        encoded.of(world.pairs["after"].to_numpy()),
        world.pairs["factor"].tolist(),
        matched,
        rng(spec["seed"], "counterfactual"),
        prefix_tokens=n_prefix,
        n_resamples=spec["resamples"],
    )
    collected.add("truth_counterfactual", specificity, encoded)


def _summarise(collected: _Collected, spec: Mapping[str, Any], n_images: int) -> dict[str, pd.DataFrame]:
    """Means over factor values of each dictionary, and the best dictionary against every null."""
    summaries: list[pd.DataFrame] = []
    contenders: dict[str, list[Contender]] = {"image": [], "patch": []}
    for key, images in collected.images.items():
        for level, (table, contender) in (
            ("image", _contend(key, images, recovery_summary, spec)),
            ("patch", _contend(key, collected.patches[key], patch_summary, spec)),
        ):
            summaries.append(table)
            contenders[level].append(contender)
    compared = [compare_with_nulls(contenders[level], n_images, level) for level in contenders]
    return {
        "truth_summary": pd.concat(summaries, ignore_index=True),
        "truth_comparison": pd.concat(compared, ignore_index=True),
    }


def _contend(
    key: _Key, recoveries: Mapping[str, _R], summarise: _Summary[_R], spec: Mapping[str, Any]
) -> tuple[pd.DataFrame, Contender]:
    """The summary of one dictionary over its seeds, and the same as it enters the comparison."""
    table, pooled = summarise(recoveries)
    selected = float(np.mean([recovery.selected for recovery in recoveries.values()]))
    ids = dict(zip(("backbone", "block", "dictionary"), key, strict=True))
    return label_columns(table, ids), Contender(*key, _null_kind(key[0], key[2], spec), selected, pooled)


def _null_kind(backbone: str, dictionary: str, spec: Mapping[str, Any]) -> str:
    """What a dictionary is a null of; ``learned`` for those that compete."""
    recipe, method = str(spec["backbones"][backbone]), str(spec["dictionaries"][dictionary])
    if recipe in NULL_RECIPES:
        return NULL_RECIPES[recipe]
    return method if method in NULL_METHODS else "learned"
