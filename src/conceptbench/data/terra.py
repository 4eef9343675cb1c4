"""Terra: ten classes of rendered aerial texture, after EuroSAT.

A change of domain from the scenes: bands, dots and blocks occur there too, but nothing here is an object on a ground.
Season, soil, scale, rotation, brightness and sensor noise vary within every class.
"""

import math

import numpy as np
from numba import njit

from conceptbench.data.geometry import (
    SIZE,
    Labels,
    between,
    cell_key,
    cos_turn,
    cover,
    image_key,
    render_batch,
    sin_turn,
    smooth,
)
from conceptbench.data.raster import bits, finish_pixels, uniform, value_noise

TERRA_CLASSES: dict[str, dict[str, str]] = {
    "forest": {"structure": "crowns", "material": "trees"},
    "highway": {"structure": "band", "material": "asphalt"},
    "industrial area": {"structure": "large blocks", "material": "roofs"},
    "lake": {"structure": "region", "material": "water"},
    "narrow crop rows": {"structure": "narrow stripes", "material": "crops"},
    "orchard": {"structure": "dots", "material": "trees"},
    "pasture": {"structure": "smooth", "material": "grass"},
    "residential area": {"structure": "small blocks", "material": "roofs"},
    "river": {"structure": "band", "material": "water"},
    "wide crop rows": {"structure": "wide stripes", "material": "crops"},
}
"""Class name to factors, in label order (sorted names)."""

_STREAM = 0x7E44A
_ROOFS = np.array([(0.70, 0.38, 0.28), (0.58, 0.34, 0.29), (0.55, 0.53, 0.52), (0.74, 0.66, 0.58), (0.42, 0.40, 0.42)])
_HALLS = np.array([(0.88, 0.89, 0.90), (0.68, 0.70, 0.73), (0.52, 0.60, 0.70), (0.78, 0.72, 0.66), (0.44, 0.46, 0.50)])


@njit(cache=True)
def _put(canvas: np.ndarray, i: int, j: int, colour: np.ndarray, share: float, shade: float) -> None:
    """Lay ``share`` of a colour, times ``shade``, over a pixel."""
    for c in range(3):
        canvas[i, j, c] += share * (colour[c] * shade - canvas[i, j, c])


@njit(cache=True)
def _green(key: int) -> np.ndarray:
    """A vegetation colour between lush green and late-season straw."""
    season, depth = uniform(key, 0) * uniform(key, 1), between(key, 2, 0.75, 1.15)
    return np.array(
        (
            depth * (0.25 + 0.33 * season + between(key, 3, -0.04, 0.04)),
            depth * (0.42 + 0.10 * season + between(key, 4, -0.04, 0.04)),
            depth * (0.18 + 0.13 * season + between(key, 5, -0.04, 0.04)),
        )
    )


@njit(cache=True)
def _soil(key: int) -> np.ndarray:
    """A soil colour between dark loam and pale clay."""
    pale = uniform(key, 0)
    return np.array((0.34 + 0.32 * pale, 0.27 + 0.26 * pale + between(key, 1, -0.02, 0.02), 0.20 + 0.22 * pale))


@njit(cache=True)
def _water(key: int) -> np.ndarray:
    """A water colour from dark blue to silty green."""
    silt = uniform(key, 0)
    return np.array((0.08 + 0.22 * silt, 0.19 + 0.18 * silt, 0.36 + between(key, 1, -0.10, 0.10) - 0.08 * silt))


@njit(cache=True)
def _fields(key: int, canvas: np.ndarray) -> None:
    """Two to four parcels of soft texture: the common ground of pasture, highway, river and lake."""
    turn = uniform(key, 0)
    ca, sa = cos_turn(turn), sin_turn(turn)
    cut, side = between(key, 1, -14.0, 14.0), between(key, 2, -14.0, 14.0)
    parcels = np.empty((4, 3))
    for p in range(4):
        own = bits(key, 31 + p)
        parcels[p] = _soil(own) if uniform(key, 10 + p) < 0.2 else _green(own)
    far, near = bits(key, 5), bits(key, 6)
    for i in range(SIZE):
        for j in range(SIZE):
            x, y = j - 31.5, i - 31.5
            u, v = ca * x + sa * y, ca * y - sa * x
            across, along = cover(cut - u), cover(side - v)
            shade = 0.82 + 0.24 * value_noise(far, u, v, 11.0) + 0.12 * value_noise(near, u, v, 2.0)
            for c in range(3):
                left = parcels[0, c] + (parcels[1, c] - parcels[0, c]) * along
                right = parcels[2, c] + (parcels[3, c] - parcels[2, c]) * along
                canvas[i, j, c] = (left + (right - left) * across) * shade


