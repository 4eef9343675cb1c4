"""Draw scenes: pixels, and how much of every pixel each object covers.

Corners and rotations take the C library's sine and cosine, whose last bit may differ between machines. That changes
a grey level only where the exact value lies within about 1e-13 of a rounding limit: pictures are the same on every
machine for all practical purposes, but not by construction as those of flora and terra.
"""

import math

import numpy as np
from jaxtyping import Float32, UInt8
from numba import njit

from conceptbench.data.raster import clamp01, finish_pixels, in_threads, mix, polygon_distance, uniform, value_noise
from conceptbench.data.scenes import COLOUR, FILL, MAX_OBJECTS, SHAPE, Scenes, object_centre, object_radius
from conceptbench.data.vocabulary import COLOURS, FILLS, SHAPES

IMAGE_SIZE = 64

_RGB = {
    "red": (0.86, 0.12, 0.12),
    "green": (0.10, 0.62, 0.18),
    "blue": (0.13, 0.25, 0.86),
    "yellow": (0.96, 0.88, 0.15),
    "orange": (0.97, 0.52, 0.08),
    "purple": (0.55, 0.14, 0.66),
    "cyan": (0.20, 0.84, 0.88),
    "white": (0.97, 0.97, 0.97),
}
_PALETTE = np.array([_RGB[name] for name in COLOURS])
_CIRCLE, _RING, _CRESCENT = (SHAPES.index(name) for name in ("circle", "ring", "crescent"))
_SOLID, _STRIPED, _DOTTED, _OUTLINED = (FILLS.index(name) for name in ("solid", "striped", "dotted", "outlined"))


def _regular(n: int, radius: float, start: float) -> list[tuple[float, float]]:
    angles = [start + 2.0 * math.pi * i / n for i in range(n)]
    return [(radius * math.cos(a), radius * math.sin(a)) for a in angles]


def _star() -> list[tuple[float, float]]:
    outer, inner = _regular(5, 1.08, -math.pi / 2), _regular(5, 0.46, -math.pi / 2 + math.pi / 5)
    return [corner for pair in zip(outer, inner, strict=True) for corner in pair]


def _cross() -> list[tuple[float, float]]:
    t = 0.34
    return [(t, -1), (t, -t), (1, -t), (1, t), (t, t), (t, 1), (-t, 1), (-t, t), (-1, t), (-1, -t), (-t, -t), (-t, -1)]


_POLYGONS = {
    "square": _regular(4, 1.16, math.pi / 4),
    "triangle": _regular(3, 1.18, -math.pi / 2),
    "cross": _cross(),
    "star": _star(),
    "hexagon": _regular(6, 1.02, 0.0),
}
_CORNERS = np.zeros((len(SHAPES), 12, 2))
_N_CORNERS = np.zeros(len(SHAPES), dtype=np.int64)
for _name, _vertices in _POLYGONS.items():
    _CORNERS[SHAPES.index(_name), : len(_vertices)] = _vertices
    _N_CORNERS[SHAPES.index(_name)] = len(_vertices)


def render(scenes: Scenes) -> UInt8[np.ndarray, "n 64 64 3"]:
    """Pictures of the scenes, RGB."""
    out = np.empty((len(scenes), IMAGE_SIZE, IMAGE_SIZE, 3), dtype=np.uint8)

    def part(start: int, stop: int) -> None:
        chosen = scenes[start:stop]
        _render(chosen.keys, chosen.backgrounds, chosen.objects, chosen.jitter, out[start:stop])

    in_threads(part, len(scenes))
    return out


def coverage(scenes: Scenes, grid: int) -> Float32[np.ndarray, "n object cell"]:
    """Visible share (0..1) of each cell of a ``grid`` x ``grid`` raster that each object covers.

    Later objects hide earlier ones. Cells are those of a picture resized to any multiple of ``grid``: where ``grid``
    does not divide the picture, pixels are shared between cells by area.
    """
    out = np.zeros((len(scenes), MAX_OBJECTS, grid * grid), dtype=np.float32)
    weights = _cell_weights(grid)

    def part(start: int, stop: int) -> None:
        _coverage(scenes.objects[start:stop], scenes.jitter[start:stop], weights, out[start:stop])

    in_threads(part, len(scenes))
    return out


