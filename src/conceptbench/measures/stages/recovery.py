"""Rule measure_recovery: dictionaries learnt on synthetic worlds, scored against the atoms and codes that made them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64
from scipy import sparse

from conceptbench.dictionaries import load_dictionary
from conceptbench.dictionaries.evaluate import FvuCalculator
from conceptbench.dictionaries.synthetic import Tokens, World, world_spec
from conceptbench.inference import Estimate
from conceptbench.measures.nulls import NULL_METHODS
from conceptbench.measures.oracle import project, pursue
from conceptbench.measures.recovery import align, alignment_scores, chance_mcc
from conceptbench.measures.recovery_firing import (
    Scores,
    Side,
    absorption_scores,
    firing_scores,
    shrinkage_scores,
    splitting_scores,
)
from conceptbench.measures.resampling import ALL_SEEDS, UNBOUNDED, Bounds, Pooled, Weights, image_weights
from conceptbench.seeds import rng
from conceptbench.tables import read_json

FLOORS: Final = (*NULL_METHODS, "k-means")
"""Methods without learnt atoms, or with one atom a token: what any score is to be held against."""
TRUE_OMP, TRUE_TOPK = "true-omp", "true-topk"
"""Names of the ceilings in the tables: the true atoms with pursuit, and with a tied linear encoder."""


@dataclass(frozen=True, eq=False)
class _Contender:
    """One dictionary on one draw of a world, ready to be scored."""

    ids: dict[str, Any]
    directions: Float[np.ndarray, "latent d"]
    codes_a: sparse.csr_array
    codes_b: sparse.csr_array
    reconstruction_b: Float[np.ndarray, "token d"]


@dataclass(frozen=True, eq=False)
class _Draw:
    """A draw of a world with the tokens of both splits."""

    world: World
    a: Tokens
    b: Tokens


def measure_recovery(folders: Mapping[str, Path], spec: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Tables `recovery` (scores with intervals) and `recovery_features` (one row a true feature).

    Args:
        folders: world -> R/synthetic/<world>, in the order of the configuration.
        spec: seed, resamples.

    Returns:
        recovery: world, dictionary, configured, method, kind (learned, floor, ceiling), width, world_seed, seed, score,
        estimate, low, high, n, note; rows with both seeds "all" are pooled and have intervals.
        recovery_features: the same identifiers, feature, probability, parent, and every score of a feature.
    """
    features: list[pd.DataFrame] = []
    for name, folder in folders.items():
        learnt = read_json(folder / "manifest.json")["spec"]
        for world_seed in learnt["seeds"]:
            world = World.draw(world_spec(name, learnt["world"]), world_seed, learnt["seed"])
            draw = _Draw(world, *(world.tokens(split, learnt["held_out"]) for split in ("a", "b")))
            chances: dict[int, float] = {}
            for contender in _contenders(draw, folder, learnt):
                features.append(_score(contender, draw, chances, int(spec["seed"])))
    table = pd.concat(features, ignore_index=True)
    return {"recovery": summarise(table, spec), "recovery_features": table}


def _contenders(draw: _Draw, folder: Path, learnt: Mapping[str, Any]) -> Iterator[_Contender]:
    """The ceilings, then every learnt dictionary."""
    yield from _ceilings(draw)
    for name, options in learnt["methods"].items():
        kind = "floor" if options["method"] in FLOORS else "learned"
        for seed in learnt["seeds_of"][name]:
            dictionary = load_dictionary(folder / f"draw{draw.world.stream[2]}" / name / f"seed{seed}")
            codes_a, codes_b = (dictionary.encode(side.x) for side in (draw.a, draw.b))
            ids = {"dictionary": name, "configured": learnt["configured"][name], "method": options["method"]}
            ids |= {"kind": kind, "width": dictionary.width, "seed": str(seed)}
            found_a, found_b = (sparse.csr_array(codes.csr()) for codes in (codes_a, codes_b))
            yield _Contender(ids, dictionary.directions, found_a, found_b, dictionary.decode(codes_b))


def _ceilings(draw: _Draw) -> Iterator[_Contender]:
    """The true atoms, coded by pursuit that knows how many features fire, and by a tied linear encoder."""
    atoms, k = draw.world.atoms, max(1, round(draw.world.spec.l0))
    for name in (TRUE_OMP, TRUE_TOPK):
        sides = []
        for side in (draw.a, draw.b):
            fires = np.diff(side.codes.indptr).astype(np.int64)
            sides.append(pursue(side.x, atoms, fires) if name == TRUE_OMP else project(side.x, atoms, k))
        ids: dict[str, Any] = {"dictionary": name, "configured": name, "method": name, "kind": "ceiling"}
        ids |= {"width": len(atoms), "seed": "0"}
        yield _Contender(ids, atoms, sides[0], sides[1], sides[1] @ atoms)


