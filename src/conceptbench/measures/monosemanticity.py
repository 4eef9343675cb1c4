"""Monosemanticity: are the images on which a latent fires alike to another model, beyond any set of images?

The score is that of Pach et al. (arXiv 2504.02821): the mean cosine of image embeddings over pairs of images, weighted
by the product of the latent's activations. It is computed in closed form from one sparse product (MonoLoss, arXiv
2602.12403). Its null, images permuted, has closed mean and variance (Mantel 1967), so every latent gets a z-score
without a single permutation. The raw score says little: its null mean is the mean cosine of all pairs of images.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from jaxtyping import Float, Float64, Int64
from scipy import sparse
from scipy.special import ndtr

from conceptbench.errors import ConceptBenchError
from conceptbench.inference import benjamini_hochberg
from conceptbench.measures.intervals import image_groups

FEWEST_IMAGES: Final = 20
"""Latents that fire on fewer images are not tested: few pairs have a skewed null, for which z means little."""
GROUPS: Final = 20
"""Groups of images of the jackknife."""
LEVEL: Final = 0.05
"""False discovery rate at which a latent counts as monosemantic beyond chance."""
STATISTICS: Final = ("mean_excess", "median_z", "significant_share")
PERMUTED: Final = "permuted_"
"""Prefix of the same statistics after one permutation of the images."""


@dataclass(frozen=True)
class Pairs:
    """What the null needs of the embeddings, once for all latents: sums over ordered pairs of different images."""

    n: int
    once: float
    """Sum of cosines, C1."""
    squared: float
    """Sum of squared cosines, C2."""
    chained: float
    """Sum over pairs of pairs that share one image, C3."""
    apart: float
    """Sum over pairs of pairs that share none, C4."""

    @property
    def mean(self) -> float:
        """Mean cosine of two different images: the null mean of every latent's score."""
        return self.once / (self.n * (self.n - 1))


@dataclass(frozen=True)
class LatentSums:
    """What the score needs of each latent; additive over sets of images, so it can be streamed and taken back."""

    firing: Int64[np.ndarray, "latent"]
    powers: Float64[np.ndarray, "4 latent"]
    """Sums over images of a, a^2, a^3, a^4."""
    directions: Float64[np.ndarray, "latent embedding"]
    """Sum over images of a times the unit embedding."""

    def __sub__(self, other: "LatentSums") -> "LatentSums":
        return LatentSums(self.firing - other.firing, self.powers - other.powers, self.directions - other.directions)


@dataclass(frozen=True)
class Judgement:
    """Score, null mean, null standard deviation and z of every latent; NaN where there is no pair of firing images."""

    score: Float64[np.ndarray, "latent"]
    null_mean: float
    null_sd: Float64[np.ndarray, "latent"]

    @property
    def excess(self) -> Float64[np.ndarray, "latent"]:
        """Score less its null mean."""
        return self.score - self.null_mean

    @property
    def z(self) -> Float64[np.ndarray, "latent"]:
        """Excess in standard deviations of the null."""
        out: np.ndarray = np.full(len(self.score), np.nan)
        np.divide(self.excess, self.null_sd, out=out, where=self.null_sd > 0)
        return out


@dataclass(frozen=True)
class Panel:
    """The judges: unit embeddings of the images, their pairs, and the same without each group of images."""

    embeddings: Float64[np.ndarray, "image embedding"]
    pairs: Pairs
    group: Int64[np.ndarray, "image"]
    left_out: tuple[Pairs, ...]
    permutation: Int64[np.ndarray, "image"]
    """One permutation of the images, under which nothing is to be found."""


@dataclass(frozen=True)
class Monosemanticity:
    """Result of one dictionary: a row a latent, and each statistic with its values without each group of images."""

    table: pd.DataFrame
    points: dict[str, float]
    left_out: dict[str, Float64[np.ndarray, "group"]]


