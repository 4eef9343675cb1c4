"""Counterfactual specificity: when one factor of one object changes, how much of the change in the code is its own?

For a pair of images that differ in one factor, specificity is the share of sum_j |change of latent j| carried by the
latents matched to that factor (`matching.matched_latents`, from split A of other images). The null is the same share
for the latents matched to each other factor, rescaled to the same number of latents, and averaged.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from conceptbench.errors import ConceptBenchError
from conceptbench.inference import Estimate
from conceptbench.measures.resampling import image_weights, interval
from conceptbench.measures.sparse import Reduce, SparseCodes, image_scores


def counterfactual_specificity(
    before: SparseCodes,
    after: SparseCodes,
    changed: Sequence[str],
    matched: Mapping[str, Sequence[int]],
    rng: np.random.Generator,
    *,
    prefix_tokens: int = 1,
    score: Reduce = "max",
    n_resamples: int = 1000,
) -> pd.DataFrame:
    """Share of the change of codes that the changed factor's latents carry, against other factors' latents.

    Args:
        before, after: codes of the two images of every pair, aligned.
        changed: the factor changed in each pair; matched: the latents of every factor.

    Returns:
        factor ("all" is the mean over pairs), statistic (specificity, null_specificity, difference), estimate, low,
        high, n (pairs), note. Pairs whose code does not change at all are left out and counted in the note.
    """
    if not before.shape == after.shape or before.shape[0] != len(changed):
        raise ConceptBenchError(
            f"Counterfactual pairs need aligned codes: {before.shape[0]}, {after.shape[0]} and {len(changed)} names."
        )
    options: dict[str, Any] = {"reduce": score, "prefix_tokens": prefix_tokens}
    change = abs(image_scores(after, **options) - image_scores(before, **options)).tocsr()
    total = np.asarray(change.sum(axis=1)).ravel()
    names = np.asarray(changed)
    usable = (total > 0) & np.isin(names, [factor for factor in matched if matched[factor]])
    own, null = _shares(change[np.flatnonzero(usable)], total[usable], names[usable], matched)
    rows = []
    for factor in ["all", *sorted(set(names.tolist()))]:
        chosen = np.ones(own.size, dtype=np.bool_) if factor == "all" else names[usable] == factor
        lost = int((~usable).sum() if factor == "all" else (~usable & (names == factor)).sum())
        for statistic, values in (("specificity", own), ("null_specificity", null), ("difference", own - null)):
            estimate = _mean(values[chosen], rng, n_resamples)
            note = "; ".join(filter(None, [estimate.note, f"{lost} pairs without a change or a match" if lost else ""]))
            rows.append({"factor": factor, "statistic": statistic, **estimate.row(), "note": note})
    return pd.DataFrame(rows).drop(columns="seed")


def _shares(
    change: sparse.csr_array, total: NDArray[np.float64], names: NDArray[Any], matched: Mapping[str, Sequence[int]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Share carried by the own factor's latents, and the size-matched mean share of the other factors' latents."""
    factors = [factor for factor in matched if len(matched[factor])]
    by_factor = np.stack([change[:, list(matched[f])].sum(axis=1) for f in factors], axis=1) / total[:, None]
    sizes = np.array([len(matched[f]) for f in factors], dtype=np.float64)
    column = np.array([factors.index(name) for name in names], dtype=np.int64)
    per_latent = by_factor / sizes
    own = by_factor[np.arange(len(column)), column]
    others = per_latent.sum(axis=1) - per_latent[np.arange(len(column)), column]
    null = others / max(len(factors) - 1, 1) * sizes[column]
    return own, null


def _mean(values: NDArray[np.float64], rng: np.random.Generator, n_resamples: int) -> Estimate:
    if not values.size:
        return Estimate(np.nan, np.nan, np.nan, 0, "no pairs")
    weights = image_weights(values.size, n_resamples, rng)
    return interval(float(values.mean()), weights @ values / values.size, values.size)
