"""Scenes: pure functions of their identifiers, within their limits, with edits and masks that are exact."""

import hashlib
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conceptbench.data.edits import EDITABLE, edit_one_factor
from conceptbench.data.scene_pixels import coverage, render
from conceptbench.data.scenes import (
    CENTRES,
    MAX_OVERLAP,
    PLACE,
    RADII,
    SHAPE,
    SIZE,
    Scenes,
    disc_overlap,
    held_out_objects,
    pack,
    sample_scenes,
)
from conceptbench.data.vocabulary import BACKGROUNDS, FILLS, HELD_OUT, OBJECT_FACTORS, PLACES, SHAPES

GOLDEN = "863987f11f77ae0f2ef124169024b2a92df2a65489f17bba43f61bbf087677b2"
"""Of 24 common and 8 held-out scenes of world 0 and their edits: a change here changes the shipped backbones."""

seeds = st.integers(0, 2**31 - 1)


def scene(*objects: tuple[str, int, str], jitter: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Scenes:
    """One plain scene with solid red objects, given as (shape, size, place)."""
    factors = np.full((1, 3, 5), -1, dtype=np.int8)
    moved = np.zeros((1, 3, 3))
    for o, (shape, size, place) in enumerate(objects):
        factors[0, o] = (SHAPES.index(shape), 0, FILLS.index("solid"), size, PLACES.index(place))
        moved[0, o] = jitter
    return Scenes(np.array([7], dtype=np.uint64), np.zeros(1, dtype=np.int8), factors, moved)


def centres(scenes: Scenes) -> np.ndarray:
    """Centre (x, y) of every object, NaN where there is none."""
    found = CENTRES[scenes.objects[..., PLACE]] + scenes.jitter[..., :2]
    found[scenes.objects[..., SHAPE] < 0] = np.nan
    return found


def test_pixels_are_those_of_the_shipped_backbones() -> None:
    common = sample_scenes(0, "golden", np.arange(24))
    held_out = sample_scenes(0, "golden", np.arange(8), compositions="held-out")
    edited, _, _ = edit_one_factor(common, "golden", dict.fromkeys(EDITABLE, 1.0))
    assert render(common).shape == (24, 64, 64, 3)
    content = b"".join(render(part).tobytes() + pack(part).tobytes() for part in (common, held_out, edited))
    assert hashlib.sha256(content).hexdigest() == GOLDEN


@settings(max_examples=20)
@given(seeds, st.text(max_size=8), st.lists(st.integers(0, 2**40), min_size=1, max_size=6))
def test_a_scene_depends_on_its_identifiers_alone(seed: int, stream: str, numbers: list[int]) -> None:
    together = sample_scenes(seed, stream, np.array(numbers))
    for at, number in enumerate(numbers):
        alone = sample_scenes(seed, stream, np.array([number]))
        assert np.array_equal(pack(alone), pack(together[at : at + 1]))
        assert np.array_equal(render(alone)[0], render(together)[at])


def test_scenes_and_pixels_do_not_depend_on_order_batch_or_callers() -> None:
    scenes = sample_scenes(3, "s", np.arange(300))
    images = render(scenes)
    backwards = sample_scenes(3, "s", np.arange(300)[::-1])
    assert np.array_equal(pack(backwards)[::-1], pack(scenes))
    assert np.array_equal(render(backwards)[::-1], images)
    assert np.array_equal(render(scenes[123:124])[0], images[123])
    with ThreadPoolExecutor(4) as pool:
        assert all(np.array_equal(found, images) for found in pool.map(render, [scenes] * 6))
    assert len({image.tobytes() for image in images}) == 300


def test_streams_and_worlds_differ() -> None:
    scenes = sample_scenes(0, "a", np.arange(8))
    for other in (sample_scenes(1, "a", np.arange(8)), sample_scenes(0, "b", np.arange(8))):
        assert not np.array_equal(pack(scenes), pack(other))


def test_held_out_compositions_are_kept_apart() -> None:
    common = sample_scenes(0, "s", np.arange(3000))
    held_out = sample_scenes(0, "s", np.arange(300), compositions="held-out")
    everything = sample_scenes(0, "s", np.arange(3000), compositions="all")
    assert not held_out_objects(common).any()
    assert np.array_equal(held_out_objects(held_out), held_out.objects[..., SHAPE] >= 0)
    assert 0 < held_out_objects(everything).sum() < (everything.objects[..., SHAPE] >= 0).sum() / 4
    shown = {tuple(pair) for pair in held_out.objects[held_out_objects(held_out)][:, :2]}
    assert len(shown) == len(HELD_OUT)


def test_every_value_occurs_and_numbers_of_objects_follow_their_probabilities() -> None:
    scenes = sample_scenes(0, "s", np.arange(4000), n_objects=(0.5, 0.5, 0.0))
    there = scenes.objects[..., SHAPE] >= 0
    assert there[:, 0].all() and not there[:, 2].any()
    assert there[:, 1].mean() == pytest.approx(0.5, abs=0.03)
    for column, values in enumerate(OBJECT_FACTORS.values()):
        assert set(scenes.objects[there][:, column]) == set(range(len(values)))
    assert np.bincount(scenes.backgrounds, minlength=len(BACKGROUNDS)).min() > 4000 / len(BACKGROUNDS) * 0.8
    with pytest.raises(ValueError, match="add up to"):
        sample_scenes(0, "s", np.arange(2), n_objects=(0.5, 0.2, 0.2))


def test_objects_overlap_by_at_most_a_fifth() -> None:
    """Overlap by counting points of a fine raster, not by the formula that placed the objects."""
    scenes = sample_scenes(0, "s", np.arange(400), n_objects=(0.0, 0.0, 1.0))
    points = np.stack(np.meshgrid(np.arange(0, 64, 0.5), np.arange(0, 64, 0.5)), axis=-1)
    middles, radii = centres(scenes), RADII[scenes.objects[..., SIZE]]
    worst = 0.0
    for i in range(len(scenes)):
        n = int((scenes.objects[i, :, SHAPE] >= 0).sum())
        discs = [((points - middles[i, o]) ** 2).sum(axis=-1) <= radii[i, o] ** 2 for o in range(n)]
        for a in range(n):
            for b in range(a):
                worst = max(worst, (discs[a] & discs[b]).sum() / min(discs[a].sum(), discs[b].sum()))
    assert 0.05 < worst <= MAX_OVERLAP + 0.01


@given(st.floats(0.0, 40.0), st.floats(1.0, 15.0), st.floats(1.0, 15.0))
def test_overlap_of_discs_is_a_symmetric_share_that_falls_with_distance(distance: float, r: float, s: float) -> None:
    share = disc_overlap(distance, r, s)
    assert 0.0 <= share <= 1.0 + 1e-9
    assert share == pytest.approx(disc_overlap(distance, s, r))
    assert share + 1e-9 >= disc_overlap(distance + 0.5, r, s)


@pytest.mark.parametrize("grid", [8, 7, 14])
def test_coverage_is_a_share_and_agrees_between_rasters(grid: int) -> None:
    scenes = sample_scenes(0, "s", np.arange(200))
    shares = coverage(scenes, grid)
    assert shares.shape == (200, 3, grid * grid) and shares.min() >= 0.0
    assert shares.sum(axis=1).max() <= 1.0 + 1e-5
    assert shares[scenes.objects[..., SHAPE] < 0].sum() == 0.0
    assert np.allclose(shares.mean(axis=2), coverage(scenes, 4).mean(axis=2), atol=1e-5)


@pytest.mark.parametrize("shape", ["circle", "square"])
@pytest.mark.parametrize("size", [0, 1])
def test_coverage_agrees_with_an_independent_raster(shape: str, size: int) -> None:
    jitter = (1.3, -0.7, 0.2)
    at = (np.arange(64 * 8) + 0.5) / 8
    x, y = np.meshgrid(at - CENTRES[0, 0] - jitter[0], at - CENTRES[0, 1] - jitter[1])
    if shape == "circle":
        inside = np.hypot(x, y) <= RADII[size]
    else:
        half = 1.16 * RADII[size] / np.sqrt(2.0)
        u, v = np.cos(0.2) * x + np.sin(0.2) * y, np.cos(0.2) * y - np.sin(0.2) * x
        inside = (np.abs(u) <= half) & (np.abs(v) <= half)
    expected = inside.reshape(8, 64, 8, 64).mean(axis=(1, 3)).ravel()
    found = coverage(scene((shape, size, "top left"), jitter=jitter), 8)[0, 0]
    assert np.abs(found - expected).max() < 0.02


def test_later_objects_hide_earlier_ones() -> None:
    both = coverage(scene(("circle", 1, "centre"), ("circle", 0, "centre")), 8)[0]
    large, small = (coverage(scene(("circle", size, "centre")), 8)[0, 0] for size in (1, 0))
    assert np.allclose(both[1], small, atol=1e-6)
    assert np.allclose(both[0], large - small, atol=1e-6)


@settings(max_examples=20)
@given(seeds, st.sampled_from(EDITABLE))
def test_an_edit_changes_one_factor_and_keeps_everything_else(seed: int, factor: str) -> None:
    before = sample_scenes(seed, "s", np.arange(40))
    after, changed, number = edit_one_factor(before, "edit", {factor: 1.0}, seed)
    done = changed >= 0
    assert done.any() and (number[done] == EDITABLE.index(factor)).all() and (number[~done] == -1).all()
    assert np.array_equal(before.keys, after.keys) and np.array_equal(before.jitter, after.jitter)
    differ = before.objects != after.objects
    if factor == "background":
        assert not differ.any() and (before.backgrounds != after.backgrounds).all()
        return
    assert np.array_equal(before.backgrounds, after.backgrounds)
    expected = np.zeros_like(differ)
    expected[np.flatnonzero(done), changed[done], EDITABLE.index(factor)] = True
    assert np.array_equal(differ, expected)
    assert not held_out_objects(after).any()
    assert after.objects[..., EDITABLE.index(factor)].max() < len(OBJECT_FACTORS[factor])


@pytest.mark.parametrize("factor", OBJECT_FACTORS)
def test_an_edit_changes_pixels_near_the_object_only(factor: str) -> None:
    before = sample_scenes(0, "s", np.arange(60))
    after, changed, _ = edit_one_factor(before, "edit", {factor: 1.0})
    ys, xs = np.mgrid[0:64, 0:64] + 0.5
    for i in np.flatnonzero(changed >= 0):
        difference = (render(before[i : i + 1]) != render(after[i : i + 1]))[0].any(axis=-1)
        assert difference.any()
        near = np.zeros((64, 64), dtype=bool)
        for scenes in (before, after):
            x, y = centres(scenes)[i, changed[i]]
            near |= np.hypot(xs - x, ys - y) <= 1.3 * RADII[scenes.objects[i, changed[i], SIZE]] + 1.5
        assert not (difference & ~near).any()


def test_edits_keep_their_distance_and_refuse_unknown_factors() -> None:
    before = sample_scenes(0, "s", np.arange(1500), n_objects=(0.0, 0.0, 1.0))
    after, changed, _ = edit_one_factor(before, "edit", {"place": 1.0, "size": 1.0})
    middles, radii = centres(after), RADII[after.objects[..., SIZE]]
    for a in range(3):
        for b in range(a):
            both = (after.objects[:, a, SHAPE] >= 0) & (after.objects[:, b, SHAPE] >= 0) & (changed >= 0)
            distance = np.linalg.norm(middles[both, a] - middles[both, b], axis=1)
            shares = [disc_overlap(*row) for row in zip(distance, radii[both, a], radii[both, b], strict=True)]
            assert max(shares) <= MAX_OVERLAP
    with pytest.raises(ValueError, match="unknown factors"):
        edit_one_factor(before, "edit", {"hue": 1.0})
