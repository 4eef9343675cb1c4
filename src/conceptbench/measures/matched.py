"""Controls that are matched in frequency and mass: other latents that are active on the same image.

Frequency is the share of images of split A on which a latent fires; mass is what the latent contributes to the image
at hand: the sum over its tokens of value times the norm of its atom. Latents are compared by the two logarithms, each
divided by its standard deviation over the active latents of the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from jaxtyping import Bool, Float, Int64
from numba import njit
from numpy.typing import NDArray

from conceptbench.measures.edits import Firings

if TYPE_CHECKING:
    from conceptbench.dictionaries import Codes, Dictionary

NEAREST: Final = 3
"""A control is drawn among so many of the nearest latents, so that it is random and still matched."""


@dataclass(frozen=True, eq=False)
class Active:
    """The latents that are active on each image, compressed by image, with what they are matched by."""

    starts: Int64[np.ndarray, " image_plus_1"]
    latent: Int64[np.ndarray, " entry"]
    mass: Float[np.ndarray, " entry"]
    place: Float[np.ndarray, "entry 2"]
    """Standardised logarithms of frequency and mass."""

    @property
    def image(self) -> Int64[np.ndarray, " entry"]:
        """Position of the image of each entry."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def ordered(self, order: Int64[np.ndarray, " entry"]) -> Active:
        """The same entries in another order, which must stay within each image."""
        return Active(self.starts, self.latent[order], self.mass[order], self.place[order])


def active_latents(codes: Codes, dictionary: Dictionary, frequency: Float[np.ndarray, " latent"]) -> Active:
    """Active latents of every image.

    Args:
        codes: of the images, by `dictionary`. frequency: share of the images of split A with each latent.
    """
    firings, norms = Firings.of(codes), np.linalg.norm(dictionary.directions, axis=1)
    images, _, width = firings.shape
    keys = firings.image * width + firings.latent
    cells, inverse = np.unique(keys, return_inverse=True)
    mass = np.bincount(inverse, weights=firings.value * norms[firings.latent], minlength=len(cells))
    latent = cells % width
    starts = np.searchsorted(cells, np.arange(images + 1) * width).astype(np.int64)
    floor = 0.5 * float(frequency[frequency > 0].min(initial=1.0))
    place = np.column_stack([np.log(np.maximum(frequency[latent], floor)), np.log(mass)])
    image = np.repeat(np.arange(images), np.diff(starts))
    return Active(starts, latent, mass, _standardised(place, image, images))


def _standardised(place: NDArray[Any], image: NDArray[np.int64], images: int) -> NDArray[np.float64]:
    out = np.array(place, dtype=np.float64)
    count = np.maximum(np.bincount(image, minlength=images), 1)
    for column in out.T:
        column -= (np.bincount(image, weights=column, minlength=images) / count)[image]
        spread = np.sqrt(np.bincount(image, weights=column**2, minlength=images) / count)
        column /= np.where(spread > 0, spread, 1.0)[image]
    return out


def matched_ranks(
    active: Active, ranks: Int64[np.ndarray, "image latent"], rng: np.random.Generator
) -> Int64[np.ndarray, "image latent"]:
    """A ranking of every image's latents that is a control of `ranks` at every k.

    Where the k first latents of `ranks` hold m active ones, the control holds m active ones too: each stands for one of
    them, is drawn among the nearest in frequency and mass, and lies behind that one in the ranking while there are
    such. So the two share few latents while m is small, more as it grows (`control_overlap`), and all of them in the
    end. Latents that are not active on the image come last.
    """
    own = ranks[active.image, active.latent]
    order = np.lexsort((own, active.image))
    sorted_active = active.ordered(order)
    chosen = _match_ordered(active.starts, sorted_active.place, rng.random(len(order)), NEAREST)
    out = np.full(ranks.shape, ranks.shape[1], dtype=np.int64)
    out[active.image, sorted_active.latent[chosen]] = own[order]
    return out


