"""Existing and recruited concepts: does an adaptation use latents that a class already had, or new ones?

On split A, E_c are the latents that fire on at least a share q of the images of class c under the zero-shot model Z. On
split B all latents outside E_c are removed from the adapted model's activations, the dictionary's error kept:

    x' = x^A - sum over j not in E_c of f_j(x^A) d_j
    existing = v(x', R_A) - v(Z, Z)      recruited = v(A, A) - v(x', R_A)      (they add up to the gain G)

Removing latents outside E_c also takes away what they did before, which no adaptation recruited:

    baseline = v(x^Z, R_A) - v(x^Z without latents outside E_c, R_A)

So the claim of recruitment rests on an edit that puts them back to their zero-shot values on the same image:

    x'' = x^A - sum over j not in E_c of (f_j(x^A) - f_j(x^Z)) d_j        beyond = v(A, A) - v(x'', R_A)

`beyond` is exactly zero when the activations did not change, whatever became of the readout. So is its converse:

    y = x^Z + sum over j not in E_c of (f_j(x^A) - f_j(x^Z)) d_j          sufficient = v(y, R_A) - v(x^Z, R_A)

v is accuracy or the mean log-likelihood of the true class. f are the codes refitted to the token (`edits.refit`);
`as_coded` are the same edits with the values that the encoder gave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from conceptbench.dictionaries import Codes, Dictionary
from conceptbench.measures.decomposition import RANGES, part_and_share_rows
from conceptbench.measures.edits import Firings, atoms_in_raw_units, base_tokens, refit, removal, remove
from conceptbench.measures.matched import active_latents, matched_sets
from conceptbench.measures.readout import Activations, Readout
from conceptbench.measures.resampling import ALL_SEEDS, image_weights, note_lone_images
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

    def fitted(self, dictionary: Dictionary) -> Firings:
        """The firings, with values refitted to the tokens."""
        firings, tokens = Firings.of(self.codes), self.activations.tokens
        atoms = atoms_in_raw_units(dictionary, tokens)
        error = tokens - base_tokens(dictionary, tokens, self.codes, "replace")
        parts = [refit(firings.images(part)[0], error[part], atoms).value for part in self.activations.batches()]
        return replace(firings, value=np.concatenate(parts))


@dataclass(frozen=True, eq=False)
class Comparison:
    """Zero-shot and adapted model on the same images, with the dictionary and what split A says of it."""

    zero_shot: Side
    adapted: Side
    dictionary: Dictionary
    selected: Selected
    """Aggregates of split A under the zero-shot model."""
    prompts: Float[Tensor, "prompt feature"]
    """The adapted model's prompt states averaged over split A; zero-shot activations get these under its readout."""

    @cached_property
    def hybrid(self) -> Side:
        """Zero-shot activations under the adapted readout."""
        before, tokens = self.zero_shot.activations, self.zero_shot.activations.tokens
        shared = self.prompts.to(tokens).expand(len(tokens), -1, -1)
        activations = Activations(before.rows, before.targets, tokens, shared)
        return Side(self.adapted.readout, activations, self.zero_shot.codes)

    @cached_property
    def fitted(self) -> dict[str, Firings]:
        """Firings removed by each edit: of the zero-shot activations (`baseline`), of the adapted ones (`existing`)."""
        return {name: side.fitted(self.dictionary) for name, side in self.sides.items()}

    @cached_property
    def sides(self) -> dict[str, Side]:
        """What each edit is made on."""
        return {"baseline": self.hybrid, "existing": self.adapted}

    def members(self, q: float) -> Bool[np.ndarray, "class latent"]:
        """E_c of every class."""
        return np.asarray(self.selected.class_share >= max(q, np.finfo(np.float64).tiny))


def score(found: Float[np.ndarray, "image class"], targets: NDArray[np.int64]) -> Scores:
    """Correctness and log-likelihood of each image."""
    return np.stack([found.argmax(axis=1) == targets, found[np.arange(len(targets)), targets]]).astype(np.float64)


def edited(
    side: Side, firings: Firings, chosen: Bool[np.ndarray, " firing"], atoms: Float[Tensor, "latent feature"]
) -> Scores:
    """Scores of the side's activations without the chosen firings."""
    parts = []
    for part in side.activations.batches():
        mine, where = firings.images(part)
        state = remove(side.activations.tokens[part], mine, chosen[where], atoms)
        parts.append(side.readout.log_probabilities(state, side.activations.prompts[part]))
    return score(np.concatenate(parts), side.activations.targets)


def restored(
    side: Side,
    now: tuple[Firings, Bool[np.ndarray, " firing"]],
    before: tuple[Firings, Bool[np.ndarray, " firing"]],
    atoms: Float[Tensor, "latent feature"],
) -> Scores:
    """Scores of the side's activations with the chosen firings `now` taken out and those `before` put in their place.

    Where the two agree the activations are left as they are, bit for bit.
    """
    parts = []
    for part in side.activations.batches():
        new, old = (
            removal(mine, chosen[where], atoms)
            for (mine, where), chosen in ((firings.images(part), chosen) for firings, chosen in (now, before))
        )
        state = side.activations.tokens[part] - (new - old)
        parts.append(side.readout.log_probabilities(state, side.activations.prompts[part]))
    return score(np.concatenate(parts), side.activations.targets)


def outside(
    sets: Bool[np.ndarray, "class latent"], of_image: Int64[np.ndarray, " image"], firings: Firings
) -> Bool[np.ndarray, " firing"]:
    """Firings of latents outside the set of the class that each image is given."""
    return np.asarray(~sets[of_image[firings.image], firings.latent])


