"""Scenes of the rendered world: which objects, where, on what background.

A scene is described by small integer arrays; ``scene_pixels.render`` turns them into pictures. Scene ``i`` of a stream
is a pure function of (world seed, stream name, i). Changing one entry of ``Scenes.objects`` and rendering again gives
the counterfactual picture: position jitter, rotation, brightness and noise stay as they were.

Whether two discs overlap too much is decided with the C library's arc cosine, whose last bit may differ between
machines: a scene could differ only where an overlap lies within that last bit of the limit.
"""

import zlib
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int8, UInt8, UInt64
from numba import njit

from conceptbench.data.raster import bits, choice, in_threads, mix, uniform
from conceptbench.data.vocabulary import (
    BACKGROUNDS,
    COLOURS,
    FILLS,
    HELD_OUT,
    KINDS,
    OBJECT_FACTORS,
    PLACES,
    SHAPES,
    SIZES,
)

MAX_OBJECTS = 3
SHAPE, COLOUR, FILL, SIZE, PLACE = range(5)
RADII = np.array([9.0, 14.0])
CENTRES = np.array([[18.0, 18.0], [46.0, 18.0], [18.0, 46.0], [46.0, 46.0], [32.0, 32.0]])
MAX_OVERLAP = 0.2
_KIND_SHARE = 0.25
_ATTEMPTS = 12

Compositions = Literal["common", "held-out", "all"]
_POLICY = {"common": 0, "held-out": 1, "all": 2}
_HELD = np.array([[SHAPES.index(s), COLOURS.index(c)] for s, c in HELD_OUT], dtype=np.int64)
_MEMBERS = np.array(
    [
        [SHAPES.index(s), COLOURS.index(c), -1 if f is None else FILLS.index(f)]
        for members in KINDS.values()
        for s, c, f in members
    ],
    dtype=np.int64,
)


@dataclass(frozen=True)
class Scenes:
    """n scenes as arrays; see ``OBJECT_FACTORS`` for the columns of ``objects``.

    ``objects`` holds indices into the vocabularies, -1 where there is no object; ``jitter`` is (dx, dy, angle) of each
    object in pixels and radians; ``keys`` seed textures and sensor noise.
    """

    keys: UInt64[np.ndarray, " n"]
    backgrounds: Int8[np.ndarray, " n"]
    objects: Int8[np.ndarray, "n object factor"]
    jitter: Float64[np.ndarray, "n object 3"]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, rows: "slice | np.ndarray") -> "Scenes":
        return Scenes(self.keys[rows], self.backgrounds[rows], self.objects[rows], self.jitter[rows])

    def with_objects(self, objects: Int8[np.ndarray, "n object factor"]) -> "Scenes":
        """The same scenes (same noise, same jitter) with other objects."""
        return replace(self, objects=objects)

    def with_backgrounds(self, backgrounds: Int8[np.ndarray, " n"]) -> "Scenes":
        """The same scenes on other backgrounds."""
        return replace(self, backgrounds=backgrounds)


def stream_key(world_seed: int, stream: str) -> np.uint64:
    """The 64-bit key of a named stream of pictures."""
    with np.errstate(over="ignore"):
        mixed = (world_seed * 0x100000001B3 + zlib.crc32(stream.encode())) % 2**64
    return np.uint64(mixed)


def sample_scenes(
    world_seed: int,
    stream: str,
    indices: np.ndarray,
    *,
    n_objects: tuple[float, float, float] = (0.4, 0.3, 0.3),
    compositions: Compositions = "common",
) -> Scenes:
    """Scenes number ``indices`` of a stream.

    ``n_objects`` are the probabilities of one, two and three objects; an object that would cover another by more than
    ``MAX_OVERLAP`` is left out. ``compositions`` selects the (shape, colour) pairs: the ``common`` ones, only the
    ``held-out`` ones, or ``all``.
    """
    indices = np.asarray(indices, dtype=np.uint64)
    n = len(indices)
    keys = np.empty(n, dtype=np.uint64)
    backgrounds = np.empty(n, dtype=np.int8)
    objects = np.full((n, MAX_OBJECTS, len(OBJECT_FACTORS)), -1, dtype=np.int8)
    jitter = np.zeros((n, MAX_OBJECTS, 3))
    cumulative = np.cumsum(np.array(n_objects, dtype=np.float64))
    if abs(cumulative[-1] - 1.0) > 1e-9:
        raise ValueError(f"the probabilities of the numbers of objects add up to {cumulative[-1]}, not to 1")
    key, policy = stream_key(world_seed, stream), _POLICY[compositions]

    def part(a: int, b: int) -> None:
        _sample(key, indices[a:b], cumulative, policy, keys[a:b], backgrounds[a:b], objects[a:b], jitter[a:b])

    in_threads(part, n)
    return Scenes(keys, backgrounds, objects, jitter)


@njit(cache=True, nogil=True)
def _sample(
    stream: np.uint64,
    indices: np.ndarray,
    cumulative: np.ndarray,
    policy: int,
    keys: np.ndarray,
    backgrounds: np.ndarray,
    objects: np.ndarray,
    jitter: np.ndarray,
) -> None:
    for i in range(indices.shape[0]):
        key = bits(stream, indices[i])
        keys[i] = key
        backgrounds[i] = choice(key, 0, len(BACKGROUNDS))
        u = uniform(key, 1)
        wanted = 1 if u < cumulative[0] else (2 if u < cumulative[1] else 3)
        placed = 0
        for attempt in range(_ATTEMPTS):
            if placed == wanted:
                break
            _propose(mix(key + np.uint64(attempt + 1)), policy, objects[i, placed], jitter[i, placed])
            if _fits(objects[i], jitter[i], placed):
                placed += 1
            else:
                objects[i, placed, :] = -1
                jitter[i, placed, :] = 0.0


