"""Existing and recruited concepts: does an adaptation use latents that a class already had, or new ones?

On split A, E_c are the latents that fire on at least a share q of the images of class c under the zero-shot model Z. On
split B all latents outside E_c are removed from the adapted model's activations, the dictionary's error kept:

    x' = x^A - sum over j not in E_c of f_j(x^A) d_j
    existing = v(x', R_A) - v(Z, Z)      recruited = v(A, A) - v(x', R_A)      (they add up to the gain G)

Removing latents outside E_c also costs the zero-shot model something, which no adaptation recruited:

    baseline = v(Z, Z) - v(x^Z without latents outside E_c, R_Z)      beyond = recruited - baseline

`beyond` is zero when nothing changed, and is what the claim of recruitment rests on. Converse: `sufficient` =
v(x^Z + recruited latents of x^A, R_A) - v(x^Z, R_A). v is accuracy or the mean log-likelihood of the true class.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray
from torch import Tensor

from conceptbench.dictionaries import Codes, Dictionary
from conceptbench.measures.decomposition import NO_GAIN
from conceptbench.measures.edits import Firings, atoms_in_raw_units, removal
from conceptbench.measures.matched import active_latents, matched_sets
from conceptbench.measures.readout import Activations, Readout
from conceptbench.measures.resampling import ALL_SEEDS, image_weights, interval, nested_means, seed_weights
from conceptbench.measures.selection import Selected

Sets = Literal["own", "predicted", "any"]
SETS: Final[tuple[Sets, ...]] = ("own", "predicted", "any")
OUTCOMES: Final = ("accuracy", "log_likelihood")
PARTS: Final = ("existing", "recruited", "baseline", "beyond", "sufficient")
SHARED: Final = ("existing", "recruited", "beyond", "sufficient")
"""Parts that are also given as shares of the gain."""
Scores = Float[np.ndarray, "outcome image"]


@dataclass(frozen=True, eq=False)
class Side:
    """One model on split B under one dictionary."""

    readout: Readout
    activations: Activations
    codes: Codes

    def plain(self) -> Float[np.ndarray, "image class"]:
        """Log-probabilities without an edit."""
        return self.readout.predict(self.activations)


@dataclass(frozen=True, eq=False)
class Comparison:
    """Zero-shot and adapted model on the same images, with the dictionary and what split A says of it."""

    zero_shot: Side
    adapted: Side
    dictionary: Dictionary
    selected: Selected
    """Aggregates of split A under the zero-shot model."""


def score(found: Float[np.ndarray, "image class"], targets: NDArray[np.int64]) -> Scores:
    """Correctness and log-likelihood of each image."""
    return np.stack([found.argmax(axis=1) == targets, found[np.arange(len(targets)), targets]]).astype(np.float64)


def edited(
    side: Side, tokens: Tensor, firings: Firings, chosen: Bool[np.ndarray, " firing"], atoms: Tensor, sign: int
) -> Scores:
    """Scores of `tokens` with the chosen firings added (`sign` 1) or removed (-1), under the side's readout."""
    parts = []
    for part in side.activations.batches():
        mine, where = firings.images(part)
        state = tokens[part]
        if chosen[where].any():
            state = state + sign * removal(mine, chosen[where], atoms)
        parts.append(side.readout.log_probabilities(state, side.activations.prompts[part]))
    return score(np.concatenate(parts), side.activations.targets)


def outside(
    sets: Bool[np.ndarray, "class latent"], which: Sets, side: Side, plain: NDArray[np.float64], firings: Firings
) -> Bool[np.ndarray, " firing"]:
    """Firings of latents outside the set of each image: of its class, of the predicted class, or of any class."""
    if which == "any":
        anywhere = np.asarray(sets.any(axis=0))
        return np.asarray(~anywhere[firings.latent])
    of_image = side.activations.targets if which == "own" else np.asarray(plain.argmax(axis=1))
    return np.asarray(~sets[of_image[firings.image], firings.latent])


def measure_pair(
    pair: Comparison, qs: Sequence[float], which_sets: Sequence[Sets] = SETS
) -> dict[tuple[str, float], dict[str, Scores]]:
    """Scores of every image under the edits, for each (sets, q).

    Returns:
        zero_shot, adapted (unedited), existing (adapted without latents outside E), baseline (zero-shot without them).
    """
    plain = {"zero_shot": pair.zero_shot.plain(), "adapted": pair.adapted.plain()}
    unedited = {name: score(found, pair.adapted.activations.targets) for name, found in plain.items()}
    atoms = atoms_in_raw_units(pair.dictionary, pair.adapted.activations.tokens)
    sides = {"baseline": (pair.zero_shot, "zero_shot"), "existing": (pair.adapted, "adapted")}
    firings = {name: Firings.of(side.codes) for name, (side, _) in sides.items()}
    out = {}
    for which in which_sets:
        for q in qs:
            sets = pair.selected.class_share >= max(q, np.finfo(np.float64).tiny)
            found = dict(unedited)
            for name, (side, of) in sides.items():
                gone = outside(sets, which, side, plain[of], firings[name])
                found[name] = edited(side, side.activations.tokens, firings[name], gone, atoms, -1)
            out[str(which), q] = found
    return out