def _cell_weights(grid: int) -> np.ndarray:
    """Matrix [grid, 64]: the share of each cell's extent that each pixel column takes."""
    edges = np.arange(grid + 1) * IMAGE_SIZE / grid
    pixels = np.arange(IMAGE_SIZE)
    shared = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights: np.ndarray = np.clip(shared, 0.0, None) * grid / IMAGE_SIZE
    return weights


@njit(cache=True, nogil=True)
def _render(
    keys: np.ndarray, backgrounds: np.ndarray, objects: np.ndarray, jitter: np.ndarray, out: np.ndarray
) -> None:
    canvas = np.empty((IMAGE_SIZE, IMAGE_SIZE, 3))
    for i in range(keys.shape[0]):
        _draw_background(canvas, int(backgrounds[i]), mix(keys[i] + np.uint64(101)))
        for o in range(objects.shape[1]):
            if objects[i, o, SHAPE] >= 0:
                _draw_object(canvas, objects[i, o], jitter[i, o])
        brightness = 0.85 + 0.3 * uniform(keys[i], 200)
        noise = 0.01 + 0.03 * uniform(keys[i], 201)
        finish_pixels(canvas, mix(keys[i] + np.uint64(102)), brightness, noise, out[i])


@njit(cache=True)
def _draw_background(canvas: np.ndarray, kind: int, key: int) -> None:
    tint = uniform(key, 0) - 0.5
    for y in range(IMAGE_SIZE):
        for x in range(IMAGE_SIZE):
            r, g, b = _background_pixel(kind, key, tint, x, y)
            canvas[y, x, 0], canvas[y, x, 1], canvas[y, x, 2] = r, g, b


@njit(cache=True)
def _background_pixel(kind: int, key: int, tint: float, x: int, y: int) -> tuple[float, float, float]:
    if kind == 0:
        level = 0.62 + 0.12 * tint
        return level, level, level
    if kind == 1:
        level = 0.10 + 0.06 * tint
        return level, level, level * 1.15
    if kind == 2:
        t = y / IMAGE_SIZE
        return 0.38 + 0.38 * t + 0.06 * tint, 0.58 + 0.26 * t, 0.86 + 0.06 * t
    if kind == 3:
        grain = 0.65 * uniform(key, 10 + y * IMAGE_SIZE + x) + 0.35 * value_noise(key, x, y, 9.0)
        return 0.68 + 0.24 * grain + 0.05 * tint, 0.56 + 0.22 * grain + 0.05 * tint, 0.36 + 0.20 * grain
    if kind == 4:
        blade = value_noise(key, x * 1.6, y * 0.6, 2.2)
        patch = value_noise(mix(key), x, y, 14.0)
        return 0.14 + 0.22 * blade + 0.08 * patch, 0.34 + 0.30 * blade + 0.08 * tint, 0.10 + 0.14 * blade
    row = (y + int(8 * uniform(key, 1))) // 8
    column = (x + 4 * (row % 2) * 2 + int(16 * uniform(key, 2))) // 16
    mortar = (y + int(8 * uniform(key, 1))) % 8 == 0 or (x + 8 * (row % 2) + int(16 * uniform(key, 2))) % 16 == 0
    if mortar:
        return 0.74, 0.70, 0.66
    shade = 0.16 * (uniform(key, 5000 + row * 16 + column) - 0.5)
    return 0.58 + shade + 0.05 * tint, 0.30 + shade, 0.22 + shade


@njit(cache=True)
def _distance(shape: int, x: float, y: float, radius: float) -> float:
    """Signed distance in pixels to the outline of a shape of the given radius centred at the origin."""
    if shape == _CIRCLE:
        return math.sqrt(x * x + y * y) - radius
    if shape == _RING:
        return abs(math.sqrt(x * x + y * y) - 0.74 * radius) - 0.26 * radius
    if shape == _CRESCENT:
        bite = 0.80 * radius - math.sqrt((x - 0.52 * radius) ** 2 + y * y)
        return max(math.sqrt(x * x + y * y) - radius, bite)
    return radius * polygon_distance(x / radius, y / radius, _CORNERS[shape, : _N_CORNERS[shape]])


