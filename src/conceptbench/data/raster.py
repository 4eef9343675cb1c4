"""Drawing primitives shared by the rendered worlds: counter-based random numbers, signed distances, noise, threads.

Everything is compiled with numba in float64 without fast-math, and only +, -, *, / and square roots are used here,
which IEEE 754 rounds in one way everywhere. Random numbers come from splitmix64 (Steele, Lea & Flood 2014) applied to
(key, counter): no state, hence image ``i`` is a pure function of its identifiers and pictures can be drawn in any
order, on any number of threads.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numba
import numpy as np
from numba import njit

Word = int | np.uint64
"""A 64-bit key or counter."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_LOW_16 = np.uint64(0xFFFF)
_PER_THREAD = 64


def in_threads(part: Callable[[int, int], None], count: int) -> None:
    """Call ``part(start, stop)``, which runs compiled code that releases the GIL, on ranges that make up 0..count-1.

    Plain threads rather than numba's own pool, which neither survives a fork nor allows two callers at once. As many
    threads as numba may use (NUMBA_NUM_THREADS), with at least 64 items each.
    """
    workers = max(1, min(numba.get_num_threads(), count // _PER_THREAD))
    edges = [count * worker // workers for worker in range(workers + 1)]
    if workers == 1:
        part(0, count)
        return
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(part, edges[:-1], edges[1:]))


@njit(cache=True)
def mix(value: Word) -> int:
    """Finaliser of splitmix64: one well-mixed uint64 from another."""
    z: Any = np.uint64(value) + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * _MIX_1
    z = (z ^ (z >> np.uint64(27))) * _MIX_2
    mixed: int = z ^ (z >> np.uint64(31))
    return mixed


@njit(cache=True)
def bits(key: Word, counter: Word) -> int:
    """The ``counter``-th uint64 of the stream ``key``."""
    return mix(np.uint64(key) ^ np.uint64(mix(np.uint64(counter))))


@njit(cache=True)
def uniform(key: int, counter: int) -> float:
    """The ``counter``-th number of the stream ``key``, uniform in [0, 1)."""
    return float(bits(key, counter) >> np.uint64(11)) * (1.0 / 9007199254740992.0)


@njit(cache=True)
def choice(key: int, counter: int, n: int) -> int:
    """The ``counter``-th draw of the stream ``key``, an integer in 0..n-1."""
    return int(uniform(key, counter) * n)


@njit(cache=True)
def clamp01(value: float) -> float:
    """``value`` limited to [0, 1]."""
    return min(1.0, max(0.0, value))


@njit(cache=True)
def value_noise(key: int, x: float, y: float, cell: float) -> float:
    """Smooth noise in [0, 1): random values on a grid of ``cell`` pixels, interpolated with a smoothstep."""
    gx, gy = math.floor(x / cell), math.floor(y / cell)
    fx, fy = x / cell - gx, y / cell - gy
    fx, fy = fx * fx * (3.0 - 2.0 * fx), fy * fy * (3.0 - 2.0 * fy)
    corner = (int(gy) + 512) * 4096 + int(gx) + 512
    top = uniform(key, corner) * (1.0 - fx) + uniform(key, corner + 1) * fx
    bottom = uniform(key, corner + 4096) * (1.0 - fx) + uniform(key, corner + 4097) * fx
    return top * (1.0 - fy) + bottom * fy


@njit(cache=True)
def polygon_distance(x: float, y: float, vertices: np.ndarray) -> float:
    """Signed distance from (x, y) to a simple polygon, vertices [n, 2]; negative inside."""
    n = vertices.shape[0]
    nearest = 1e30
    inside = False
    for i in range(n):
        ax, ay = vertices[i, 0], vertices[i, 1]
        bx, by = vertices[(i + 1) % n, 0], vertices[(i + 1) % n, 1]
        ex, ey = bx - ax, by - ay
        px, py = x - ax, y - ay
        t = clamp01((px * ex + py * ey) / (ex * ex + ey * ey))
        dx, dy = px - t * ex, py - t * ey
        nearest = min(nearest, dx * dx + dy * dy)
        if (ay > y) != (by > y) and x < ax + (y - ay) / (by - ay) * ex:
            inside = not inside
    distance = math.sqrt(nearest)
    return -distance if inside else distance


@njit(cache=True)
def finish_pixels(canvas: np.ndarray, key: int, brightness: float, noise: float, out: np.ndarray) -> None:
    """Apply brightness and sensor noise to a float canvas [h, w, 3] in 0..1 and write uint8 pixels to ``out``.

    The noise of a channel is triangular (the sum of two 16-bit uniforms), with standard deviation ``noise``.
    """
    height, width = canvas.shape[0], canvas.shape[1]
    scale = noise * math.sqrt(6.0) / 65536.0
    for y in range(height):
        for x in range(width):
            first = bits(key, 2 * (y * width + x))
            second = bits(key, 2 * (y * width + x) + 1)
            for channel in range(3):
                shift = np.uint64(16 * channel)
                a = float((first >> shift) & _LOW_16)
                b = float((second >> shift) & _LOW_16)
                value = canvas[y, x, channel] * brightness + (a + b - 65535.0) * scale
                out[y, x, channel] = np.uint8(clamp01(value) * 255.0 + 0.5)