def sufficiency(pair: Comparison, q: float, prompts: Float[Tensor, "prompt feature"]) -> dict[str, Scores]:
    """Scores of the zero-shot activations under the adapted readout, without and with the recruited latents of A.

    Args:
        prompts: the adapted model's prompt states averaged over split A; zero-shot activations get these.
    """
    tokens, targets = pair.zero_shot.activations.tokens, pair.adapted.activations.targets
    shared = prompts.to(tokens).expand(len(tokens), -1, -1)
    hybrid = Side(
        pair.adapted.readout,
        Activations(pair.adapted.activations.rows, targets, tokens, shared),
        pair.adapted.codes,
    )
    sets = pair.selected.class_share >= max(q, np.finfo(np.float64).tiny)
    firings, atoms = Firings.of(pair.adapted.codes), atoms_in_raw_units(pair.dictionary, tokens)
    gone = outside(sets, "own", pair.adapted, pair.adapted.plain(), firings)
    return {
        "hybrid": edited(hybrid, tokens, firings, np.zeros_like(gone), atoms, 1),
        "with_recruited": edited(hybrid, tokens, firings, gone, atoms, 1),
    }


def controls(pair: Comparison, q: float, rng: np.random.Generator) -> dict[str, dict[str, Scores]]:
    """The same scores with other latents removed, for the sets of each image's own class.

    `matched`: as many latents out of E_c, alike in frequency and mass; `permuted`: outside the sets of permuted
    classes (no class keeps its own).
    """
    sets = pair.selected.class_share >= max(q, np.finfo(np.float64).tiny)
    order = np.roll(rng.permutation(len(sets)), 1)
    wrong = np.empty(len(sets), dtype=np.int64)
    wrong[np.roll(order, -1)] = order
    atoms = atoms_in_raw_units(pair.dictionary, pair.adapted.activations.tokens)
    out: dict[str, dict[str, Scores]] = {"matched": {}, "permuted": {}}
    for name, side in (("baseline", pair.zero_shot), ("existing", pair.adapted)):
        firings = Firings.of(side.codes)
        permuted = ~sets[wrong[side.activations.targets[firings.image]], firings.latent]
        out["permuted"][name] = edited(side, side.activations.tokens, firings, permuted, atoms, -1)
        active = active_latents(side.codes, pair.dictionary, pair.selected.frequency)
        known = sets[side.activations.targets[active.image], active.latent]
        taken = matched_sets(active, ~known, known, rng)
        gone = np.zeros((len(active.starts) - 1, pair.dictionary.width), dtype=bool)
        gone[active.image[taken], active.latent[taken]] = True
        out["matched"][name] = edited(side, side.activations.tokens, firings, firings.pick(gone), atoms, -1)
    return out


def part_scores(found: Mapping[str, Scores]) -> dict[str, Scores]:
    """Gain and parts of every image, from the scores of its edits."""
    gain = found["adapted"] - found["zero_shot"]
    recruited = found["adapted"] - found["existing"]
    baseline = found["zero_shot"] - found["baseline"]
    parts = {
        "gain": gain,
        "existing": gain - recruited,
        "recruited": recruited,
        "baseline": baseline,
        "beyond": recruited - baseline,
    }
    if "with_recruited" in found:
        parts["sufficient"] = found["with_recruited"] - found["hybrid"]
    return parts


def part_rows(
    of_seed: Mapping[str, Mapping[str, Scores]], targets: NDArray[np.int64], rng: np.random.Generator, n_resamples: int
) -> list[dict[str, Any]]:
    """Gain, parts and their shares with intervals: per seed and over all seeds.

    Args:
        of_seed: seed -> scores of the edits. targets: class of each image; resamples are drawn within classes.

    Returns:
        rows with outcome, part, estimate, low, high, n, seed, note. Shares are left out, with a note, where the
        interval of the gain contains 0.
    """
    weights = image_weights(len(targets), n_resamples, rng, targets)
    parts = [part_scores(found) for found in of_seed.values()]
    groups = [(seed, [at]) for at, seed in enumerate(of_seed)] + [(ALL_SEEDS, list(range(len(of_seed))))]
    rows: list[dict[str, Any]] = []
    for seed, members in groups:
        shares = seed_weights(len(members), n_resamples, rng)
        for at, outcome in enumerate(OUTCOMES):
            values = {name: np.stack([parts[m][name][at] for m in members]) for name in parts[0]}
            rows += [{"outcome": outcome, **row} for row in _rows(values, weights, shares, str(seed))]
    return rows


def _rows(
    values: Mapping[str, NDArray[np.float64]], weights: NDArray[Any], shares: NDArray[Any], seed: str
) -> list[dict[str, Any]]:
    n = weights.shape[1]
    drawn = {name: nested_means(array, weights, shares) for name, array in values.items()}
    rows = []
    for name, array in values.items():
        rows.append({"part": name, **interval(float(array.mean()), drawn[name], n).row(seed)})
    gain = rows[0]
    clear = gain["low"] > 0 or gain["high"] < 0
    for name in (part for part in SHARED if part in values):
        with np.errstate(divide="ignore", invalid="ignore"):
            replicates = drawn[name] / drawn["gain"]
        share = {"estimate": np.nan, "low": np.nan, "high": np.nan, "n": n, "seed": seed, "note": NO_GAIN}
        if clear:
            share = interval(float(values[name].mean()) / float(values["gain"].mean()), replicates, n).row(seed)
        rows.append({"part": f"{name}_share", **share})
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Rows as a table."""
    return pd.DataFrame(list(rows))


def averaged_prompts(activations: Activations) -> Float[Tensor, "prompt feature"]:
    """The prompt states of a model, averaged over images."""
    with torch.no_grad():
        return activations.prompts.double().mean(dim=0).to(activations.prompts.dtype)