@njit(cache=True)
def _propose(key: int, policy: int, factors: np.ndarray, jitter: np.ndarray) -> None:
    """Draw one object: free factors, or (with probability _KIND_SHARE) a member of a named kind."""
    shape, colour, fill = choice(key, 0, len(SHAPES)), choice(key, 1, len(COLOURS)), choice(key, 2, len(FILLS))
    if policy == 1:
        pair = choice(key, 3, _HELD.shape[0])
        shape, colour = _HELD[pair, 0], _HELD[pair, 1]
    elif uniform(key, 4) < _KIND_SHARE:
        member = choice(key, 5, _MEMBERS.shape[0])
        shape, colour = _MEMBERS[member, 0], _MEMBERS[member, 1]
        if _MEMBERS[member, 2] >= 0:
            fill = _MEMBERS[member, 2]
    elif policy == 0:
        step = 0
        while is_held_out(shape, colour):
            colour = choice(key, 100 + step, len(COLOURS))
            step += 1
    factors[SHAPE], factors[COLOUR], factors[FILL] = shape, colour, fill
    factors[SIZE] = choice(key, 6, len(SIZES))
    factors[PLACE] = choice(key, 7, len(PLACES))
    jitter[0] = (uniform(key, 8) - 0.5) * 5.0
    jitter[1] = (uniform(key, 9) - 0.5) * 5.0
    jitter[2] = (uniform(key, 10) - 0.5) * 0.5


@njit(cache=True)
def is_held_out(shape: int, colour: int) -> bool:
    """Whether pretraining never shows this pair of shape and colour numbers."""
    for pair in range(_HELD.shape[0]):  # noqa: SIM110 (numba compiles no generator expression inside any)
        if _HELD[pair, 0] == shape and _HELD[pair, 1] == colour:
            return True
    return False


@njit(cache=True)
def _fits(objects: np.ndarray, jitter: np.ndarray, new: int) -> bool:
    """Whether object ``new`` overlaps each earlier one by at most MAX_OVERLAP of the smaller disc."""
    for old in range(new):
        if objects[old, PLACE] == objects[new, PLACE]:
            return False
        ax, ay = object_centre(objects[old], jitter[old])
        bx, by = object_centre(objects[new], jitter[new])
        distance = np.sqrt((ax - bx) ** 2 + (ay - by) ** 2)
        if disc_overlap(distance, object_radius(objects[old]), object_radius(objects[new])) > MAX_OVERLAP:
            return False
    return True


@njit(cache=True)
def object_centre(factors: np.ndarray, jitter: np.ndarray) -> tuple[float, float]:
    """Centre (x, y) of an object in pixels."""
    return CENTRES[factors[PLACE], 0] + jitter[0], CENTRES[factors[PLACE], 1] + jitter[1]


@njit(cache=True)
def object_radius(factors: np.ndarray) -> float:
    """Radius of an object in pixels."""
    radius: float = RADII[factors[SIZE]]
    return radius


@njit(cache=True)
def disc_overlap(distance: float, r: float, s: float) -> float:
    """Area common to two discs as a share of the smaller one."""
    small, large = min(r, s), max(r, s)
    if distance >= r + s:
        return 0.0
    if distance <= large - small:
        return 1.0
    a = (distance * distance + small * small - large * large) / (2.0 * distance)
    b = distance - a
    area: float = small * small * (np.arccos(a / small) - a / small * np.sqrt(max(0.0, 1.0 - (a / small) ** 2)))
    area += large * large * (np.arccos(b / large) - b / large * np.sqrt(max(0.0, 1.0 - (b / large) ** 2)))
    return area / (np.pi * small * small)


def kind_members(scenes: Scenes) -> Int8[np.ndarray, "n object"]:
    """For each object the number of the kind (order of ``KINDS``) it belongs to, else -1."""
    found = np.full(scenes.objects.shape[:2], -1, dtype=np.int8)
    for number, members in enumerate(KINDS.values()):
        for shape, colour, fill in members:
            match = (scenes.objects[..., SHAPE] == SHAPES.index(shape)) & (
                scenes.objects[..., COLOUR] == COLOURS.index(colour)
            )
            if fill is not None:
                match &= scenes.objects[..., FILL] == FILLS.index(fill)
            found[match] = number
    return found


def held_out_objects(scenes: Scenes) -> np.ndarray:
    """Boolean [n, object]: the object has a (shape, colour) pair that pretraining never shows."""
    held = np.zeros(scenes.objects.shape[:2], dtype=bool)
    for shape, colour in _HELD:
        held |= (scenes.objects[..., SHAPE] == shape) & (scenes.objects[..., COLOUR] == colour)
    return held


def pack(scenes: Scenes) -> UInt8[np.ndarray, "n bytes"]:
    """Scenes as one byte string each: what the digest of a rendered data set covers besides the pixels."""
    parts = [scenes.keys, scenes.backgrounds, scenes.objects, scenes.jitter]
    return np.concatenate([np.ascontiguousarray(p).view(np.uint8).reshape(len(scenes), -1) for p in parts], axis=1)
