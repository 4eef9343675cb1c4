"""Stability: does another training run find the same atoms?

Two dictionaries are matched one to one by the signed cosine of their atoms: codes are never negative, so an atom and
its opposite say different things. Up to `LARGEST_ASSIGNMENT` live latents the matching is the optimal assignment;
above, where it would take hours, it consists of mutual nearest neighbours, whose summed cosine can only be smaller.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Final, Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64
from scipy.optimize import linear_sum_assignment

from conceptbench.dictionaries import Codes, Dictionary
from conceptbench.errors import ConceptBenchError

LARGEST_ASSIGNMENT: Final = 8192
"""Live latents up to which the assignment is solved: it takes time cubic in their number and a square table."""
SHARED_ABOVE: Final = 0.7
"""Cosine from which two matched latents count as the same one (Paulo and Belrose, arXiv 2501.16615)."""
STRATA: Final = 4
"""Quarters of the live latents by how often they fire, from rare to frequent."""
DRAWS: Final = 3
"""Comparisons of shuffled runs behind a floor, at least: the draws of all pairs of runs count together."""
SHUFFLED_TOGETHER: Final = 32
"""Latents that swap coordinates with each other, at least: few would stay what they are."""
BLOCK: Final = 2048
"""Rows of the cosine table held at once when it is not held as a whole."""

Rule = Literal["assignment", "mutual nearest"]


@dataclass(frozen=True)
class LiveLatents:
    """The latents of one dictionary that fire, as unit rows."""

    atoms: Float32[np.ndarray, "live feature"]
    encoder: Float32[np.ndarray, "live feature"]
    frequency: Float64[np.ndarray, "live"]
    """Share of tokens on which each fires."""
    energy: Float64[np.ndarray, "live"]
    """Mean over tokens of code times norm of the direction: first moment."""
    square_energy: Float64[np.ndarray, "live"]
    """Mean over tokens of the square of the same: second moment."""

    @property
    def n(self) -> int:
        """Number of live latents."""
        return len(self.atoms)


@dataclass(frozen=True)
class Matching:
    """Pairs of latents, each used at most once, and how they were found."""

    left: Int64[np.ndarray, "pair"]
    right: Int64[np.ndarray, "pair"]
    cosine: Float64[np.ndarray, "pair"]
    rule: Rule

    def by_left(self, n: int) -> Float64[np.ndarray, "latent"]:
        """Cosine of each latent of the left side with its partner; 0 without one."""
        out: np.ndarray = np.zeros(n)
        out[self.left] = self.cosine
        return out

    def turned(self) -> "Matching":
        """The same matching seen from the right side."""
        return Matching(self.right, self.left, self.cosine, self.rule)


def live_latents(dictionary: Dictionary, codes: Codes) -> LiveLatents:
    """The latents of a dictionary that fire on at least one token of the codes, with their statistics there.

    Raises:
        ConceptBenchError: when the codes come from another dictionary or no latent fires.
    """
    if codes.dictionary != dictionary.digest:
        raise ConceptBenchError("The codes were written by another dictionary; run encode_codes again.")
    width, n = dictionary.width, codes.n_rows
    values = codes.values.astype(np.float64)
    firings, first, second = (
        np.bincount(codes.indices, weights=weights, minlength=width) for weights in (None, values, np.square(values))
    )
    directions = dictionary.directions
    lengths = np.linalg.norm(directions, axis=1).astype(np.float64)
    alive = np.flatnonzero((firings > 0) & (lengths > 0))
    if not len(alive):
        raise ConceptBenchError("No latent of a dictionary fires, so nothing can be matched; learn it again.")
    return LiveLatents(
        unit_rows(directions[alive]),
        unit_rows(dictionary.encoder[alive]),
        firings[alive] / n,
        (first * lengths)[alive] / n,
        (second * np.square(lengths))[alive] / n,
    )


def unit_rows(rows: np.ndarray) -> Float32[np.ndarray, "row feature"]:
    """Rows over their norms; rows of zeros stay."""
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(lengths > 0, lengths, 1.0), dtype=np.float32)


def match(
    left: Float32[np.ndarray, "left feature"],
    right: Float32[np.ndarray, "right feature"],
    largest: int = LARGEST_ASSIGNMENT,
) -> Matching:
    """Match unit rows one to one by signed cosine: the assignment of largest sum, or mutual nearest neighbours.

    Args:
        left, right: unit rows. largest: rows on the larger side up to which the assignment is solved.
    """
    if max(len(left), len(right)) > largest:
        return _mutual_nearest(left, right)
    cosines = left @ right.T
    rows, columns = linear_sum_assignment(cosines, maximize=True)
    return Matching(rows, columns, cosines[rows, columns].astype(np.float64), "assignment")


def compare(a: LiveLatents, b: LiveLatents) -> tuple[dict[str, float], Rule]:
    """Every statistic of a pair of runs, symmetric in the two, and the rule of the matching.

    A latent without a partner counts as cosine 0, on whichever side there are more. Returns: mcc (mean over live
    latents of the cosine with the partner), energy_mcc and square_energy_mcc (weighted by the first and second moment
    of what the latent adds to a token), encoder_mcc (the encoder's rows matched on their own), shared_decoder (share
    with a cosine of at least 0.7), shared_both (also matched to the same partner by the encoder, with at least 0.7
    there), frequency_1 to frequency_4 (mean cosine in each quarter, from rare to frequent).
    """
    decoder, encoder = match(a.atoms, b.atoms), match(a.encoder, b.encoder)
    sides = ((a, decoder), (b, decoder.turned()))
    larger = max(a.n, b.n)
    out = {
        "mcc": float(decoder.cosine.sum()) / larger,
        "energy_mcc": _mean([_weighted(side.energy, found) for side, found in sides]),
        "square_energy_mcc": _mean([_weighted(side.square_energy, found) for side, found in sides]),
        "encoder_mcc": float(encoder.cosine.sum()) / larger,
        "shared_decoder": float(_large(decoder).sum()) / larger,
        "shared_both": float(_agreed(decoder, encoder).sum()) / larger,
    }
    strata = np.mean([_by_frequency(side, found) for side, found in sides], axis=0)
    return out | {f"frequency_{at + 1}": float(value) for at, value in enumerate(strata)}, decoder.rule


def floors(runs: Sequence[LiveLatents], rng: np.random.Generator) -> dict[tuple[int, int], dict[str, float]]:
    """Every statistic of `compare` for each pair of runs after `shuffled`: what they share by chance alone.

    The mean over as many draws as make `DRAWS` comparisons of all pairs together.
    """
    pairs = list(combinations(range(len(runs)), 2))
    drawn = []
    for _ in range(-(-DRAWS // len(pairs))):
        made = [shuffled(run, rng) for run in runs]
        drawn.append({(a, b): compare(made[a], made[b])[0] for a, b in pairs})
    return {pair: {name: _mean([draw[pair][name] for draw in drawn]) for name in drawn[0][pair]} for pair in pairs}


def random_floor(a: LiveLatents, b: LiveLatents, rng: np.random.Generator) -> float:
    """The mcc of as many random unit atoms in as many dimensions, from one draw."""
    left, right = (unit_rows(rng.standard_normal(side.atoms.shape)) for side in (a, b))
    return float(match(left, right).cosine.sum()) / max(a.n, b.n)


def above(value: float, *levels: float) -> float:
    """How far a value is on the way from the largest of the floors (0) to one (1)."""
    floor = max(levels)
    return (value - floor) / (1 - floor) if floor < 1 else 0.0


def shuffled(latents: LiveLatents, rng: np.random.Generator) -> LiveLatents:
    """Latents that keep the mean and the covariance of atoms and encoder, frequency and energy, but no atom.

    In the basis of the principal axes of atoms and encoder rows side by side, every coordinate is permuted over
    latents that fire and weigh alike: a quarter by frequency, and of each a quarter by energy (less often cut where
    fewer than `SHUFFLED_TOGETHER` would be left). What two dictionaries
    share because both live in the same few directions of the activations stays, and so does that their strong latents
    lie there; what they share latent by latent goes.
    """
    rows = np.concatenate([latents.atoms, latents.encoder], axis=1)
    centre = rows.mean(axis=0)
    rows -= centre
    axes = np.linalg.eigh((rows.T @ rows).astype(np.float64))[1].astype(np.float32)
    places = rows @ axes
    for alike in _parts(latents.frequency, latents.n // SHUFFLED_TOGETHER):
        for part in _parts(latents.energy[alike], len(alike) // SHUFFLED_TOGETHER):
            places[alike[part]] = rng.permuted(places[alike[part]], axis=0)
    made = places @ axes.T + centre
    d = latents.atoms.shape[1]
    return replace(latents, atoms=unit_rows(made[:, :d]), encoder=unit_rows(made[:, d:]))


def _parts(values: Float64[np.ndarray, "live"], most: int = STRATA) -> list[Int64[np.ndarray, "stratum"]]:
    """Places of the values cut by size into quarters, or into fewer parts: the smallest first."""
    return np.array_split(np.argsort(values, kind="stable"), min(max(most, 1), STRATA))


def _agreed(decoder: Matching, encoder: Matching) -> Bool[np.ndarray, "pair"]:
    """Pairs of the decoder's matching that the encoder's makes too, both with a large cosine."""
    same = set(zip(encoder.left[_large(encoder)].tolist(), encoder.right[_large(encoder)].tolist(), strict=True))
    pairs = zip(decoder.left.tolist(), decoder.right.tolist(), strict=True)
    found = np.array([pair in same for pair in pairs], dtype=np.bool_)
    return np.asarray(found & _large(decoder))


def _large(found: Matching) -> Bool[np.ndarray, "pair"]:
    return np.asarray(found.cosine >= SHARED_ABOVE)


def _weighted(weights: Float64[np.ndarray, "live"], found: Matching) -> float:
    return float(weights @ found.by_left(len(weights)) / weights.sum())


def _by_frequency(side: LiveLatents, found: Matching) -> Float64[np.ndarray, "stratum"]:
    """Mean cosine in each quarter of the live latents by frequency."""
    cosines = found.by_left(side.n)
    return np.array([cosines[part].mean() if len(part) else np.nan for part in _parts(side.frequency)])


def _mean(values: list[float]) -> float:
    return float(np.mean(values))


def _mutual_nearest(left: Float32[np.ndarray, "left feature"], right: Float32[np.ndarray, "right feature"]) -> Matching:
    """Pairs in which each is the other's nearest; pairs with a cosine of at most 0 are left out.

    No table larger than a block of rows is held. Any one-to-one matching has at most the sum of the best one, so
    statistics from this one are lower bounds.
    """
    nearest, cosine = np.empty(len(left), np.int64), np.empty(len(left), np.float64)
    best, of = np.full(len(right), -np.inf), np.zeros(len(right), np.int64)
    for start, block in _blocks(left, right):
        rows = np.arange(len(block))
        nearest[start : start + len(block)] = block.argmax(axis=1)
        cosine[start : start + len(block)] = block[rows, nearest[start : start + len(block)]]
        top = block.argmax(axis=0)
        values = block[top, np.arange(len(right))]
        better = values > best
        best[better], of[better] = values[better], start + top[better]
    mine = np.flatnonzero((of[nearest] == np.arange(len(left))) & (cosine > 0))
    return Matching(mine, nearest[mine], cosine[mine], "mutual nearest")


def _blocks(
    left: Float32[np.ndarray, "left feature"], right: Float32[np.ndarray, "right feature"]
) -> Iterator[tuple[int, Float32[np.ndarray, "row right"]]]:
    for start in range(0, len(left), BLOCK):
        yield start, left[start : start + BLOCK] @ right.T