@njit(cache=True)
def _crop_rows(key: int, canvas: np.ndarray, period: float) -> None:
    """Parallel rows of crop on soil, sometimes in two parcels of different phase and tint."""
    turn, bend = uniform(key, 0), between(key, 1, -0.0015, 0.0015)
    ca, sa = cos_turn(turn), sin_turn(turn)
    crop, soil = _green(bits(key, 2)), _soil(bits(key, 3))
    share, contrast = between(key, 4, -0.35, 0.35), between(key, 5, 0.75, 1.0)
    cut = between(key, 6, -20.0, 20.0) if uniform(key, 7) < 0.4 else 99.0
    shift, tint = period * uniform(key, 8), between(key, 9, 0.80, 1.15)
    far, near = bits(key, 10), bits(key, 11)
    for i in range(SIZE):
        for j in range(SIZE):
            x, y = j - 31.5, i - 31.5
            u, v = ca * x + sa * y, ca * y - sa * x
            second = cover(cut - v)
            ragged = 0.5 * (value_noise(near, u / 1.5, v / 5.0, 1.0) - 0.5)
            wave = cos_turn((u + bend * v * v + shift * second) / period) + ragged
            plants = 0.5 + contrast * (smooth(share - 0.55, share + 0.55, wave) - 0.5)
            shade = (0.80 + 0.28 * value_noise(far, u, v, 12.0)) * (1.0 + (tint - 1.0) * second)
            for c in range(3):
                canvas[i, j, c] = (soil[c] + (crop[c] - soil[c]) * plants) * shade


@njit(cache=True)
def _crowns(key: int, canvas: np.ndarray, pitch: float, orderly: bool) -> None:
    """Tree crowns lit from one side: a regular grid on open ground (orchard) or a closed canopy (forest)."""
    turn, sun = uniform(key, 0), uniform(key, 1)
    ca, sa, lx, ly = cos_turn(turn), sin_turn(turn), cos_turn(sun), sin_turn(sun)
    leaf = _green(bits(key, 2)) * (0.62 if orderly else 0.60)
    ground = _soil(bits(key, 3)) if uniform(key, 4) < 0.6 else _green(bits(key, 4)) * 1.25
    if not orderly:
        ground = leaf * 0.45
    wander = 0.10 if orderly else 0.45
    size = between(key, 5, 0.28, 0.40) if orderly else between(key, 5, 0.60, 0.75)
    dx, dy = uniform(key, 6), uniform(key, 7)
    far, trees = bits(key, 8), bits(key, 9)
    for i in range(SIZE):
        for j in range(SIZE):
            x, y = j - 31.5, i - 31.5
            u, v = (ca * x + sa * y) / pitch + dx, (ca * y - sa * x) / pitch + dy
            best, height, own = 9.0, 0.0, 0.0
            for step in range(9):
                gx, gy = math.floor(u) + step % 3 - 1, math.floor(v) + step // 3 - 1
                cell = cell_key(trees, gx, gy)
                px = u - gx - 0.5 - wander * (2.0 * uniform(cell, 0) - 1.0)
                py = v - gy - 0.5 - wander * (2.0 * uniform(cell, 1) - 1.0)
                radius = size * (0.75 + 0.5 * uniform(cell, 2))
                distance = math.sqrt(px * px + py * py) / radius
                if distance < best:
                    best, own = distance, uniform(cell, 3)
                    height = ((ca * lx + sa * ly) * px + (ca * ly - sa * lx) * py) / radius
            shade = 0.85 + 0.30 * value_noise(far, x, y, 13.0)
            _put(canvas, i, j, ground, 1.0, shade)
            lit = (0.95 + 0.42 * height) * (0.80 + 0.45 * own)
            _put(canvas, i, j, leaf, cover((best - 1.0) * size * pitch), lit * shade)


@njit(cache=True)
def _pasture(key: int, canvas: np.ndarray) -> None:
    """Smooth grass with worn patches, sometimes a hedge."""
    grass, worn = _green(bits(key, 1)) * 1.25, _soil(bits(key, 2))
    turn, offset, hedge = uniform(key, 3), between(key, 4, -22.0, 22.0), uniform(key, 5) < 0.4
    ca, sa = cos_turn(turn), sin_turn(turn)
    far, near, rough = bits(key, 6), bits(key, 7), bits(key, 8)
    for i in range(SIZE):
        for j in range(SIZE):
            patch = value_noise(far, j, i, 15.0)
            shade = 0.86 + 0.20 * value_noise(near, j, i, 6.0) + 0.06 * value_noise(rough, j, i, 1.7)
            _put(canvas, i, j, grass, 1.0, shade)
            _put(canvas, i, j, worn, 0.45 * smooth(0.55, 0.85, patch), shade)
            if hedge:
                away = abs(ca * (j - 31.5) + sa * (i - 31.5) - offset) - 1.3 - 1.2 * value_noise(rough, j, i, 3.0)
                _put(canvas, i, j, grass, cover(away), 0.50)