def _score(contender: _Contender, draw: _Draw, chances: dict[int, float], seed: int) -> pd.DataFrame:
    """One row a true feature; scores of the whole dictionary repeat in every row.

    `chances` keeps the null of each number of live latents, which costs as much as the scores.
    """
    world, directions = draw.world, contender.directions
    a, b = Side(draw.a.codes, contender.codes_a), Side(draw.b.codes, contender.codes_b)
    live = np.flatnonzero(a.counts[1] > 0)
    if len(live) not in chances:
        names = (world.spec.name, world.stream[2], len(live))
        chances[len(live)] = chance_mcc(world.atoms, len(live), rng(seed, "recovery", "chance", *names))
    aligned = align(world.atoms, directions, live)
    firing, latent = firing_scores(a, b, rng(seed, "recovery", "permutation"))
    scores: Scores = {
        **alignment_scores(aligned, len(live), chances[len(live)]),
        **firing,
        **splitting_scores(a, b),
        **absorption_scores(a, b, latent, world.parents),
        **shrinkage_scores(a, b, latent, world.atoms, directions),
    }
    fvu = FvuCalculator()
    fvu.add_batch(draw.b.x, contender.reconstruction_b)
    whole = {
        "fvu": fvu.compute(),
        "l0": b.codes.nnz / b.codes.shape[0],
        "l0_over_true": b.codes.nnz / b.truth.nnz,
        "live_share": len(live) / len(directions),
    }
    described = {"feature": np.arange(len(world.atoms)), "probability": world.probabilities, "parent": world.parents}
    matched = {"nearest_latent": aligned.latent, "firing_latent": latent}
    ids = {"world": world.spec.name, **contender.ids, "world_seed": str(world.stream[2])}
    return pd.DataFrame({**ids, **described, **matched, **scores, **whole})


IDS: Final = ("world", "dictionary", "configured", "method", "kind", "width")
NO_SCORES: Final = ("seed", "world_seed", "feature", "probability", "parent", "nearest_latent", "firing_latent", *IDS)


def summarise(features: pd.DataFrame, spec: Mapping[str, Any]) -> pd.DataFrame:
    """Means over true features of every score, pooled with intervals and for every single draw and seed without.

    Intervals are those of `_pooled`. Scores that no feature has (absorption without a hierarchy) have no rows.
    """
    scores = [name for name in features.columns if name not in NO_SCORES]
    rows: list[dict[str, Any]] = []
    for values, part in features.groupby(list(IDS), sort=False):
        ids = dict(zip(IDS, values, strict=True))
        draws = [[one[scores].to_numpy() for _, one in of.groupby("seed")] for _, of in part.groupby("world_seed")]
        cube = np.asarray(draws, dtype=np.float64)
        stream = rng(int(spec["seed"]), "recovery", str(values[0]))
        weights = image_weights(cube.shape[2], int(spec["resamples"]), stream)
        for at, score in enumerate(scores):
            if np.isfinite(cube[..., at]).any():
                found = _pooled(cube[..., at], weights, _bounds(score))
                rows.append({**ids, "world_seed": ALL_SEEDS, "score": score, **found.row()})
        for (world_seed, seed), one in part.groupby(["world_seed", "seed"], sort=False):
            for score in (name for name in scores if one[name].notna().any()):
                n = int(one[score].notna().sum())
                single = Estimate(float(one[score].mean()), np.nan, np.nan, n, "a single draw and seed")
                rows.append({**ids, "world_seed": world_seed, "score": score, **single.row(str(seed))})
    return pd.DataFrame(rows)


SHARES: Final = (
    *("f1", "f1_null", "firing_precision", "firing_recall", "live_share", "mcc_precision", "mcc_recall"),
    *("mcc_recall_null", "set_f1", "splitting"),
)


def _bounds(score: str) -> Bounds:
    """The range of a score, at which a t interval is cut."""
    if score in SHARES or score.startswith(("recall_at_", "precision_at_")):
        return 0.0, 1.0
    return (0.0, np.inf) if score in ("fvu", "l0", "l0_over_true", "set_size") else UNBOUNDED


def _pooled(
    values: Float64[np.ndarray, "world seed feature"], weights: Weights, bounds: Bounds = UNBOUNDED
) -> Estimate:
    """Mean over all features that have the score, with its interval; n counts these features over the draws.

    Draws of the world are independent, features and all, so the variance between them is all that a mean over several
    draws needs (t interval). With one draw its features are resampled and the seeds of the dictionary added.
    """
    values = values[np.isfinite(values).any(axis=(1, 2))]
    present = np.isfinite(values)
    totals = []
    for table in (np.where(present, values, 0.0), present.astype(np.float64)):
        if len(values) > 1:
            outer = table.sum(axis=(1, 2))
            drawn = np.full(2, outer.mean())
        else:
            outer = table[0].sum(axis=1)
            drawn = weights @ table[0].mean(axis=0)
        totals.append(Pooled(float(outer.mean()), drawn, (outer,)))
    found = totals[0].over(totals[1]).estimate(int(present.any(axis=1).sum()), bounds)
    return replace(found, note=found.note.replace("image", "feature"))
