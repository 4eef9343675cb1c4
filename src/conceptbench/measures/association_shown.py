"""The latents that a figure shows for a class: chosen on one half of the images, measured on the other.

What speaks for a class more or less after an adaptation is chosen among thousands of latents, so the values by which
they were chosen are too large. Classes and latents are therefore chosen on one half of the images of each class, and
every value that is shown is of the other half.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from jaxtyping import Float, Int64
from numpy.typing import NDArray

from conceptbench.inference import Estimate, bootstrap_mean
from conceptbench.measures.association import Effects, remapping_draws, shared_latents

ROSE, FELL, KEPT = "rose", "fell", "kept"
SHOWN: Final = 8
"""Latents of each class that rose and that fell most, and that weigh most, in the table."""
NEVER_FIRES: Final = "fires on no image of this half"


@dataclass(frozen=True, eq=False)
class Halves:
    """Positions of the images on which latents are chosen, and of those on which they are shown."""

    chosen_on: Int64[np.ndarray, " image"]
    shown_on: Int64[np.ndarray, " image"]


def split_halves(targets: Int64[np.ndarray, " image"], rng: np.random.Generator) -> Halves:
    """Two disjoint halves of the images, as alike in classes as whole images allow."""
    order = np.lexsort((rng.permutation(len(targets)), targets))
    return Halves(np.sort(order[::2]), np.sort(order[1::2]))


@dataclass(frozen=True, eq=False)
class Pair:
    """W of both models on some images, less its mean over classes; 0 where a latent fires on none of them."""

    latents: Int64[np.ndarray, " column"]
    before: Float[np.ndarray, "class column"]
    after: Float[np.ndarray, "class column"]

    @classmethod
    def of(cls, before: Effects, after: Effects, images: Int64[np.ndarray, " chosen"]) -> Pair:
        """Every latent that fires under either model."""
        latents = np.union1d(before.latents, after.latents)
        tables = []
        for effects in (before.of_images(images), after.of_images(images)):
            wide = np.zeros((effects.effect.shape[1], len(latents)))
            uniform = np.full((1, len(images)), 1 / len(images))
            wide[:, np.searchsorted(latents, effects.latents)] = np.nan_to_num(effects.association(uniform)[0])
            tables.append(wide - wide.mean(axis=0))
        return cls(latents, *tables)

    def chosen(self, label: int) -> dict[int, str]:
        """How columns changed: those that rose or fell most for a class, in that order, and those that weigh most.

        No latent that did not rise is among those that rose, so there may be fewer than `SHOWN`.
        """
        before, after = self.before[label], self.after[label]
        change = after - before
        out = {int(column): ROSE for column in np.argsort(-change, kind="stable")[:SHOWN] if change[column] > 0}
        out |= {int(column): FELL for column in np.argsort(change, kind="stable")[:SHOWN] if change[column] < 0}
        for column in np.argsort(-np.maximum(before, after), kind="stable")[:SHOWN]:
            out.setdefault(int(column), KEPT)
        return out


def most_remapped(before: Effects, after: Effects, halves: Halves, halvings: int, rng: np.random.Generator) -> int:
    """Position of the class that is remapped most on the images on which is chosen."""
    one, other = (effects.of_images(halves.chosen_on) for effects in (before, after))
    shared = shared_latents(one, other)
    found = remapping_draws(one.on(shared), other.on(shared), halvings, rng, resample=False).mean(axis=0)
    return int(np.argmax(np.where(np.isfinite(found), found, -np.inf)))


def association_rows(before: Effects, after: Effects, halves: Halves) -> Iterator[tuple[int, dict[str, Any]]]:
    """For every class the latents of `Pair.chosen` on one half, with their values on the other.

    Yields:
        position of the class; latent, zero_shot, adapted, change.
    """
    choice, shown = (Pair.of(before, after, images) for images in (halves.chosen_on, halves.shown_on))
    for label in range(len(choice.before)):
        for column, change in choice.chosen(label).items():
            values = {"zero_shot": shown.before[label, column], "adapted": shown.after[label, column]}
            yield label, {"latent": int(choice.latents[column]), **values, "change": change}


def stronger_before(before: Effects, after: Effects, halves: Halves, label: int, latents: Sequence[int]) -> list[bool]:
    """Whether each latent speaks for or against the class more strongly before than after, on the choice's half."""
    pair = Pair.of(before, after, halves.chosen_on)
    columns = np.searchsorted(pair.latents, latents)
    return [bool(abs(pair.before[label, at]) > abs(pair.after[label, at])) for at in columns]


def centred(effect: NDArray[Any], label: int) -> NDArray[np.float64]:
    """Effects [image, class] on a class, less the mean over classes: [image]."""
    exact = np.asarray(effect, dtype=np.float64)
    return np.asarray(exact[:, label] - exact.mean(axis=1))


def shown_estimate(values: NDArray[np.float64], resamples: int, rng: np.random.Generator) -> Estimate:
    """Mean over the images on which a latent fires, with an interval over these images; 0 where it fires on none."""
    if not len(values):
        return Estimate(0.0, np.nan, np.nan, 0, NEVER_FIRES)
    return bootstrap_mean(values, n_resamples=resamples, rng=rng)
