"""The concept-to-class association of a model, and how far an adaptation remaps it.

W[c, j] is the mean, over images on which latent j fires, of the change of the logit of class c when j is removed (the
dictionary's error kept), with the sign such that a positive value means "j speaks for c":

    first order: sum over tokens of f_j(x) <d_j, d logit_c / dx>       (one backward pass a class)
    exact:       logit_c(x) - logit_c(x - f_j(x) d_j)

Remapping of class c = corr(W_Z[c, S], W_Z'[c, S]) - corr(W_Z[c, S], W_A[c, S]) over the shared latents S, where every W
is estimated on one random half of the images, Z and Z' on different halves, and likewise Z and A: zero means "no more
than resampling noise". Averaged over random halvings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor

from conceptbench.dictionaries import Codes, Dictionary
from conceptbench.inference import Estimate
from conceptbench.measures.edits import Firings, atoms_in_raw_units, removal
from conceptbench.measures.readout import Activations, Readout
from conceptbench.measures.resampling import halves_weights

MIN_IMAGES = 5
"""A latent is shared when it fires on at least so many images under both models."""


@dataclass(frozen=True, eq=False)
class Effects:
    """First-order effects of one model, image by image, on the latents that fire on any of its images."""

    latents: Int64[np.ndarray, " column"]
    fires: Float[np.ndarray, "image column"]
    effect: Float[np.ndarray, "image class column"]

    def association(self, weights: Float[np.ndarray, "draw image"]) -> Float[np.ndarray, "draw class column"]:
        """W under weights of the images; NaN where a latent fires on none of them."""
        draws, n = weights.shape
        light = weights.astype(np.float32)
        total = (light @ self.effect.reshape(n, -1)).reshape(draws, self.effect.shape[1], -1)
        often = light @ self.fires
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(total / often[:, None])

    def on(self, latents: Int64[np.ndarray, " column"]) -> Effects:
        """The same effects for some of the latents, in that order."""
        at = np.searchsorted(self.latents, latents)
        return Effects(latents, self.fires[:, at], self.effect[:, :, at])

    def of_images(self, chosen: Int64[np.ndarray, " chosen"]) -> Effects:
        """The same effects on some of the images."""
        return Effects(self.latents, self.fires[chosen], self.effect[chosen])


def first_order(readout: Readout, activations: Activations, dictionary: Dictionary, codes: Codes) -> Effects:
    """Effects of every latent that fires, on every class and image."""
    firings, atoms = Firings.of(codes), atoms_in_raw_units(dictionary, activations.tokens)
    latents = np.unique(firings.latent)
    column = np.searchsorted(latents, firings.latent)
    n, classes = len(activations.rows), len(readout.class_names)
    effect = np.zeros((n, classes, len(latents)), dtype=np.float32)
    fires = np.zeros((n, len(latents)), dtype=np.float32)
    fires[firings.image, column] = 1
    for part in activations.batches():
        mine, where = firings.images(part)
        place, pushing = mine.image * len(latents) + column[where], atoms[mine.latent]
        for label, gradient in enumerate(_gradients(readout, activations, part)):
            pushed = (gradient.reshape(-1, gradient.shape[2])[mine.row] * pushing).sum(dim=1)
            values = mine.value * pushed.cpu().numpy()
            summed = np.bincount(place, weights=values, minlength=mine.shape[0] * len(latents))
            effect[part, label] = summed.reshape(mine.shape[0], -1)
    return Effects(latents, fires, effect)


def _gradients(
    readout: Readout, activations: Activations, part: slice
) -> Iterator[Float[Tensor, "image token feature"]]:
    """d logit_c / d tokens for every class c: one forward of the upper half, one backward a class.

    Each class is classified by itself: where class vectors depend on the image (CoCoOp), the backward of one logit
    would otherwise run through the texts of all classes.
    """
    with torch.enable_grad():
        tokens = activations.tokens[part].detach().clone().requires_grad_(True)
        features = readout.features(tokens, activations.prompts[part])
        last = len(readout.class_names) - 1
        for label, name in enumerate(readout.class_names):
            image = features.detach().requires_grad_(True)
            logit = readout.adapter.classify(readout.backbone, image, (name,))
            (pull,) = torch.autograd.grad(logit.sum(), image)
            yield torch.autograd.grad(features, tokens, pull, retain_graph=label < last)[0]


def exact_effects(
    readout: Readout,
    activations: Activations,
    dictionary: Dictionary,
    codes: Codes,
    latents: Sequence[int],
    most: int,
    rng: np.random.Generator,
) -> dict[int, tuple[NDArray[np.int64], Float[np.ndarray, "image class"]]]:
    """For each latent: at most `most` of the images on which it fires, and the change of all logits on them."""
    firings, atoms = Firings.of(codes), atoms_in_raw_units(dictionary, activations.tokens)
    out = {}
    with torch.no_grad():
        for latent in latents:
            where = np.flatnonzero(firings.latent == latent)
            images = np.unique(firings.image[where])
            if not len(images):
                out[int(latent)] = images, np.zeros((0, len(readout.class_names)))
                continue
            if len(images) > most:
                images = np.sort(rng.choice(images, most, replace=False))
            part = firings.row[where] // firings.shape[1]
            keep = np.isin(part, images)
            row = np.searchsorted(images, part[keep]) * firings.shape[1] + firings.row[where][keep] % firings.shape[1]
            shape = (len(images), *firings.shape[1:])
            mine = Firings(row, firings.latent[where][keep], firings.value[where][keep], shape)
            tokens, prompts = activations.tokens[images], activations.prompts[images]
            less = tokens - removal(mine, np.ones(len(row), dtype=bool), atoms)
            change = readout.logits(tokens, prompts) - readout.logits(less, prompts)
            out[int(latent)] = images, change.double().cpu().numpy()
    return out


def shared_latents(one: Effects, other: Effects) -> Int64[np.ndarray, " column"]:
    """Latents that fire on at least `MIN_IMAGES` images of both."""
    often = [e.latents[e.fires.sum(axis=0) >= MIN_IMAGES] for e in (one, other)]
    return np.asarray(np.intersect1d(*often), dtype=np.int64)


def remapping(
    zero_shot: Effects, adapted: Effects, halvings: int, n_resamples: int, rng: np.random.Generator
) -> tuple[list[Estimate], Estimate]:
    """Remapping of every class, and its mean over classes: estimate +- 1.96 bootstrap standard deviations.

    The two may be on the same images or on independent ones, in which case each has halves of its own. A percentile
    interval would be off, because resampling lowers a correlation by itself; both terms lose alike, so their difference
    needs no correction.
    """
    shared = shared_latents(zero_shot, adapted)
    z, a = zero_shot.on(shared), adapted.on(shared)
    point = remapping_draws(z, a, halvings, rng, resample=False).mean(axis=0)
    drawn = remapping_draws(z, a, n_resamples, rng, resample=True)
    n = len(z.fires)
    classes = [_spread(float(p), d, n) for p, d in zip(point, drawn.T, strict=True)]
    return classes, _spread(float(point.mean()), drawn.mean(axis=1), n)


def remapping_draws(
    zero_shot: Effects, adapted: Effects, draws: int, rng: np.random.Generator, *, resample: bool
) -> Float[np.ndarray, "draw class"]:
    """The statistic for random halvings, the images inside each half resampled if asked."""
    first, second = halves_weights(len(zero_shot.fires), draws, rng, resample=resample)
    other = second
    if len(adapted.fires) != len(zero_shot.fires):
        other = halves_weights(len(adapted.fires), draws, rng, resample=resample)[1]
    z, again, a = zero_shot.association(first), zero_shot.association(second), adapted.association(other)
    return correlation(z, again) - correlation(z, a)


def correlation(one: NDArray[Any], other: NDArray[Any]) -> NDArray[np.float64]:
    """Pearson correlation along the last axis over entries that are finite in both; NaN with fewer than three."""
    known = np.isfinite(one) & np.isfinite(other)
    count = known.sum(axis=-1)
    x, y = (np.where(known, values, 0).astype(np.float64) for values in (one, other))
    mean = [values.sum(axis=-1, keepdims=True) / np.maximum(count, 1)[..., None] for values in (x, y)]
    x, y = (np.where(known, values - m, 0) for values, m in zip((x, y), mean, strict=True))
    scale = np.sqrt((x**2).sum(axis=-1) * (y**2).sum(axis=-1))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.where(count >= 3, (x * y).sum(axis=-1) / scale, np.nan))


def _spread(point: float, drawn: NDArray[np.float64], n: int) -> Estimate:
    finite = drawn[np.isfinite(drawn)]
    if not np.isfinite(point) or len(finite) < max(2, len(drawn) / 2):
        return Estimate(point, np.nan, np.nan, n, "too few shared latents")
    half = 1.96 * float(finite.std(ddof=1))
    return Estimate(point, point - half, point + half, n)