@njit(cache=True)
def _highway(key: int, canvas: np.ndarray) -> None:
    """One or two straight or gently bent carriageways with pale verges across fields, sometimes a branch."""
    _fields(bits(key, 1), canvas)
    turn, offset, bend = uniform(key, 2), between(key, 3, -12.0, 12.0), between(key, 4, -0.006, 0.006)
    half, double, branch = between(key, 5, 1.6, 3.4), uniform(key, 6) < 0.6, uniform(key, 7) < 0.35
    fork = turn + between(key, 8, 0.12, 0.38)
    tone = between(key, 9, 0.42, 0.66)
    asphalt, verge = np.array((tone, tone, tone * 1.02)), np.array((0.76, 0.73, 0.66))
    cars = bits(key, 10)
    ca, sa, cf, sf = cos_turn(turn), sin_turn(turn), cos_turn(fork), sin_turn(fork)
    for i in range(SIZE):
        for j in range(SIZE):
            x, y = j - 31.5, i - 31.5
            if branch:
                _put(canvas, i, j, asphalt, cover(abs(cf * x + sf * y) - 1.1), 0.95)
            v = ca * y - sa * x
            u = ca * x + sa * y - offset + bend * v * v
            _put(canvas, i, j, verge, 0.8 * cover(abs(u) - half - 1.2), 1.0)
            _put(canvas, i, j, asphalt, cover(abs(u) - half), 1.0)
            if double:
                _put(canvas, i, j, verge, 0.75 * cover(abs(u) - 0.5), 0.9)
            lane = cell_key(cars, math.floor(v / 3.0), 1 if u > 0 else 0)
            if uniform(lane, 0) < 0.25:
                _put(canvas, i, j, verge, 0.8 * cover(abs(abs(u) - 0.55 * half) - 0.6), 0.55 + 0.7 * uniform(lane, 1))


@njit(cache=True)
def _river(key: int, canvas: np.ndarray) -> None:
    """A meandering band of water of varying width with sandy or wooded banks."""
    _fields(bits(key, 1), canvas)
    turn, offset, phase = uniform(key, 2), between(key, 3, -9.0, 9.0), uniform(key, 4)
    swing, length, half = between(key, 5, 3.0, 11.0), between(key, 6, 45.0, 95.0), between(key, 7, 4.0, 9.0)
    water = _water(bits(key, 8))
    wooded = uniform(key, 9) < 0.6
    bank = _green(bits(key, 10)) * 0.6 if wooded else np.array((0.72, 0.66, 0.52))
    edge, ripple = bits(key, 11), bits(key, 12)
    ca, sa = cos_turn(turn), sin_turn(turn)
    for i in range(SIZE):
        for j in range(SIZE):
            x, y = j - 31.5, i - 31.5
            v = ca * y - sa * x
            u = ca * x + sa * y - offset - swing * cos_turn(v / length + phase)
            away = 0.85 * (abs(u) - half - 2.5 * (value_noise(edge, x, y, 9.0) - 0.5))
            rough = 0.8 + 0.4 * value_noise(ripple, x, y, 1.8)
            _put(canvas, i, j, bank, 0.85 * cover(away - (3.0 if wooded else 1.4)), rough)
            _put(canvas, i, j, water, cover(away), 0.92 + 0.16 * value_noise(ripple, x, y, 4.0))


@njit(cache=True)
def _lake(key: int, canvas: np.ndarray) -> None:
    """Open water that fills most of the image; the shore, if any, is one irregular line."""
    _fields(bits(key, 1), canvas)
    turn, reach, bay = uniform(key, 2), between(key, 3, 2.0, 46.0), between(key, 4, 6.0, 16.0)
    water = _water(bits(key, 5))
    shallow = water + np.array((0.10, 0.16, 0.12))
    shore, swell = bits(key, 6), bits(key, 7)
    ca, sa = cos_turn(turn), sin_turn(turn)
    for i in range(SIZE):
        for j in range(SIZE):
            x, y = j - 31.5, i - 31.5
            away = ca * x + sa * y - reach + bay * (value_noise(shore, x, y, 17.0) - 0.5)
            ripple = 0.94 + 0.12 * value_noise(swell, x, y, 10.0)
            _put(canvas, i, j, shallow, cover(away), ripple)
            _put(canvas, i, j, water, smooth(1.0, 9.0, -away), ripple)


