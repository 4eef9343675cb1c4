"""Every statistic is checked on data whose truth is known, or against another implementation."""

import time
from typing import Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from conceptbench.errors import ConceptBenchError
from conceptbench.inference import (
    benjamini_hochberg,
    bootstrap,
    bootstrap_mean,
    bootstrap_means,
    bootstrap_weighted,
    constant,
    group,
    holm,
    paired_difference,
    permutation_p,
    resample_weights,
    sign_flip_p,
)

P_VALUES = hnp.arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 1))


def clustered(rng: np.random.Generator, n: int, skew: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw [row] values with a strong image effect, two classes with means 0 and 4; the overall mean is 2."""
    strata = np.arange(n) % 2
    effect = rng.exponential(1, n) - 1 if skew else rng.standard_normal(n)
    image = np.repeat(np.arange(n), 6)
    values = (4 * strata + effect)[image] + 0.3 * rng.standard_normal(6 * n)
    return values, image, strata[image]


@pytest.mark.parametrize(("method", "skew"), [("bca", False), ("percentile", False), ("bca", True)])
def test_coverage_on_clustered_data(method: Literal["bca", "percentile"], skew: bool) -> None:
    """95 % intervals cover the truth in 95 % of 400 worlds, within 3 Monte Carlo errors and 1.5 % for 60 images."""
    rng = np.random.default_rng(7)
    covered = []
    for _ in range(400):
        values, image, strata = clustered(rng, 60, skew)
        found = bootstrap_mean(values, image, strata, n_resamples=500, rng=rng, method=method)
        covered.append(found.low <= 2 <= found.high)
    error = 3 * np.sqrt(0.95 * 0.05 / 400)
    assert 0.95 - error - 0.015 < np.mean(covered) < 0.95 + error


def test_ignoring_clusters_would_be_too_narrow() -> None:
    rng = np.random.default_rng(1)
    values, image, strata = clustered(rng, 60, False)
    right = bootstrap_mean(values, image, strata, rng=rng)
    wrong = bootstrap_mean(values, rng=rng, strata=strata)
    unstratified = bootstrap_mean(values, image, rng=rng)
    assert (wrong.high - wrong.low) < 0.6 * (right.high - right.low) < 0.5 * (unstratified.high - unstratified.low)
    assert right.n == 60 and wrong.n == 360


def test_agrees_with_scipy_on_independent_rows() -> None:
    rng = np.random.default_rng(3)
    values = rng.exponential(size=80)
    ours = bootstrap_mean(values, n_resamples=20000, rng=rng)
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20000, method="BCa", rng=rng).confidence_interval
    assert ours.low == pytest.approx(theirs.low, abs=0.01) and ours.high == pytest.approx(theirs.high, abs=0.01)
    median = bootstrap(np.median, values, n_resamples=4000, rng=rng)
    reference = stats.bootstrap((values,), np.median, n_resamples=4000, method="percentile", rng=rng)
    assert median.low == pytest.approx(reference.confidence_interval.low, abs=0.05)  # of 79 drawn there, 80 here
    assert median.high == pytest.approx(reference.confidence_interval.high, abs=0.05)


def test_the_three_bootstraps_agree_on_a_mean() -> None:
    rng = np.random.default_rng(4)
    values, image, _ = clustered(rng, 40, False)
    values = values / 4
    fast = bootstrap_mean(values, image, n_resamples=4000, rng=rng, method="percentile")
    slow = bootstrap(np.mean, values, clusters=image, n_resamples=4000, rng=rng)
    slow_bca = bootstrap(np.mean, values, clusters=image, n_resamples=4000, rng=rng, method="bca")
    fast_bca = bootstrap_mean(values, image, n_resamples=4000, rng=rng)
    groups = group(len(values), image)
    sums, sizes = groups.sums(values), groups.sizes()
    weighted = bootstrap_weighted(lambda w: (w @ sums) / (w @ sizes), groups, n_resamples=4000, rng=rng)
    for other, base in ((slow, fast), (weighted, fast), (slow_bca, fast_bca)):
        assert other.estimate == pytest.approx(base.estimate)
        assert other.low == pytest.approx(base.low, abs=0.04) and other.high == pytest.approx(base.high, abs=0.04)


def test_weights_keep_strata_and_have_the_moments_of_an_unbiased_variance() -> None:
    """Of a weight: variance 1, so that w @ x has n times the unbiased variance of x, also for two images a class."""
    groups = group(10, strata=np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 3]))
    weights = np.concatenate(list(resample_weights(groups, 4000, np.random.default_rng(0))))
    assert weights.shape == (4000, 10)
    for rows, size in ((slice(0, 4), 4), (slice(4, 7), 3), (slice(7, 9), 2)):
        assert weights[:, rows].sum(axis=1) == pytest.approx(size)
        assert weights[:, rows].var() == pytest.approx(1, rel=0.08)
        values = np.arange(size) ** 2.0
        assert (weights[:, rows] @ values).var() == pytest.approx(size * values.var(ddof=1), rel=0.08)
    assert (weights[:, 9] == 1).all()
    lone = np.concatenate(list(resample_weights(group(3, strata=np.arange(3)), 5, np.random.default_rng(0))))
    assert lone.shape == (5, 3) and np.isnan(lone).all()


@pytest.mark.parametrize("images", [2, 3, 10])
def test_means_within_small_classes_cover(images: int) -> None:
    """BCa and percentile intervals over 51 classes of a few images hold the truth within the Monte Carlo error."""
    rng = np.random.default_rng(images)
    strata = np.repeat(np.arange(51), images)
    for method in ("bca", "percentile"):
        held = []
        for values in rng.standard_normal((600, len(strata))) + strata % 7:
            found = bootstrap_mean(values, strata=strata, n_resamples=300, rng=rng, method=method)
            held.append(found.low <= (np.arange(51) % 7).mean() <= found.high)
        assert abs(np.mean(held) - 0.95) <= 3 * np.sqrt(0.95 * 0.05 / 600)


def test_classes_of_one_image_alone_give_no_interval() -> None:
    found = bootstrap_mean(np.arange(4.0), strata=np.arange(4), rng=np.random.default_rng(0))
    assert np.isnan(found.low) and (found.estimate, found.n) == (1.5, 4) and "undefined" in found.note


def test_fractions_as_weights_leave_ties_and_constants_what_they_are() -> None:
    """0.1 in seven images has no variation, though sums of its weighted values differ in the last digit."""
    rng = np.random.default_rng(0)
    same = bootstrap_mean(np.full(7, 0.1), rng=rng)
    assert (same.low, same.high) == (same.estimate, same.estimate) == (pytest.approx(0.1),) * 2
    assert same.note == "no variation between images"
    assert constant([0.3, 0.1 + 0.2]) and not constant([0.3, 0.3 + 1e-9])


def test_paired_difference_uses_the_pairing() -> None:
    rng = np.random.default_rng(5)
    before = rng.standard_normal(200) * 10
    after = before + 0.5 + 0.1 * rng.standard_normal(200)
    found = paired_difference(after, before, rng=rng)
    assert 0.4 < found.low < 0.5 < found.high < 0.6
    with pytest.raises(ConceptBenchError, match="equal shapes"):
        paired_difference(after[1:], before, rng=rng)


def test_ten_thousand_images_take_less_than_a_second() -> None:
    rng = np.random.default_rng(0)
    values = rng.random(10_000)
    start = time.process_time()
    found = bootstrap_mean(values, np.arange(10_000), np.arange(10_000) % 10, n_resamples=2000, rng=rng)
    assert time.process_time() - start < 1.0
    assert found.high - found.low == pytest.approx(2 * 1.96 * values.std() / 100, rel=0.1)


def test_cases_without_an_interval_say_why() -> None:
    rng = np.random.default_rng(0)
    assert bootstrap_mean(np.array([]), rng=rng).note == "no rows"
    assert bootstrap(np.mean, np.array([]), rng=rng).note == "no rows"
    single = bootstrap_mean(np.array([1.0, 3.0]), clusters=np.array([5, 5]), rng=rng)
    assert (single.estimate, single.n, single.note) == (2.0, 1, "one image only") and np.isnan(single.low)
    constant = bootstrap_mean(np.ones(9), rng=rng)
    assert (constant.low, constant.high, constant.note) == (1.0, 1.0, "no variation between images")
    undefined = bootstrap(lambda x: np.nan if x.min() > 0 else 1.0 + x.mean(), np.array([0.0, 1, 1]), rng=rng)
    assert undefined.note.endswith("resamples undefined") and np.isfinite(undefined.low)
    row = constant.row(seed=3)
    assert row == {"estimate": 1.0, "low": 1.0, "high": 1.0, "n": 9, "seed": "3", "note": constant.note}


def test_bad_input_is_one_sentence() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ConceptBenchError, match="not finite"):
        bootstrap_mean(np.array([1.0, np.nan]), rng=rng)
    with pytest.raises(ConceptBenchError, match="one image in two strata"):
        group(3, np.array([0, 0, 1]), np.array([0, 1, 1]))
    with pytest.raises(ConceptBenchError, match="3 rows but 2 clusters"):
        group(3, np.array([0, 1]))
    with pytest.raises(ConceptBenchError, match="3 rows but 2 strata"):
        group(3, None, np.array([0, 1]))
    with pytest.raises(ConceptBenchError, match="shape"):
        bootstrap_means(np.ones(3), rng=rng)
    with pytest.raises(ConceptBenchError, match="same number"):
        bootstrap(np.mean, np.ones(3), np.ones(2), rng=rng)
    with pytest.raises(ConceptBenchError, match=r"outside 0\.\.1"):
        holm(np.array([0.5, 1.5]))
    with pytest.raises(ConceptBenchError, match="not finite"):
        permutation_p(np.nan, np.ones(3))


def test_permutation_p_is_uniform_under_the_null_and_never_zero() -> None:
    rng = np.random.default_rng(2)
    draws = rng.standard_normal((100, 4000))
    p = permutation_p(draws[0], draws[1:])
    assert p.min() == pytest.approx(1 / 100) and p.max() <= 1
    assert np.mean(p <= 0.05) == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / 4000))
    two_sided = permutation_p(draws[0], draws[1:], "two-sided")
    assert np.mean(two_sided <= 0.1) == pytest.approx(0.1, abs=3 * np.sqrt(0.1 * 0.9 / 4000))
    assert permutation_p(0.0, np.ones(9), "less") == pytest.approx(1 / 10)
    assert permutation_p(2.0, np.ones(9)) == pytest.approx(1 / 10)


def test_sign_flips_hold_their_level_and_find_an_effect() -> None:
    rng = np.random.default_rng(6)
    image = np.repeat(np.arange(30), 4)
    p = [sign_flip_p(rng.standard_normal(30)[image], image, n_permutations=200, rng=rng) for _ in range(400)]
    assert np.mean(np.array(p) <= 0.05) == pytest.approx(0.05, abs=3 * np.sqrt(0.05 * 0.95 / 400))
    assert sign_flip_p(rng.standard_normal(30)[image] + 1.5, image, rng=rng) < 0.01


@given(P_VALUES)
def test_benjamini_hochberg_equals_scipy(p: np.ndarray) -> None:
    np.testing.assert_allclose(benjamini_hochberg(p), stats.false_discovery_control(p), rtol=1e-12)


@given(P_VALUES)
def test_corrections_are_ordered(p: np.ndarray) -> None:
    q, h = benjamini_hochberg(p), holm(p)
    assert (p <= q + 1e-15).all() and (q <= h + 1e-12).all() and (h <= np.minimum(1, p * len(p)) + 1e-12).all()
    order = np.argsort(p, kind="stable")
    assert (np.diff(q[order]) >= -1e-15).all() and (np.diff(h[order]) >= -1e-15).all()


def test_false_discovery_rate_and_family_wise_error_are_controlled() -> None:
    rng = np.random.default_rng(8)
    false_share, any_false, found = [], [], []
    for _ in range(400):
        z = rng.standard_normal(200)
        z[:50] += 3
        p = stats.norm.sf(z)
        rejected = benjamini_hochberg(p) <= 0.1
        false_share.append(rejected[50:].sum() / max(rejected.sum(), 1))
        found.append(rejected[:50].mean())
        any_false.append((holm(p) <= 0.1)[50:].any())
    assert np.mean(false_share) == pytest.approx(0.1 * 150 / 200, abs=3 * np.std(false_share) / 20)
    assert np.mean(any_false) <= 0.1 + 3 * np.sqrt(0.1 * 0.9 / 400)
    assert np.mean(found) > 0.5