def control_overlap(
    active: Active,
    ranks: Int64[np.ndarray, "image latent"],
    control: Int64[np.ndarray, "image latent"],
    ks: Int64[np.ndarray, " k"],
) -> dict[str, Float[np.ndarray, " k"]]:
    """How far a control of `matched_ranks` can be, and is, other latents than its ranking at each k.

    Returns:
        disjoint: share of images on which it can be, because the k first latents of the ranking are at most half of
        those that are active there. shared: of the active latents among the k first of the ranking those that the
        control holds too, mean over images (0 on an image where there is none).
    """
    n = len(active.starts) - 1
    whole, image = np.diff(active.starts), active.image
    one, other = (found[image, active.latent] for found in (ranks, control))
    disjoint, shared = np.empty(len(ks)), np.empty(len(ks))
    for at, k in enumerate(ks):
        held = np.bincount(image[one < k], minlength=n)
        both = np.bincount(image[(one < k) & (other < k)], minlength=n)
        disjoint[at] = (2 * held <= whole).mean()
        shared[at] = (both / np.maximum(held, 1)).mean()
    return {"disjoint": disjoint, "shared": shared}


def matched_sets(
    active: Active, wanted: Bool[np.ndarray, " entry"], pool: Bool[np.ndarray, " entry"], rng: np.random.Generator
) -> Bool[np.ndarray, " entry"]:
    """For every wanted entry a different entry of the pool of the same image, drawn among the nearest ones.

    Where an image's pool is smaller than what is wanted, all of it is taken.
    """
    return np.asarray(_match_pool(active.starts, active.place, wanted, pool, rng.random(len(wanted)), NEAREST))


def _draw_nearest(
    place: NDArray[np.float64], target: int, allowed: NDArray[np.bool_], first: int, last: int, draw: float, most: int
) -> int:
    """One of the `most` allowed entries in first..last nearest to the target's place; -1 when none is allowed."""
    nearest = np.full(most, -1, dtype=np.int64)
    distance = np.full(most, np.inf)
    found = 0
    for entry in range(first, last):
        if not allowed[entry]:
            continue
        away = (place[entry, 0] - place[target, 0]) ** 2 + (place[entry, 1] - place[target, 1]) ** 2
        found += 1
        at = most
        while at > 0 and away < distance[at - 1]:
            at -= 1
        for later in range(most - 1, at, -1):
            nearest[later] = nearest[later - 1]
            distance[later] = distance[later - 1]
        if at < most:
            nearest[at] = entry
            distance[at] = away
    if found == 0:
        return -1
    return int(nearest[min(int(draw * min(found, most)), min(found, most) - 1)])


_draw = njit(cache=True)(_draw_nearest)


@njit(cache=True)
def _match_ordered(
    starts: NDArray[np.int64], place: NDArray[np.float64], draws: NDArray[np.float64], most: int
) -> NDArray[np.int64]:
    """For the entries of each image in order: an unused entry, behind the present one while there are such."""
    chosen = np.empty(len(place), dtype=np.int64)
    free = np.ones(len(place), dtype=np.bool_)
    for image in range(len(starts) - 1):
        first, last = starts[image], starts[image + 1]
        for entry in range(first, last):
            pick = _draw(place, entry, free, entry + 1, last, draws[entry], most)
            if pick < 0:
                pick = _draw(place, entry, free, first, last, draws[entry], most)
            free[pick] = False
            chosen[entry] = pick
    return chosen


@njit(cache=True)
def _match_pool(
    starts: NDArray[np.int64],
    place: NDArray[np.float64],
    wanted: NDArray[np.bool_],
    pool: NDArray[np.bool_],
    draws: NDArray[np.float64],
    most: int,
) -> NDArray[np.bool_]:
    """For each wanted entry an unused entry of the pool of its image."""
    free = pool.copy()
    taken = np.zeros(len(place), dtype=np.bool_)
    for image in range(len(starts) - 1):
        first, last = starts[image], starts[image + 1]
        for entry in range(first, last):
            if wanted[entry]:
                pick = _draw(place, entry, free, first, last, draws[entry], most)
                if pick >= 0:
                    free[pick] = False
                    taken[pick] = True
    return taken