def measure_pair(
    pair: Comparison, qs: Sequence[float], which_sets: Sequence[Sets] = SETS
) -> dict[tuple[str, float], dict[str, Scores]]:
    """Scores of every image under the edits, for each (sets, q).

    Returns:
        zero_shot, adapted, hybrid (unedited; hybrid: zero-shot activations under the adapted readout), existing
        (adapted without latents outside E), baseline (hybrid without them), restored (adapted with them as under
        zero-shot).
    """
    plain = {"zero_shot": pair.zero_shot.plain(), "existing": pair.adapted.plain(), "baseline": pair.hybrid.plain()}
    names = {"zero_shot": "zero_shot", "adapted": "existing", "hybrid": "baseline"}
    unedited = {name: score(plain[of], pair.adapted.activations.targets) for name, of in names.items()}
    atoms = atoms_in_raw_units(pair.dictionary, pair.adapted.activations.tokens)
    out = {}
    for which in which_sets:
        for q in qs:
            sets, found = pair.members(q), dict(unedited)
            if which == "any":
                sets = np.broadcast_to(sets.any(axis=0), sets.shape)
            for name, side in pair.sides.items():
                firings, targets = pair.fitted[name], side.activations.targets
                gone = outside(sets, plain[name].argmax(axis=1) if which == "predicted" else targets, firings)
                found[name] = edited(side, firings, gone, atoms)
            seen = plain["existing"].argmax(axis=1) if which == "predicted" else pair.adapted.activations.targets
            now, before = ((f, outside(sets, seen, f)) for f in (pair.fitted["existing"], pair.fitted["baseline"]))
            found["restored"] = restored(pair.adapted, now, before, atoms)
            out[str(which), q] = found
    return out


def sufficiency(pair: Comparison, q: float) -> dict[str, Scores]:
    """Scores of the zero-shot activations under the adapted readout, latents outside E_c moved to their adapted values.

    The converse of `restored`: exactly the hybrid's scores where the activations did not change.
    """
    sets, atoms = pair.members(q), atoms_in_raw_units(pair.dictionary, pair.adapted.activations.tokens)
    targets = pair.adapted.activations.targets
    now, before = ((f, outside(sets, targets, f)) for f in (pair.fitted["existing"], pair.fitted["baseline"]))
    return {"with_recruited": restored(pair.hybrid, before, now, atoms)}


def controls(pair: Comparison, q: float, rng: np.random.Generator) -> dict[str, dict[str, Scores]]:
    """The same scores with other latents removed, for the sets of each image's own class.

    `matched`: as many latents out of E_c, alike in frequency and mass on the adapted activations, and its converse,
    which moves these on the zero-shot activations to their adapted values; `permuted`: outside the sets of permuted
    classes (no class keeps its own); `as_coded`: the same latents as measured, by the values that the encoder gave.
    """
    sets = pair.members(q)
    order = np.roll(rng.permutation(len(sets)), 1)
    wrong = np.empty(len(sets), dtype=np.int64)
    wrong[np.roll(order, -1)] = order
    atoms = atoms_in_raw_units(pair.dictionary, pair.adapted.activations.tokens)
    out: dict[str, dict[str, Scores]] = {}
    active = active_latents(pair.adapted.codes, pair.dictionary, pair.selected.frequency)
    targets = pair.adapted.activations.targets
    known = sets[targets[active.image], active.latent]
    taken = matched_sets(active, ~known, known, rng)
    drawn = np.zeros((len(targets), pair.dictionary.width), dtype=bool)
    drawn[active.image[taken], active.latent[taken]] = True
    coded = {name: Firings.of(side.codes) for name, side in pair.sides.items()}
    for control, of_side in (("matched", pair.fitted), ("permuted", pair.fitted), ("as_coded", coded)):
        found: dict[str, Scores] = {}
        edits: dict[str, tuple[Firings, Bool[np.ndarray, " firing"]]] = {}
        for name, side in pair.sides.items():
            firings = of_side[name]
            own = wrong[targets] if control == "permuted" else targets
            gone = firings.pick(drawn) if control == "matched" else outside(sets, own, firings)
            edits[name] = (firings, gone)
            found[name] = edited(side, firings, gone, atoms)
        found["restored"] = restored(pair.adapted, edits["existing"], edits["baseline"], atoms)
        if control == "matched":
            found["with_recruited"] = restored(pair.hybrid, edits["baseline"], edits["existing"], atoms)
        out[control] = found
    return out


def part_scores(found: Mapping[str, Scores]) -> dict[str, Scores]:
    """Gain and parts of every image, from the scores of its edits."""
    gain = found["adapted"] - found["zero_shot"]
    recruited = found["adapted"] - found["existing"]
    baseline = found["hybrid"] - found["baseline"]
    parts = {
        "gain": gain,
        "existing": gain - recruited,
        "recruited": recruited,
        "baseline": baseline,
        "beyond": found["adapted"] - found["restored"],
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
        for at, outcome in enumerate(OUTCOMES):
            values = {name: np.stack([parts[m][name][at] for m in members]) for name in parts[0]}
            shared = [name for name in SHARED if name in values]
            found = part_and_share_rows(values, shared, weights, RANGES[outcome], str(seed))
            rows += [{"outcome": outcome, **row} for row in found]
    return note_lone_images(rows, targets)


def averaged_prompts(activations: Activations) -> Float[Tensor, "prompt feature"]:
    """The prompt states of a model, averaged over images."""
    with torch.no_grad():
        return activations.prompts.double().mean(dim=0).to(activations.prompts.dtype)
