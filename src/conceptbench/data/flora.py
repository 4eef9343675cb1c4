"""Flora: 24 fine-grained classes of rendered flowers with invented names, after Flowers-102 (one flower an image).

A class is a combination of petal count, petal shape, petal colour, centre colour and two-tone. The classes form a chain
in which neighbours differ in exactly one factor; alternate members of the chain are named from the two halves of the
alphabet, so that base classes (first half of the sorted names) and novel classes both hold every factor value.
"""

import math

import numpy as np
from numba import njit

from conceptbench.data.geometry import (
    SIZE,
    Labels,
    angle_turn,
    between,
    cell_key,
    cos_turn,
    image_key,
    render_batch,
    sin_turn,
    smooth,
)
from conceptbench.data.raster import bits, finish_pixels, uniform, value_noise

PETAL_COUNTS = (3, 5, 8)
PETAL_SHAPES = ("round", "pointed", "strap", "notched")
PETAL_COLOURS = ("white", "yellow", "orange", "red", "pink", "purple", "blue")
CENTRE_COLOURS = ("yellow", "brown", "green", "white")

_CHAIN: tuple[tuple[str, int, str, str, str, str], ...] = (
    ("alvane", 5, "pointed", "white", "yellow", "two-tone"),
    ("merundy", 5, "pointed", "white", "yellow", "plain"),
    ("belune", 5, "pointed", "blue", "yellow", "plain"),
    ("novarel", 5, "pointed", "blue", "brown", "plain"),
    ("cordily", 3, "pointed", "blue", "brown", "plain"),
    ("orvine", 3, "round", "blue", "brown", "plain"),
    ("dravel", 3, "round", "blue", "brown", "two-tone"),
    ("pelundy", 3, "round", "blue", "white", "two-tone"),
    ("elmora", 3, "round", "yellow", "white", "two-tone"),
    ("quenda", 3, "notched", "yellow", "white", "two-tone"),
    ("fendry", 8, "notched", "yellow", "white", "two-tone"),
    ("rosmel", 8, "strap", "yellow", "white", "two-tone"),
    ("galume", 8, "strap", "purple", "white", "two-tone"),
    ("sarvine", 8, "strap", "purple", "brown", "two-tone"),
    ("hovelin", 3, "strap", "purple", "brown", "two-tone"),
    ("tulvane", 3, "strap", "purple", "green", "two-tone"),
    ("ilmara", 3, "strap", "pink", "green", "two-tone"),
    ("umbrel", 3, "strap", "pink", "green", "plain"),
    ("jorvin", 3, "notched", "pink", "green", "plain"),
    ("velory", 8, "notched", "pink", "green", "plain"),
    ("kelune", 8, "notched", "red", "green", "plain"),
    ("wendril", 8, "notched", "red", "yellow", "plain"),
    ("lismere", 8, "notched", "orange", "yellow", "plain"),
    ("zarune", 8, "notched", "orange", "green", "plain"),
)
FLORA_CHAIN: tuple[str, ...] = tuple(row[0] for row in _CHAIN)
"""The classes in the order of the chain: neighbours differ in one factor."""
FLORA_CLASSES: dict[str, dict[str, str | int]] = {
    name: {"petal_count": count, "petal_shape": shape, "petal_colour": petal, "centre_colour": centre, "tone": tone}
    for name, count, shape, petal, centre, tone in sorted(_CHAIN)
}
"""Class name to factors, in label order (sorted names)."""