@njit(cache=True)
def _paint_share(fill: int, distance: float, x: float, y: float) -> tuple[float, float]:
    """(opacity, share of the pale second colour) of a point of an object with the given fill."""
    inside = clamp01(0.5 - distance)
    if fill == _OUTLINED:
        return inside * clamp01(distance + 2.9), 0.0
    if fill == _STRIPED:
        wave = abs(((x + y) * 0.7071 + 300.0) % 5.6 - 2.8)
        return inside, clamp01(1.9 - wave) * clamp01(-distance - 0.6)
    if fill == _DOTTED:
        u, v = (x + 300.0) % 5.4 - 2.7, (y + 300.0) % 5.4 - 2.7
        return inside, clamp01(2.1 - math.sqrt(u * u + v * v))
    return inside, 0.0


@njit(cache=True)
def _draw_object(canvas: np.ndarray, factors: np.ndarray, jitter: np.ndarray) -> None:
    radius = object_radius(factors)
    cx, cy = object_centre(factors, jitter)
    cos, sin = math.cos(jitter[2]), math.sin(jitter[2])
    paint = _PALETTE[factors[COLOUR]]
    for py in range(max(0, int(cy - 1.3 * radius) - 1), min(IMAGE_SIZE, int(cy + 1.3 * radius) + 2)):
        for px in range(max(0, int(cx - 1.3 * radius) - 1), min(IMAGE_SIZE, int(cx + 1.3 * radius) + 2)):
            dx, dy = px + 0.5 - cx, py + 0.5 - cy
            x, y = cos * dx + sin * dy, cos * dy - sin * dx
            distance = _distance(factors[SHAPE], x, y, radius)
            if distance > 0.5:
                continue
            opacity, second = _paint_share(factors[FILL], distance, x, y)
            for channel in range(3):
                colour = paint[channel] * (1.0 - second) + 0.22 * paint[channel] * second
                canvas[py, px, channel] += opacity * (colour - canvas[py, px, channel])


@njit(cache=True, nogil=True)
def _coverage(objects: np.ndarray, jitter: np.ndarray, weights: np.ndarray, out: np.ndarray) -> None:
    for i in range(objects.shape[0]):
        visible = np.ones((IMAGE_SIZE, IMAGE_SIZE))
        for o in range(objects.shape[1] - 1, -1, -1):
            if objects[i, o, SHAPE] >= 0:
                _cover(objects[i, o], jitter[i, o], weights, visible, out[i, o])


@njit(cache=True)
def _cover(
    factors: np.ndarray, jitter: np.ndarray, weights: np.ndarray, visible: np.ndarray, cells: np.ndarray
) -> None:
    """Add what an object covers of the still visible part of each pixel to its cells, and take it from ``visible``."""
    radius = object_radius(factors)
    cx, cy = object_centre(factors, jitter)
    cos, sin = math.cos(jitter[2]), math.sin(jitter[2])
    for py in range(max(0, int(cy - 1.3 * radius) - 1), min(IMAGE_SIZE, int(cy + 1.3 * radius) + 2)):
        for px in range(max(0, int(cx - 1.3 * radius) - 1), min(IMAGE_SIZE, int(cx + 1.3 * radius) + 2)):
            dx, dy = px + 0.5 - cx, py + 0.5 - cy
            distance = _distance(factors[SHAPE], cos * dx + sin * dy, cos * dy - sin * dx, radius)
            share = visible[py, px] * clamp01(0.5 - distance)
            if share > 0.0:
                visible[py, px] -= share
                _add_to_cells(weights, py, px, share, cells)


@njit(cache=True)
def _add_to_cells(weights: np.ndarray, py: int, px: int, share: float, cells: np.ndarray) -> None:
    grid = weights.shape[0]
    for gy in range(grid):
        if weights[gy, py] > 0.0:
            for gx in range(grid):
                if weights[gx, px] > 0.0:
                    cells[gy * grid + gx] += share * weights[gy, py] * weights[gx, px]
