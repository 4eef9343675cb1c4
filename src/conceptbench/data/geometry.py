"""What flora and terra need besides ``raster``: image keys, soft edges, angles without libm.

Only +, -, *, / and square roots are used here, which IEEE 754 rounds in one way everywhere: the same image comes out
bit for bit on every machine, which a library's sine would not promise.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numba import njit

from conceptbench.data.raster import bits, in_threads, uniform

SIZE = 64
"""Height and width of a rendered image in pixels."""


@njit(cache=True)
def image_key(seed: int, stream: int, label: int, index: int) -> int:
    """The uint64 key of one image; ``stream`` tells the tasks apart."""
    return bits(bits(bits(seed, stream), label), index)


@njit(cache=True)
def between(key: int, counter: int, low: float, high: float) -> float:
    """The ``counter``-th number of the stream ``key``, uniform in [low, high)."""
    return low + (high - low) * uniform(key, counter)


@njit(cache=True)
def cell_key(key: int, ix: int, iy: int) -> int:
    """The key of cell (ix, iy) of an integer lattice; indices within 8192 of zero do not collide."""
    return bits(key, (iy + 8192) * 65536 + ix + 8192)


@njit(cache=True)
def smooth(low: float, high: float, x: float) -> float:
    """Cubic step from 0 at ``low`` to 1 at ``high``."""
    t = min(max((x - low) / (high - low), 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


@njit(cache=True)
def cover(distance: float) -> float:
    """Share of a pixel inside an edge that lies ``distance`` pixels outside its middle (negative: the middle is in)."""
    return min(max(0.5 - distance, 0.0), 1.0)


@njit(cache=True)
def cos_turn(turns: float) -> float:
    """Cosine of an angle given in turns (Taylor to the 12th power on a quarter turn, error below 1e-8)."""
    x = abs(turns - math.floor(turns + 0.5))
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


@njit(cache=True)
def sin_turn(turns: float) -> float:
    """Sine of an angle given in turns."""
    return cos_turn(turns - 0.25)


@njit(cache=True)
def angle_turn(y: float, x: float) -> float:
    """The angle of (x, y) in turns, in [-0.5, 0.5], to about 1e-6 (odd polynomial on an eighth of a turn)."""
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


Labels = Sequence[int] | np.ndarray
Kernel = Callable[[np.ndarray, np.ndarray, int, np.ndarray], None]


def render_batch(kernel: Kernel, n_classes: int, labels: Labels, indices: Labels, seed: int) -> np.ndarray:
    """Images uint8 [n, 64, 64, 3] by a compiled kernel(labels, indices, seed, out) that releases the GIL.

    Raises:
        ValueError: when labels and indices are not lists of one length, or a label is unknown.
    """
    label, index = np.asarray(labels, dtype=np.int64), np.asarray(indices, dtype=np.int64)
    if label.shape != index.shape or label.ndim != 1:
        raise ValueError(f"labels and indices must be lists of one length, got shapes {label.shape} and {index.shape}")
    if label.size and (label.min() < 0 or label.max() >= n_classes):
        raise ValueError(f"labels run from 0 to {n_classes - 1}, got {label.min()} to {label.max()}")
    out = np.empty((label.size, SIZE, SIZE, 3), dtype=np.uint8)

    def part(start: int, stop: int) -> None:
        kernel(label[start:stop], index[start:stop], seed, out[start:stop])

    in_threads(part, label.size)
    return out