@njit(cache=True)
def _blocks(key: int, canvas: np.ndarray, small: bool) -> None:
    """Roofs on a street grid: small houses among gardens, or large halls on paved yards."""
    turn, sun = uniform(key, 0), between(key, 1, 0.0, 1.0)
    ca, sa = cos_turn(turn), sin_turn(turn)
    lx, ly = cos_turn(sun) * (0.9 if small else 1.6), sin_turn(sun) * (0.9 if small else 1.6)
    pitch = between(key, 2, 7.0, 9.5) if small else between(key, 2, 17.0, 26.0)
    dx, dy = pitch * uniform(key, 3), pitch * uniform(key, 4)
    plot = _green(bits(key, 5)) if small else np.array((0.52, 0.50, 0.47)) * between(key, 6, 0.8, 1.15)
    street = np.array((0.60, 0.59, 0.58)) * between(key, 7, 0.75, 1.1)
    road, row = (0.9, 3) if small else (1.6, 2)
    houses, rough = bits(key, 8), bits(key, 9)
    for i in range(SIZE):
        for j in range(SIZE):
            x, y = j - 31.5, i - 31.5
            u, v = ca * x + sa * y + dx, ca * y - sa * x + dy
            gx, gy = math.floor(u / pitch), math.floor(v / pitch)
            own = cell_key(houses, gx, gy)
            p, q = u - (gx + 0.5) * pitch, v - (gy + 0.5) * pitch
            grain = 0.84 + 0.32 * value_noise(rough, x, y, 2.2)
            _put(canvas, i, j, plot, 1.0, grain)
            lane = abs(v - row * pitch * math.floor(v / (row * pitch) + 0.5))
            avenue = 1.4 * abs(u - 4 * pitch * math.floor(u / (4 * pitch) + 0.5))
            _put(canvas, i, j, street, cover(min(lane, avenue) - road), 1.0)
            if uniform(own, 0) < (0.10 if small else 0.12):
                continue
            long, short = pitch * between(own, 1, 0.30, 0.40), pitch * between(own, 2, 0.20, 0.36)
            if uniform(own, 3) < 0.5:
                long, short = short, long
            p, q = p + between(own, 4, -0.06, 0.06) * pitch, q + between(own, 5, -0.06, 0.06) * pitch
            shadow = max(abs(p - lx) - long, abs(q - ly) - short)
            _put(canvas, i, j, street, 0.65 * cover(shadow), 0.35)
            roof = _ROOFS[int(5 * uniform(own, 6))] if small else _HALLS[int(5 * uniform(own, 6))]
            ridge = (1.10 if q * lx + p * ly > 0.0 else 0.86) if small else 0.95 + 0.10 * (math.floor(p / 2.0) & 1)
            _put(canvas, i, j, roof, cover(max(abs(p) - long, abs(q) - short)), ridge * between(own, 7, 0.85, 1.1))


@njit(cache=True)
def _paint(label: int, key: int, canvas: np.ndarray) -> None:
    """The image of one class; the order is that of TERRA_CLASSES."""
    if label == 0:
        _crowns(key, canvas, between(key, 90, 3.2, 5.0), False)
    elif label == 1:
        _highway(key, canvas)
    elif label == 2:
        _blocks(key, canvas, False)
    elif label == 3:
        _lake(key, canvas)
    elif label == 4:
        _crop_rows(key, canvas, between(key, 90, 3.4, 5.2))
    elif label == 5:
        _crowns(key, canvas, between(key, 90, 5.5, 8.5), True)
    elif label == 6:
        _pasture(key, canvas)
    elif label == 7:
        _blocks(key, canvas, True)
    elif label == 8:
        _river(key, canvas)
    else:
        _crop_rows(key, canvas, between(key, 90, 8.0, 13.0))


@njit(cache=True, nogil=True)
def _render(labels: np.ndarray, indices: np.ndarray, seed: int, out: np.ndarray) -> None:
    canvas = np.zeros((SIZE, SIZE, 3))
    for n in range(len(labels)):
        key = image_key(seed, _STREAM, labels[n], indices[n])
        _paint(labels[n], bits(key, 1), canvas)
        brightness, noise = between(key, 50, 0.75, 1.2), between(key, 51, 0.01, 0.035)
        finish_pixels(canvas, bits(key, 2), brightness, noise, out[n])


def render_terra_batch(labels: Labels, indices: Labels, seed: int) -> np.ndarray:
    """Images uint8 [n, 64, 64, 3]: number ``indices[i]`` of the class ``labels[i]`` in the world of ``seed``."""
    return render_batch(_render, len(TERRA_CLASSES), labels, indices, seed)


def render_terra(label: int, index: int, seed: int) -> np.ndarray:
    """One image uint8 [64, 64, 3]."""
    image: np.ndarray = render_terra_batch([label], [index], seed)[0]
    return image
