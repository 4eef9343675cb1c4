"""Are the true atoms among the learnt ones? Signed one-to-one alignment of two sets of directions, and its null.

The score is the mean correlation coefficient of matched directions (MCC; as used for dictionaries by Song et al., arXiv
2505.20254) with two differences. Cosines keep their sign: codes are never negative, so an atom that points the other
way describes the absence of a feature. And it is reported in both directions: over true features (how many are found)
and over latents (how many find one), because a mean over latents alone hides what is missed.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from jaxtyping import Float, Float64, Int64
from scipy.optimize import linear_sum_assignment

THRESHOLDS: Final = (0.7, 0.9)
"""Cosines from which on an atom counts as recovered."""
CHANCE_DRAWS: Final = 10
"""Random dictionaries of the null; their MCC is a mean over all features and hardly varies."""


@dataclass(frozen=True, eq=False)
class Alignment:
    """The assignment of latents to true features with the largest sum of cosines."""

    cosine: Float64[np.ndarray, "feature"]
    """Cosine of each true atom to its latent's; 0 without a latent, or where it would be negative."""
    latent: Int64[np.ndarray, "feature"]
    """The latent of each true feature, -1 for none."""


def align(
    atoms: Float[np.ndarray, "feature d"], directions: Float[np.ndarray, "latent d"], live: Int64[np.ndarray, "live"]
) -> Alignment:
    """Match true atoms and the directions of live latents one to one; directions need not have unit norm."""
    cosine, latent = np.zeros(len(atoms)), np.full(len(atoms), -1, np.int64)
    if len(live):
        similarity = signed_cosines(atoms, directions[live])
        rows, columns = linear_sum_assignment(similarity, maximize=True)
        cosine[rows], latent[rows] = similarity[rows, columns], live[columns]
    return Alignment(cosine, np.where(cosine > 0, latent, -1))


def signed_cosines(
    atoms: Float[np.ndarray, "feature d"], directions: Float[np.ndarray, "latent d"]
) -> Float64[np.ndarray, "feature latent"]:
    """Return the cosines of all pairs, negative ones as 0."""
    left, right = (rows.astype(np.float64) / _norms(rows) for rows in (atoms, directions))
    return np.asarray(np.maximum(left @ right.T, 0.0))


def chance_mcc(atoms: Float[np.ndarray, "feature d"], n_live: int, rng: np.random.Generator) -> float:
    """Return what `n_live` random directions in as many dimensions reach: their mean cosine over true features."""
    if not n_live:
        return 0.0
    draws = [rng.standard_normal((n_live, atoms.shape[1])) for _ in range(CHANCE_DRAWS)]
    return float(np.mean([align(atoms, directions, np.arange(n_live)).cosine.mean() for directions in draws]))


def over_chance(score: Float64[np.ndarray, "feature"], chance: float) -> Float64[np.ndarray, "feature"]:
    """Return (score - chance) / (1 - chance): 0 is what chance reaches, 1 is perfect."""
    return (score - chance) / (1 - chance) if chance < 1 else np.full_like(score, np.nan)


def alignment_scores(found: Alignment, n_live: int, chance: float) -> dict[str, Float64[np.ndarray, "feature"]]:
    """Scores whose mean over true features is the statistic.

    Recall is over true features; precision is over live latents, hence the factor features / live: its mean over
    features is the sum of cosines over the number of live latents.

    Args:
        found: the alignment. n_live: live latents. chance: `chance_mcc` for as many.
    """
    per_latent = len(found.cosine) / n_live if n_live else 0.0
    scores = {
        "mcc_recall": found.cosine,
        "mcc_recall_null": np.full_like(found.cosine, chance),
        "mcc_recall_over_null": over_chance(found.cosine, chance),
        "mcc_precision": found.cosine * per_latent,
        "mcc_precision_over_null": over_chance(found.cosine * per_latent, chance * per_latent),
    }
    for threshold in THRESHOLDS:
        recovered = (found.cosine >= threshold).astype(np.float64)
        scores[f"recall_at_{threshold:.2f}"] = recovered
        scores[f"precision_at_{threshold:.2f}"] = recovered * per_latent
    return scores


def _norms(rows: Float[np.ndarray, "row d"]) -> Float64[np.ndarray, "row one"]:
    norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    return np.asarray(np.where(norms > 0, norms, 1.0))
