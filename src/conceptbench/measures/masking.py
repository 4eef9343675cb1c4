"""On-top-k and off-top-k masking: how much of a classification a few latents carry, beside its controls.

Latents are ranked on split A (`selection`), predictions are scored on split B. On: only the k first latents of an
image's ranking stay; off: the k first are removed. Rankings: the aggregate of the image's own class (`true`, the
paper's, which knows the answer), of the class that the unedited model predicts (`predicted`), of another class
(`wrong`), of the whole data set (`dataset`), and random latents among all (`random`). Each of the first four has a
control of its own (`CONTROL_OF`): random latents among those active on the image that match its latents in frequency
and mass, and that know no more of the answer than it does. `pca`: the k first principal components of the tokens of
split A instead of k latents.

Both the replacing edit of the paper and the one that keeps the dictionary's error are made (`edits`). Blocks below the
hook point and the encoding are not repeated: a curve costs one upper half for each k, and all curves share the state in
which nothing is removed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from conceptbench.dictionaries import Codes, Dictionary
from conceptbench.measures.edits import (
    Base,
    Firings,
    atoms_in_raw_units,
    base_tokens,
    off_steps,
    on_steps,
    removal_curve,
)
from conceptbench.measures.matched import Active, control_overlap, matched_ranks
from conceptbench.measures.readout import Activations, Readout
from conceptbench.measures.resampling import ALL_SEEDS, UNBOUNDED, Bounds, Pooled, image_weights, note_lone_images
from conceptbench.measures.selection import Dense, Selected, class_ranks, dataset_ranks

Ranks = dict[str, Int64[np.ndarray, "image latent"]]
Outcomes = Float[np.ndarray, "outcome k image"]
Beside = dict[str, dict[str, Float[np.ndarray, " k"]]]
OUTCOMES: Final = ("accuracy", "log_likelihood", "kl")
CONTROL_OF: Final = {
    "true": "matched",
    "predicted": "matched-predicted",
    "wrong": "matched-wrong",
    "dataset": "matched-dataset",
}
"""The matched control of each ranking; with dense latents last, that of `true` only."""
DIRECTIONS: Final = ("on", "off")
BALANCE: Final = ("active_latents", "mass_share", "frequency")
BESIDE: Final = ("disjoint", "shared")
"""Columns that say how far a matched control is made of other latents than its ranking."""
RANGES: Final[dict[str, Bounds]] = {
    "accuracy": (0.0, 1.0),
    "log_likelihood": (-np.inf, 0.0),
    "kl": (0.0, np.inf),
    "active_latents": (0.0, np.inf),
    "mass_share": (0.0, 1.0),
    "frequency": (0.0, 1.0),
}
"""Range of each outcome and of what the balance counts."""
RANGES_OF_DIFFERENCES: Final[dict[str, Bounds]] = {"accuracy": (-1.0, 1.0)}
PCA: Final = "pca"
CONTRASTS: Final = {
    **{f"{selection}-matched": (selection, control) for selection, control in CONTROL_OF.items()},
    "true-predicted": ("true", "predicted"),
    "true-wrong": ("true", "wrong"),
    "true-random": ("true", "random"),
}
"""Pairs of rankings whose difference is reported: each beyond its own control, and what knowing the answer adds."""


def k_grid(ks: Sequence[int], width: int) -> Int64[np.ndarray, " k"]:
    """The asked-for values of k below the width, with 0 and the width itself."""
    return np.array([0, *(k for k in sorted(set(ks)) if 0 < k < width), width], dtype=np.int64)


def image_ranks(
    selected: Selected,
    dense: Dense,
    targets: Int64[np.ndarray, " image"],
    predicted: Int64[np.ndarray, " image"],
    active: Active,
    rng: np.random.Generator,
) -> Ranks:
    """The ranking of latents of every image under each selection and of its control; `wrong` draws another class."""
    of_class = class_ranks(selected, dense)
    n, width = len(targets), of_class.shape[1]
    wrong = (targets + rng.integers(1, len(of_class), n)) % len(of_class)
    found = {
        "true": of_class[targets],
        "predicted": of_class[predicted],
        "wrong": of_class[wrong],
        "dataset": np.broadcast_to(dataset_ranks(selected, dense), (n, width)),
        "matched": matched_ranks(active, of_class[targets], rng),
        "random": rng.permuted(np.tile(np.arange(width), (n, 1)), axis=1),
    }
    others = {selection: control for selection, control in CONTROL_OF.items() if control not in found}
    if dense == "kept":
        found |= {control: matched_ranks(active, found[selection], rng) for selection, control in others.items()}
    return found


def masking_curves(
    readout: Readout,
    activations: Activations,
    dictionary: Dictionary,
    codes: Codes,
    ranks: Mapping[str, Int64[np.ndarray, "image latent"]],
    ks: Int64[np.ndarray, " k"],
    base: Base,
) -> dict[tuple[str, str], Outcomes]:
    """Accuracy, log-likelihood and KL from the unedited prediction, for each (ranking, direction), k and image.

    Args:
        codes: of the activations. ks: ascending, from 0 to the width (`k_grid`), so that every curve has one end where
            nothing is removed.
    """
    firings, atoms = Firings.of(codes), atoms_in_raw_units(dictionary, activations.tokens)
    start = base_tokens(dictionary, activations.tokens, codes, base)
    n = len(activations.rows)
    out = {(name, way): np.empty((len(OUTCOMES), len(ks), n)) for name in ranks for way in DIRECTIONS}
    for part in activations.batches():
        mine, _ = firings.images(part)
        plain = readout.log_probabilities(activations.tokens[part], activations.prompts[part])
        whole = _score(readout, iter([start[part]]), activations, part, plain)
        for name, rank in ranks.items():
            of_firing = rank[part][mine.image, mine.latent]
            for way, step in (("on", on_steps(of_firing, ks)), ("off", off_steps(of_firing, ks))):
                states = islice(removal_curve(start[part], mine, step, len(ks), atoms), 1, None)
                scored = np.concatenate([whole, _score(readout, states, activations, part, plain)], axis=1)
                out[name, way][:, :, part] = scored[:, ::-1] if way == "on" else scored
    return out


def pca_curves(
    readout: Readout, activations: Activations, fitted_on: Activations, ks: Int64[np.ndarray, " k"]
) -> dict[tuple[str, str], Outcomes]:
    """The same curves with the k first principal components of all tokens of split A in place of k latents.

    On: the mean and the k components stay; off: they are removed and the mean stays. k beyond the features is left out
    (NaN), because there is no such component.
    """
    tokens = fitted_on.tokens.reshape(-1, fitted_on.tokens.shape[2]).double()
    mean = tokens.mean(dim=0)
    centred = tokens - mean
    vectors = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)
    ranks = [int(k) for k in ks if k <= tokens.shape[1]]
    n = len(activations.rows)
    out = {(PCA, way): np.full((len(OUTCOMES), len(ks), n), np.nan) for way in DIRECTIONS}
    for part in activations.batches():
        x = activations.tokens[part]
        plain = readout.log_probabilities(x, activations.prompts[part])
        for way in DIRECTIONS:
            states = _projections(x, mean.to(x), vectors.to(x), ranks, way)
            out[PCA, way][:, : len(ranks), part] = _score(readout, states, activations, part, plain)
    return out


def _projections(x: Tensor, mean: Tensor, vectors: Tensor, ranks: Sequence[int], way: str) -> Iterator[Tensor]:
    centred = x - mean
    scores = centred @ vectors
    for k in ranks:
        kept = scores[..., :k] @ vectors[:, :k].T
        if way == "on":
            yield x if k == x.shape[2] else mean + kept
        else:
            yield x if k == 0 else x - kept


def _score(
    readout: Readout, states: Iterator[Tensor], activations: Activations, part: slice, plain: NDArray[np.float64]
) -> Outcomes:
    """Outcomes [outcome, state, image] of the states of one batch."""
    targets, prompts = activations.targets[part], activations.prompts[part]
    rows = np.arange(len(targets))
    scored = []
    for state in states:
        found = readout.log_probabilities(state, prompts)
        divergence = (np.exp(plain) * (plain - found)).sum(axis=1)
        scored.append((found.argmax(axis=1) == targets, found[rows, targets], divergence))
    return np.stack([np.stack(column) for column in zip(*scored, strict=True)]).astype(np.float64)


def balance(
    active: Active,
    ranks: Mapping[str, Int64[np.ndarray, "image latent"]],
    ks: Int64[np.ndarray, " k"],
    frequency: Float[np.ndarray, " latent"],
) -> dict[str, Float[np.ndarray, "statistic k image"]]:
    """What the top k hit on each image: active latents, share of the image's mass, mean frequency (0 when none)."""
    n = len(active.starts) - 1
    total = np.maximum(np.bincount(active.image, weights=active.mass, minlength=n), np.finfo(np.float64).tiny)
    out = {}
    for name, rank in ranks.items():
        own = rank[active.image, active.latent]
        found = np.empty((len(BALANCE), len(ks), n))
        for at, k in enumerate(ks):
            hit = own < k
            count = np.bincount(active.image[hit], minlength=n)
            mass = np.bincount(active.image[hit], weights=active.mass[hit], minlength=n)
            often = np.bincount(active.image[hit], weights=frequency[active.latent[hit]], minlength=n)
            found[:, at] = count, mass / total, often / np.maximum(count, 1)
        out[name] = found
    return out