_LEVELS = np.array(
    [
        (
            int(row["petal_count"]),
            PETAL_SHAPES.index(str(row["petal_shape"])),
            PETAL_COLOURS.index(str(row["petal_colour"])),
            CENTRE_COLOURS.index(str(row["centre_colour"])),
            int(row["tone"] == "two-tone"),
        )
        for row in FLORA_CLASSES.values()
    ],
    dtype=np.int64,
)
_PETAL_RGB = np.array(
    [(0.95, 0.94, 0.92), (0.97, 0.84, 0.16), (0.96, 0.53, 0.10), (0.82, 0.10, 0.14), (0.95, 0.52, 0.70),
     (0.52, 0.22, 0.68), (0.25, 0.36, 0.85)]
)  # fmt: skip
_BASE_RGB = np.array(  # the inner half of a two-tone petal
    [(0.88, 0.36, 0.60), (0.70, 0.22, 0.08), (0.62, 0.10, 0.06), (0.98, 0.78, 0.30), (0.99, 0.92, 0.90),
     (0.93, 0.85, 0.97), (0.93, 0.95, 0.99)]
)  # fmt: skip
_CENTRE_RGB = np.array([(0.96, 0.78, 0.12), (0.30, 0.17, 0.09), (0.48, 0.66, 0.22), (0.96, 0.95, 0.90)])
_GROUND_RGB = np.array(  # dark and light tone of: meadow, leaves, soil, shade, dry grass
    [[(0.13, 0.28, 0.08), (0.42, 0.60, 0.24)], [(0.08, 0.22, 0.10), (0.30, 0.52, 0.26)],
     [(0.23, 0.16, 0.11), (0.53, 0.42, 0.31)], [(0.03, 0.06, 0.04), (0.16, 0.25, 0.13)],
     [(0.38, 0.36, 0.18), (0.70, 0.66, 0.42)]]
)  # fmt: skip
_STREAM = 0xF10A


@njit(cache=True)
def _ground(key: int, canvas: np.ndarray) -> None:
    """Background: one of five grounds with coarse clutter and, by kind, blades, leaves or grains."""
    kind = int(uniform(key, 0) * 5.0)
    turn, coarse = uniform(key, 1), between(key, 2, 7.0, 14.0)
    ca, sa = cos_turn(turn), sin_turn(turn)
    tint = np.array((between(key, 3, 0.85, 1.15), between(key, 4, 0.9, 1.1), between(key, 5, 0.8, 1.2)))
    along, across = (9.0, 1.6) if kind == 0 or kind == 4 else ((5.0, 3.0) if kind == 1 else (1.7, 1.7))
    near, far = bits(key, 11), bits(key, 12)
    strength = between(key, 6, 0.5, 1.0)
    for i in range(SIZE):
        for j in range(SIZE):
            u, v = (ca * j + sa * i), (ca * i - sa * j)
            blob = value_noise(far, u, v, coarse)
            grain = value_noise(near, u / along, v / across, 1.0)
            if kind == 1:
                grain = smooth(0.35, 0.65, grain)
            mixing = 0.5 * blob + 0.5 * (0.5 + strength * (grain - 0.5))
            for c in range(3):
                dark, light = _GROUND_RGB[kind, 0, c], _GROUND_RGB[kind, 1, c]
                canvas[i, j, c] = (dark + (light - dark) * mixing) * tint[c]


@njit(cache=True)
def _half_width(shape: int, s: float, count: int) -> float:
    """Half width of a petal at the share `s` of its length, in lengths: the outline that makes the petal shape."""
    widest = 0.40 if count == 3 else (0.33 if count == 5 else 0.235)
    if s <= 0.05 or s >= 1.0:
        return 0.0
    if shape == 0:
        t = (s - 0.56) / 0.44
        return widest * math.sqrt(max(1.0 - t * t, 0.0))
    if shape == 1:
        rise = s / 0.42 if s < 0.42 else (1.0 - s) / 0.58
        return 0.85 * widest * rise * (1.25 - 0.25 * rise)
    if shape == 2:
        tip = max(s - 0.88, 0.0) / 0.12
        return 0.48 * widest * math.sqrt(max(1.0 - tip * tip, 0.0)) * min(1.0, 0.5 + s)
    t = (s - 0.66) / (0.60 if s < 0.66 else 0.34)
    return 1.06 * widest * math.sqrt(max(1.0 - t * t, 0.0))


