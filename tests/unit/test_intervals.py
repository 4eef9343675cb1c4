"""Intervals over seeds, pairs of seeds and groups of images: analytic values and coverage."""

import numpy as np
import pytest
from scipy.stats import t, ttest_1samp

from conceptbench.inference import Estimate
from conceptbench.measures.intervals import (
    difference_interval,
    group_interval,
    image_groups,
    pair_interval,
    seed_interval,
)


def test_seed_interval_is_the_t_interval():
    values = np.array([0.1, 0.4, 0.25, 0.3])
    found = seed_interval(values)
    low, high = ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.estimate, found.low, found.high, found.n) == pytest.approx((values.mean(), low, high, 4))


def test_seed_interval_says_why_there_is_none():
    assert seed_interval(np.array([0.3])).note == "one seed only"
    assert seed_interval(np.array([np.nan])).note == "undefined for every seed"
    same = seed_interval(np.array([8.0, 8.0]))
    assert (same.low, same.high, same.note) == (8.0, 8.0, "no variation between seeds")


def test_ends_stay_in_the_range():
    found = seed_interval(np.array([0.0, 0.9]), (0.0, 1.0))
    assert (found.low, found.high) == (0.0, 1.0)


def test_pairs_of_an_additive_table_have_the_variance_of_the_mean():
    """For h(s, t) = (x_s + x_t) / 2 the mean over pairs is the mean of x, and the jackknife gives its t interval."""
    x = np.array([0.2, 0.5, 0.3, 0.9, 0.4])
    found, expected = pair_interval((x[:, None] + x[None, :]) / 2), seed_interval(x)
    assert (found.estimate, found.low, found.high) == pytest.approx((expected.estimate, expected.low, expected.high))


def test_two_runs_have_no_interval():
    found = pair_interval(np.array([[np.nan, 0.6], [0.6, np.nan]]))
    assert found.estimate == 0.6 and np.isnan(found.low) and found.note == "one pair of seeds only"
    assert pair_interval(np.ones((1, 1))).note == "one seed only"


def test_groups_differ_by_one_image_at_most():
    sizes = np.bincount(image_groups(103, 20, np.random.default_rng(0)))
    assert len(sizes) == 20 and np.ptp(sizes) == 1


def test_group_jackknife_of_a_mean_is_the_t_interval_of_the_group_means():
    rng = np.random.default_rng(1)
    means = rng.standard_normal(20)
    left_out = (means.sum() - means) / 19
    found, expected = group_interval(np.array([means.mean()]), left_out[None], 400), seed_interval(means)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert found.n == 400


def test_group_interval_covers_images_and_seeds():
    """Seeds differ by 0.3 around 0 and see the same images: the truth lies in about 95 % of the intervals."""
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(600):
        images, seeds = rng.normal(0, 1, (20, 10)), rng.normal(0, 0.3, 4)
        means = images.mean(1)
        found = group_interval(means.mean() + seeds, ((means.sum() - means) / 19)[None] + seeds[:, None], 200)
        held += found.low <= 0 <= found.high
    assert 0.93 <= held / 600 <= 0.99


def test_no_variation_is_said():
    found = group_interval(np.ones(2), np.ones((2, 5)), 10)
    assert (found.low, found.high, found.note) == (1.0, 1.0, "no variation between images")
    lost = group_interval(np.array([np.nan]), np.full((1, 5), np.nan), 10)
    assert np.isnan(lost.low) and lost.note == "undefined on some of the images"


def test_difference_of_independent_means_is_the_usual_one():
    half = 1.96 * np.array([0.3, 0.4])
    found = difference_interval(
        Estimate(2.0, 2 - half[0], 2 + half[0], 50), Estimate(0.5, 0.5 - half[1], 0.5 + half[1], 50)
    )
    assert (found.estimate, found.low, found.high) == pytest.approx((1.5, 1.5 - 1.96 * 0.5, 1.5 + 1.96 * 0.5))
    lost = difference_interval(Estimate(1.0, np.nan, np.nan, 5, "one seed only"), Estimate(0.5, 0.4, 0.6, 5))
    assert lost.estimate == 0.5 and lost.note == "one seed only"


def test_small_degrees_of_freedom_count():
    found = seed_interval(np.array([0.0, 1.0]))
    assert found.high == pytest.approx(0.5 + t.ppf(0.975, 1) * 0.5)
