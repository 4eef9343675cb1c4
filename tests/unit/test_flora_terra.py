"""The rendered tasks: pure functions of their identifiers, factors that hold, classes that can be told apart."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conceptbench.data.flora import FLORA_CHAIN, FLORA_CLASSES, render_flora, render_flora_batch
from conceptbench.data.geometry import angle_turn, cos_turn, sin_turn
from conceptbench.data.terra import TERRA_CLASSES, render_terra, render_terra_batch

TASKS = {"flora": (render_flora_batch, render_flora, 24), "terra": (render_terra_batch, render_terra, 10)}
CHECKSUMS = {
    "flora": "249c96152edf69bcfb3f567aef0c9a21569ec362ed1272925f6c9cac90b972c9",
    "terra": "9400c65a93bc9446c37ca3a0037a7fa0b5a21bd3cd1c7b3b2da0b44f855d905e",
}
"""Of two images of every class in world 0: a change here changes every result on the task."""

task = pytest.mark.parametrize("name", TASKS)


@task
def test_pixels_are_those_of_every_machine(name: str) -> None:
    batch, _, n_classes = TASKS[name]
    images = batch(np.repeat(np.arange(n_classes), 2), np.tile([0, 1], n_classes), 0)
    assert images.shape == (2 * n_classes, 64, 64, 3) and images.dtype == np.uint8
    assert hashlib.sha256(images.tobytes()).hexdigest() == CHECKSUMS[name]


@task
def test_an_image_depends_on_its_identifiers_alone(name: str) -> None:
    batch, single, n_classes = TASKS[name]
    labels, indices = np.arange(300) % n_classes, np.arange(300)
    together = batch(labels, indices, 7)
    backwards = batch(labels[::-1], indices[::-1], 7)[::-1]
    assert np.array_equal(together, backwards)
    assert np.array_equal(together[123], single(int(labels[123]), 123, 7))
    assert not np.array_equal(single(0, 0, 7), single(0, 0, 8))
    assert len({image.tobytes() for image in together}) == 300


@task
def test_several_callers_at_once(name: str) -> None:
    batch, _, n_classes = TASKS[name]
    labels, indices = np.arange(200) % n_classes, np.arange(200)
    expected = batch(labels, indices, 3)
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(found, expected) for found in pool.map(lambda _: batch(labels, indices, 3), range(8)))


@task
def test_unknown_labels_and_ragged_lists_are_refused(name: str) -> None:
    batch, _, n_classes = TASKS[name]
    with pytest.raises(ValueError, match=f"0 to {n_classes - 1}"):
        batch([n_classes], [0], 0)
    with pytest.raises(ValueError, match="one length"):
        batch([0, 1], [0], 0)
    assert batch([], [], 0).shape == (0, 64, 64, 3)


def test_flora_neighbours_differ_in_one_factor() -> None:
    assert sorted(FLORA_CHAIN) == list(FLORA_CLASSES)
    assert len({tuple(factors.values()) for factors in FLORA_CLASSES.values()}) == 24
    for left, right in pairwise(FLORA_CHAIN):
        changed = [f for f in FLORA_CLASSES[left] if FLORA_CLASSES[left][f] != FLORA_CLASSES[right][f]]
        assert len(changed) == 1


def test_flora_halves_hold_every_factor_value() -> None:
    rows = list(FLORA_CLASSES.values())
    for factor in rows[0]:
        values = {row[factor] for row in rows}
        assert {row[factor] for row in rows[:12]} == values == {row[factor] for row in rows[12:]}


def test_terra_names_are_sorted_labels() -> None:
    assert list(TERRA_CLASSES) == sorted(TERRA_CLASSES)


def _features(images: np.ndarray) -> np.ndarray:
    """Spread, edges and colour of each image, blind to where things are."""
    x = images.astype(np.float64) / 255.0
    grey = x.mean(axis=3)
    spectrum = np.log1p(np.abs(np.fft.rfft2(grey - grey.mean(axis=(1, 2), keepdims=True))))
    ky, kx = np.meshgrid(np.fft.fftfreq(64) * 64, np.arange(33), indexing="ij")
    radius = np.hypot(ky, kx)
    edges = [0, 3, 5, 8, 11, 15, 20, 26, 33]
    bands = [spectrum[:, (radius >= a) & (radius < b)] for a, b in pairwise(edges)]
    texture = [band.mean(axis=1) for band in bands] + [band.max(axis=1) for band in bands]
    colour = [np.quantile(x, q, axis=(1, 2)) for q in (0.05, 0.25, 0.5, 0.75, 0.95)]
    parts = [*(column[:, None] for column in texture), *colour, x.std(axis=(1, 2))]
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize(("name", "low", "high"), [("flora", 0.30, 0.97), ("terra", 0.60, 0.99)])
def test_classes_can_be_learnt_but_are_not_given_away(name: str, low: float, high: float) -> None:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    batch, _, n_classes = TASKS[name]
    train, test = np.repeat(np.arange(n_classes), 16), np.repeat(np.arange(n_classes), 20)
    x = _features(batch(train, np.arange(len(train)) % 16, 1))
    z = _features(batch(test, 100 + np.arange(len(test)) % 20, 1))
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=1.0, max_iter=300)).fit(x, train)
    assert low <= probe.score(z, test) <= high


@given(st.floats(-4.0, 4.0))
def test_angles_without_libm(turns: float) -> None:
    assert cos_turn(turns) == pytest.approx(np.cos(2 * np.pi * turns), abs=1e-7)
    assert sin_turn(turns) == pytest.approx(np.sin(2 * np.pi * turns), abs=1e-7)
    x, y = np.cos(2 * np.pi * turns), np.sin(2 * np.pi * turns)
    assert angle_turn(y, x) == pytest.approx(np.arctan2(y, x) / (2 * np.pi), abs=3e-6)