@njit(cache=True)
def _flower(key: int, levels: np.ndarray, canvas: np.ndarray) -> None:
    """One flower over the canvas; edges are anti-aliased by four samples a pixel."""
    count, shape, two_tone = levels[0], levels[1], levels[4]
    radius, spin = between(key, 20, 17.0, 27.0), uniform(key, 21)
    cx, cy = between(key, 22, 25.0, 39.0), between(key, 23, 25.0, 39.0)
    squash, lean = between(key, 24, 0.80, 1.0), uniform(key, 25)
    cl, sl = cos_turn(lean), sin_turn(lean)
    disc = radius * between(key, 26, 0.19, 0.24)
    petal, base, heart = np.empty(3), np.empty(3), np.empty(3)
    for c in range(3):
        petal[c] = _PETAL_RGB[levels[2], c] + between(key, 30 + c, -0.08, 0.08)
        base[c] = _BASE_RGB[levels[2], c] + between(key, 34 + c, -0.08, 0.08)
        heart[c] = _CENTRE_RGB[levels[3], c] + between(key, 38 + c, -0.04, 0.04)
    change = between(key, 42, 0.50, 0.60)
    light, vein = uniform(key, 43), bits(key, 44)
    colour = np.empty(3)
    for i in range(SIZE):
        for j in range(SIZE):
            dx, dy = j - cx, i - cy
            if dx * dx + dy * dy > (radius + 2.0) * (radius + 2.0):
                continue
            covered, colour[0], colour[1], colour[2] = 0.0, 0.0, 0.0, 0.0
            for sub in range(4):
                x, y = dx + 0.5 * (sub & 1) - 0.25, dy + 0.5 * (sub >> 1) - 0.25
                p, q = cl * x + sl * y, (cl * y - sl * x) / squash
                r = math.sqrt(p * p + q * q)
                if r > 1.08 * radius:
                    continue
                angle = angle_turn(q, p)
                if r < disc:
                    shade = (1.02 - 0.35 * (r / disc) * (r / disc)) * (0.84 + 0.32 * value_noise(vein, p, q, 1.3))
                    for c in range(3):
                        colour[c] += heart[c] * shade
                    covered += 1.0
                    continue
                sector = (angle + spin) * count
                which = math.floor(sector + 0.5)
                offset = (sector - which) / count
                own = cell_key(vein, int(which) % count, 7)
                length = radius * (0.92 + 0.14 * uniform(own, 1))
                s, b = r * cos_turn(offset) / length, abs(r * sin_turn(offset) / length)
                width = _half_width(shape, s, count)
                if b > width or (shape == 3 and s > 0.80 + 0.55 * b / 0.4 + 0.02 * count / 3.0):
                    continue
                edge = b / (width + 1e-6)
                shade = (0.70 + 0.34 * smooth(0.15, 0.75, s)) * (1.0 - 0.22 * edge * edge * edge)
                shade *= 0.93 + 0.14 * value_noise(vein, sector * 9.0, s * 2.0, 1.0)
                shade *= 1.0 + 0.10 * cos_turn(which / count - light) - 0.10 * (edge < 0.10)
                inner = two_tone * (1.0 - smooth(change - 0.07, change + 0.07, s))
                for c in range(3):
                    colour[c] += (petal[c] + (base[c] - petal[c]) * inner) * shade
                covered += 1.0
            keep = 1.0 - covered / 4.0
            for c in range(3):
                canvas[i, j, c] = canvas[i, j, c] * keep + colour[c] / 4.0


@njit(cache=True, nogil=True)
def _render(labels: np.ndarray, indices: np.ndarray, seed: int, out: np.ndarray) -> None:
    canvas = np.empty((SIZE, SIZE, 3))
    for n in range(len(labels)):
        key = image_key(seed, _STREAM, labels[n], indices[n])
        _ground(bits(key, 1), canvas)
        _flower(bits(key, 2), _LEVELS[labels[n]], canvas)
        brightness, noise = between(key, 50, 0.75, 1.15), between(key, 51, 0.015, 0.04)
        finish_pixels(canvas, bits(key, 3), brightness, noise, out[n])


def render_flora_batch(labels: Labels, indices: Labels, seed: int) -> np.ndarray:
    """Images uint8 [n, 64, 64, 3]: number ``indices[i]`` of the class ``labels[i]`` in the world of ``seed``."""
    return render_batch(_render, len(FLORA_CLASSES), labels, indices, seed)


def render_flora(label: int, index: int, seed: int) -> np.ndarray:
    """One image uint8 [64, 64, 3]."""
    image: np.ndarray = render_flora_batch([label], [index], seed)[0]
    return image