def control_overlaps(
    active: Active, ranks: Mapping[str, Int64[np.ndarray, "image latent"]], ks: Int64[np.ndarray, " k"]
) -> Beside:
    """For every matched control among the rankings, and for its contrast: `matched.control_overlap`."""
    out: Beside = {}
    for selection, control in CONTROL_OF.items():
        if selection in ranks and control in ranks:
            found = control_overlap(active, ranks[selection], ranks[control], ks)
            out |= {control: found} | {name: found for name, pair in CONTRASTS.items() if pair == (selection, control)}
    return out


@dataclass(frozen=True, eq=False)
class Curves:
    """Curves of several seeds under one heading: arrays [outcome, k, image] by seed and (ranking, direction)."""

    heading: dict[str, Any]
    of_seed: tuple[dict[tuple[str, str], Outcomes], ...]
    beside: tuple[Beside, ...] = ()
    """Of each seed, what stands beside the curves of matched controls (`control_overlaps`)."""

    def notes_at(self, selection: str, at: int) -> dict[str, float]:
        """`BESIDE` of a selection at position `at` of the values of k, mean over seeds; NaN for what is no control."""
        found = [of_seed[selection] for of_seed in self.beside if selection in of_seed]
        return {name: float(np.mean([of[name][at] for of in found])) if found else np.nan for name in BESIDE}


