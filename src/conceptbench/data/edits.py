"""Change exactly one factor of one object (or the background) of each scene, everything else and all noise kept."""

import numpy as np
from jaxtyping import Int8
from numba import njit

from conceptbench.data.raster import choice, mix, uniform
from conceptbench.data.scenes import (
    COLOUR,
    MAX_OVERLAP,
    PLACE,
    SHAPE,
    Scenes,
    disc_overlap,
    is_held_out,
    object_centre,
    object_radius,
    stream_key,
)
from conceptbench.data.vocabulary import BACKGROUNDS, OBJECT_FACTORS

EDITABLE = (*OBJECT_FACTORS, "background")
"""Factors that an edit can change, in the order of the ``factor`` numbers returned by ``edit_one_factor``."""

_N_VALUES = np.array([len(values) for values in OBJECT_FACTORS.values()] + [len(BACKGROUNDS)])
_BACKGROUND = len(OBJECT_FACTORS)


def edit_one_factor(
    scenes: Scenes, stream: str, weights: dict[str, float], seed: int = 0
) -> tuple[Scenes, Int8[np.ndarray, " n"], Int8[np.ndarray, " n"]]:
    """The counterfactuals of ``scenes``, with the number of the changed object and of the changed factor in each.

    ``weights`` are the relative frequencies of the factors of ``EDITABLE`` that may change. An edit never produces a
    held-out (shape, colour) pair and never an overlap beyond ``MAX_OVERLAP``; a scene for which a drawn edit has no
    allowed new value is returned unchanged with object and factor -1.
    """
    unknown = set(weights) - set(EDITABLE)
    if unknown:
        raise ValueError(f"unknown factors {sorted(unknown)}; known are {EDITABLE}")
    share = np.array([weights.get(name, 0.0) for name in EDITABLE])
    objects, backgrounds = scenes.objects.copy(), scenes.backgrounds.copy()
    which = np.full((len(scenes), 2), -1, dtype=np.int8)
    cumulative = np.cumsum(share) / share.sum()
    _edit(scenes.keys, stream_key(seed, stream), cumulative, scenes.jitter, objects, backgrounds, which)
    return scenes.with_objects(objects).with_backgrounds(backgrounds), which[:, 0], which[:, 1]


@njit(cache=True, nogil=True)
def _edit(
    keys: np.ndarray,
    stream: np.uint64,
    cumulative: np.ndarray,
    jitter: np.ndarray,
    objects: np.ndarray,
    backgrounds: np.ndarray,
    which: np.ndarray,
) -> None:
    for i in range(keys.shape[0]):
        key = mix(keys[i] ^ stream)
        factor = int(np.searchsorted(cumulative, uniform(key, 0), side="right"))
        if factor == _BACKGROUND:
            step = 1 + choice(key, 1, _N_VALUES[factor] - 1)
            backgrounds[i] = (backgrounds[i] + step) % _N_VALUES[factor]
            which[i, 0], which[i, 1] = 0, factor
            continue
        count = 0
        for o in range(objects.shape[1]):
            count += objects[i, o, SHAPE] >= 0
        target = choice(key, 2, count)
        old = objects[i, target, factor]
        start = choice(key, 3, _N_VALUES[factor] - 1)
        for step in range(_N_VALUES[factor] - 1):
            shift = 1 + (start + step) % (_N_VALUES[factor] - 1)
            objects[i, target, factor] = (old + shift) % _N_VALUES[factor]
            if _allowed(objects[i], jitter[i], target):
                which[i, 0], which[i, 1] = target, factor
                break
            objects[i, target, factor] = old


@njit(cache=True)
def _allowed(objects: np.ndarray, jitter: np.ndarray, target: int) -> bool:
    """Whether the edited object is a common composition and keeps its distance from the others."""
    if is_held_out(objects[target, SHAPE], objects[target, COLOUR]):
        return False
    for other in range(objects.shape[0]):
        if other == target or objects[other, SHAPE] < 0:
            continue
        if objects[other, PLACE] == objects[target, PLACE]:
            return False
        ax, ay = object_centre(objects[other], jitter[other])
        bx, by = object_centre(objects[target], jitter[target])
        distance = np.sqrt((ax - bx) ** 2 + (ay - by) ** 2)
        if disc_overlap(distance, object_radius(objects[other]), object_radius(objects[target])) > MAX_OVERLAP:
            return False
    return True
