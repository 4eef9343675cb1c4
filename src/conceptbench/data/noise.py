"""Counter-based randomness and a little exact mathematics for the renderers.

Every random quantity of a rendered image is a hash of (world seed, stream, class, image number, counter), so that an
image is a pure function of its identifiers and no state is kept. Only +, -, *, / and floor are used, which IEEE 754
rounds in one way everywhere: the same image comes out bit for bit on every machine, which libm's sin would not promise.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)
_S11, _S27, _S30, _S31 = np.uint64(11), np.uint64(27), np.uint64(30), np.uint64(31)
_S16, _S32, _S48, _LOW16 = np.uint64(16), np.uint64(32), np.uint64(48), np.uint64(0xFFFF)
_CELL_X, _CELL_Y = np.uint64(0xD6E8FEB86659FD93), np.uint64(0xA0761D6478BD642F)
_UNIT = 1.0 / 9007199254740992.0  # 2**-53


@njit(cache=True, nogil=True, inline="always")
def mix(x):  # type: ignore[no-untyped-def]
    """The splitmix64 finaliser of a uint64 (Steele, Lea and Flood 2014)."""
    z = x + _GOLDEN
    z = (z ^ (z >> _S30)) * _MIX_1
    z = (z ^ (z >> _S27)) * _MIX_2
    return z ^ (z >> _S31)


@njit(cache=True, nogil=True)
def image_key(seed, stream, label, index):  # type: ignore[no-untyped-def]
    """The uint64 key of one image; `stream` tells the tasks apart."""
    key = mix(np.uint64(seed))
    key = mix(key ^ np.uint64(stream))
    key = mix(key ^ np.uint64(label))
    return mix(key ^ np.uint64(index))


@njit(cache=True, nogil=True, inline="always")
def uniform(key, counter):  # type: ignore[no-untyped-def]
    """Uniform float64 in [0, 1), number `counter` of the key."""
    return np.float64(mix(key ^ (np.uint64(counter) * _CELL_X)) >> _S11) * _UNIT


@njit(cache=True, nogil=True, inline="always")
def between(key, counter, low, high):  # type: ignore[no-untyped-def]
    """Uniform float64 in [low, high), number `counter` of the key."""
    return low + (high - low) * uniform(key, counter)


@njit(cache=True, nogil=True, inline="always")
def cell_key(key, ix, iy):  # type: ignore[no-untyped-def]
    """The key of one cell of an integer lattice."""
    return mix(key ^ (np.uint64(ix + 4096) * _CELL_X) ^ (np.uint64(iy + 4096) * _CELL_Y))


@njit(cache=True, nogil=True, inline="always")
def bell(hashed):  # type: ignore[no-untyped-def]
    """About standard normal: the sum of the four 16-bit fields of a hash, centred and scaled (Irwin-Hall)."""
    total = (hashed & _LOW16) + ((hashed >> _S16) & _LOW16) + ((hashed >> _S32) & _LOW16) + (hashed >> _S48)
    return (np.float64(total) / 65535.0 - 2.0) * 1.7320508


@njit(cache=True, nogil=True, inline="always")
def value_noise(x, y, key):  # type: ignore[no-untyped-def]
    """Smooth noise in [0, 1): lattice values of period 1, blended by a cubic."""
    ix, iy = np.int64(np.floor(x)), np.int64(np.floor(y))
    fx, fy = x - ix, y - iy
    fx, fy = fx * fx * (3.0 - 2.0 * fx), fy * fy * (3.0 - 2.0 * fy)
    a = np.float64(cell_key(key, ix, iy) >> _S11) * _UNIT
    b = np.float64(cell_key(key, ix + 1, iy) >> _S11) * _UNIT
    c = np.float64(cell_key(key, ix, iy + 1) >> _S11) * _UNIT
    d = np.float64(cell_key(key, ix + 1, iy + 1) >> _S11) * _UNIT
    top, bottom = a + (b - a) * fx, c + (d - c) * fx
    return top + (bottom - top) * fy


@njit(cache=True, nogil=True, inline="always")
def smooth(low, high, x):  # type: ignore[no-untyped-def]
    """Cubic step from 0 at `low` to 1 at `high`."""
    t = min(max((x - low) / (high - low), 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


@njit(cache=True, nogil=True, inline="always")
def cover(distance):  # type: ignore[no-untyped-def]
    """Share of a pixel inside an edge that lies `distance` pixels outside its middle (negative: the middle is in)."""
    return min(max(0.5 - distance, 0.0), 1.0)


@njit(cache=True, nogil=True)
def cos_turn(turns):  # type: ignore[no-untyped-def]
    """Cosine of an angle given in turns (Taylor to the 12th power on a quarter turn, error below 1e-8)."""
    x = abs(turns - np.floor(turns + 0.5))
    sign = 1.0
    if x > 0.25:
        x, sign = 0.5 - x, -1.0
    y = (6.283185307179586 * x) * (6.283185307179586 * x)
    series = 1.0 - y / 132.0
    series = 1.0 - y / 90.0 * series
    series = 1.0 - y / 56.0 * series
    series = 1.0 - y / 30.0 * series
    series = 1.0 - y / 12.0 * series
    return sign * (1.0 - y / 2.0 * series)


@njit(cache=True, nogil=True, inline="always")
def sin_turn(turns):  # type: ignore[no-untyped-def]
    """Sine of an angle given in turns."""
    return cos_turn(turns - 0.25)


@njit(cache=True, nogil=True)
def angle_turn(y, x):  # type: ignore[no-untyped-def]
    """The angle of (x, y) in turns, in (-0.5, 0.5], to about 1e-6 (odd polynomial on an eighth of a turn)."""
    ax, ay = abs(x), abs(y)
    top = max(ax, ay)
    if top == 0.0:
        return 0.0
    z = min(ax, ay) / top
    w = z * z
    series = 0.05265332 + w * -0.01172120
    series = -0.11643287 + w * series
    series = 0.19354346 + w * series
    series = -0.33262347 + w * series
    angle = z * (0.99997726 + w * series) * 0.15915494309189535
    if ay > ax:
        angle = 0.25 - angle
    if x < 0.0:
        angle = 0.5 - angle
    return -angle if y < 0.0 else angle


@njit(cache=True, nogil=True)
def finish(canvas, key, gain, sigma, out):  # type: ignore[no-untyped-def]
    """Brightness and sensor noise (standard deviation `sigma` of 255), then rounding to uint8."""
    height, width = canvas.shape[0], canvas.shape[1]
    for i in range(height):
        for j in range(width):
            hashed = cell_key(key, j, i)
            for c in range(3):
                hashed = mix(hashed)
                level = canvas[i, j, c] * gain * 255.0 + sigma * bell(hashed)
                out[i, j, c] = np.uint8(min(max(np.floor(level + 0.5), 0.0), 255.0))


def in_threads(kernel: Callable[[int, int], None], count: int, smallest: int = 64) -> None:
    """Call `kernel(start, stop)` on consecutive ranges of `count` items, one range a core (the kernel drops the GIL)."""
    workers = max(1, min(len(os.sched_getaffinity(0)), count // smallest))
    if workers == 1:
        kernel(0, count)
        return
    edges = [count * part // workers for part in range(workers + 1)]
    with ThreadPoolExecutor(workers) as pool:
        list(pool.map(kernel, edges[:-1], edges[1:]))