def curve_table(
    curves: Sequence[Curves],
    names: Sequence[str],
    ks: Int64[np.ndarray, " k"],
    targets: Int64[np.ndarray, " image"],
    rng: np.random.Generator,
    n_resamples: int,
    ranges: Mapping[str, Bounds] = RANGES,
) -> pd.DataFrame:
    """Means over images and seeds with intervals (`resampling.Pooled`); the same resamples for every curve.

    Returns:
        the headings' columns, selection, direction, k, outcome (one of `names`), estimate, low, high, n, seed, note,
        error and freedom of the t interval (NaN for percentiles of one seed), and for matched controls and their
        contrasts disjoint and shared (`matched.control_overlap`; else NaN).
    """
    weights = image_weights(len(targets), n_resamples, rng, targets)
    rows: list[dict[str, Any]] = []
    for group in curves:
        for key in group.of_seed[0]:
            values = np.stack([found[key] for found in group.of_seed])
            columns = values.reshape(len(values), -1, len(targets))
            drawn = weights @ columns.mean(axis=0).T / len(targets)
            of_seed = columns.mean(axis=2)
            head = group.heading | {"selection": key[0], "direction": key[1]}
            for at, point in enumerate(of_seed.mean(axis=0)):
                outcome, k = names[at // len(ks)], int(ks[at % len(ks)])
                pooled = Pooled(float(point), drawn[:, at], (of_seed[:, at],))
                estimate = pooled.estimate(len(targets), ranges.get(outcome, UNBOUNDED))
                beside = group.notes_at(key[0], at % len(ks))
                spread = {"error": estimate.error, "freedom": estimate.freedom}
                rows.append(head | {"k": k, "outcome": outcome} | estimate.row(ALL_SEEDS) | spread | beside)
    table = pd.DataFrame(note_lone_images(rows, targets))
    return table.astype({"error": np.float64, "freedom": np.float64})


def contrasts(curves: Curves) -> Curves:
    """The differences of `CONTRASTS`, image by image, as curves of those names."""
    differences = tuple(
        {
            (name, way): found[one, way] - found[other, way]
            for name, (one, other) in CONTRASTS.items()
            for way in DIRECTIONS
            if (one, way) in found and (other, way) in found
        }
        for found in curves.of_seed
    )
    return Curves(curves.heading, differences, curves.beside)