def make_panel(embeddings: Float[np.ndarray, "image embedding"], rng: np.random.Generator) -> Panel:
    """Prepare the embeddings of an encoder that is independent of the dictionaries to be judged.

    Raises:
        ConceptBenchError: when an embedding is zero or not finite, or there are fewer than two images a group.
    """
    rows = np.asarray(embeddings, dtype=np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not (np.isfinite(lengths).all() and (lengths > 0).all()):
        raise ConceptBenchError("An image embedding is zero or not finite; check the backbone that makes them.")
    if len(rows) < 2 * GROUPS:
        raise ConceptBenchError(
            f"Monosemanticity needs at least {2 * GROUPS} images and got {len(rows)}; give the data set a larger "
            "test split."
        )
    unit = rows / lengths
    group = image_groups(len(unit), GROUPS, rng)
    left_out = tuple(embedding_pairs(unit[group != number]) for number in range(GROUPS))
    return Panel(unit, embedding_pairs(unit), group, left_out, rng.permutation(len(unit)))


def embedding_pairs(unit: Float64[np.ndarray, "image embedding"]) -> Pairs:
    """Sums over pairs of images from unit embeddings, without the table of all cosines: O(images * embedding^2)."""
    n = len(unit)
    gram = unit.T @ unit
    to_others = unit @ unit.sum(axis=0) - 1
    once, squared = float(to_others.sum()), float(np.square(gram).sum()) - n
    chained = float(np.square(to_others).sum()) - squared
    return Pairs(n, once, squared, chained, once**2 - 4 * chained - 2 * squared)


def latent_sums(activations: sparse.csc_array, unit: Float64[np.ndarray, "image embedding"]) -> LatentSums:
    """Sums of each latent over the images: one sparse product and the first four powers."""
    width = activations.shape[1]
    latent = np.repeat(np.arange(width), np.diff(activations.indptr))
    a = activations.data.astype(np.float64)
    powers = np.stack([np.bincount(latent, weights=a**p, minlength=width) for p in range(1, 5)])
    directions = np.asarray((activations.T @ unit), dtype=np.float64)
    return LatentSums(np.bincount(latent, minlength=width), powers, directions)


def judge(sums: LatentSums, pairs: Pairs) -> Judgement:
    """Scores and the mean and variance of their null, all in closed form.

    With T = sum over i != j of a_i a_j cos_ij and S_p = sum of a^p, the score is T / A1, A1 = S1^2 - S2, and under a
    random permutation of the images E[T] = A1 C1 / n(2) and E[T^2] = 2 A2 C2 / n(2) + 4 A3 C3 / n(3) + A4 C4 / n(4),
    where n(r) = n (n - 1) ... (n - r + 1) (Mantel 1967).
    """
    s1, s2, s3, s4 = sums.powers
    alive = (sums.firing >= 2) & (s1**2 - s2 > 0)
    a1 = np.where(alive, s1**2 - s2, 1.0)
    a2 = s2**2 - s4
    a3 = s1**2 * s2 - 2 * s1 * s3 + s4 - a2
    a4 = a1**2 - 4 * a3 - 2 * a2
    total = np.square(sums.directions).sum(axis=1) - s2
    n = pairs.n
    two, three = n * (n - 1), n * (n - 1) * (n - 2)
    second = 2 * a2 * pairs.squared / two + 4 * a3 * pairs.chained / three + a4 * pairs.apart / (three * (n - 3))
    variance = second / a1**2 - pairs.mean**2
    sd = np.sqrt(np.maximum(variance, 0.0))
    return Judgement(np.where(alive, total / a1, np.nan), pairs.mean, np.where(alive, sd, np.nan))


def measure_latents_alike(scores: sparse.csc_array, panel: Panel) -> Monosemanticity:
    """Judge every latent of one dictionary.

    Args:
        scores: activation of every image and latent [image, latent], not negative, in the order of the panel's images.
            Scaling a latent changes nothing; its smallest value over the images is subtracted, as in the paper.
        panel: the embeddings of the same images.

    Returns:
        The table has latent, firing_images, score, null_mean, null_sd, excess, z, p, q (one-sided, normal; Benjamini
        and Hochberg over the tested latents), z_permuted (the same after one permutation of the images) and note.
        `points` and `left_out` have, over the tested latents: mean_excess, median_z, significant_share (q at most
        0.05); `points` also has these after the permutation, with the prefix "permuted_".

    Raises:
        ConceptBenchError: when a score is negative or the numbers of images differ.
    """
    if scores.shape[0] != len(panel.embeddings):
        raise ConceptBenchError(
            f"Monosemanticity got {scores.shape[0]} coded images and {len(panel.embeddings)} embeddings."
        )
    if scores.nnz and scores.data.min() < 0:
        raise ConceptBenchError("Monosemanticity needs activations that are not negative; split signed codes in two.")
    activations = _scaled(scores)
    sums = _with_left_out(activations, panel)
    tested = sums[0].firing >= FEWEST_IMAGES
    mine, *parts = (judge(each, pairs) for each, pairs in zip(sums, (panel.pairs, *panel.left_out), strict=True))
    null = judge(latent_sums(activations, panel.embeddings[panel.permutation]), panel.pairs)
    permuted = {PERMUTED + name: value for name, value in _statistics(null, tested).items()}
    left_out = [_statistics(part, tested) for part in parts]
    return Monosemanticity(
        _table(sums[0], mine, null, tested),
        _statistics(mine, tested) | permuted,
        {name: np.array([part[name] for part in left_out]) for name in STATISTICS},
    )


def _scaled(scores: sparse.csc_array) -> sparse.csc_array:
    """Activations less the latent's smallest, over its largest: powers then stay near one."""
    columns = sparse.csc_array(scores, dtype=np.float64, copy=True)
    columns.eliminate_zeros()
    counts = np.diff(columns.indptr)
    latent = np.repeat(np.arange(columns.shape[1]), counts)
    smallest, largest = np.full(columns.shape[1], np.inf), np.zeros(columns.shape[1])
    np.minimum.at(smallest, latent, columns.data)
    smallest[counts < columns.shape[0]] = 0.0
    columns.data -= smallest[latent]
    np.maximum.at(largest, latent, columns.data)
    columns.data /= np.where(largest > 0, largest, 1.0)[latent]
    columns.eliminate_zeros()
    return columns


def _with_left_out(activations: sparse.csc_array, panel: Panel) -> list[LatentSums]:
    """Sums over all images, then over all images without each group."""
    whole, rows = latent_sums(activations, panel.embeddings), activations.tocsr()
    groups = [np.flatnonzero(panel.group == number) for number in range(GROUPS)]
    return [whole, *(whole - latent_sums(sparse.csc_array(rows[at]), panel.embeddings[at]) for at in groups)]


def _statistics(found: Judgement, tested: np.ndarray) -> dict[str, float]:
    if not tested.any():
        return dict.fromkeys(STATISTICS, np.nan)
    z = found.z[tested]
    values = (np.nanmean(found.excess[tested]), np.nanmedian(z), np.mean(_q(z) <= LEVEL))
    return {name: float(value) for name, value in zip(STATISTICS, values, strict=True)}


def _q(z: np.ndarray) -> np.ndarray:
    """Adjusted p-values; a latent without a z cannot be a discovery."""
    return benjamini_hochberg(ndtr(-np.nan_to_num(z, nan=-np.inf)))


def _table(sums: LatentSums, mine: Judgement, null: Judgement, tested: np.ndarray) -> pd.DataFrame:
    q: np.ndarray = np.full(len(tested), np.nan)
    if tested.any():
        q[tested] = _q(mine.z[tested])
    columns: dict[str, Any] = {
        "latent": np.arange(len(tested)),
        "firing_images": sums.firing,
        "score": mine.score,
        "null_mean": mine.null_mean,
        "null_sd": mine.null_sd,
        "excess": mine.excess,
        "z": mine.z,
        "p": np.where(tested, ndtr(-mine.z), np.nan),
        "q": q,
        "z_permuted": null.z,
        "note": np.where(tested, "", f"fires on fewer than {FEWEST_IMAGES} images"),
    }
    return pd.DataFrame(columns)
