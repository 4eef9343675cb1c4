"""Ranking of sparse scores against scikit-learn, and aggregation of codes against dense arrays."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from conceptbench.measures.ranking import best_threshold, column, curve, mann_whitney_ranks, rank_all, replicate
from conceptbench.measures.resampling import image_weights, interval, two_sided_p
from conceptbench.measures.sparse import from_dense, image_scores, is_signed, patch_scores


def sparse_scores(rng: np.random.Generator, n: int, width: int, *, signed: bool) -> np.ndarray:
    values = np.round(rng.normal(size=(n, width)), 1)
    values[rng.random((n, width)) < 0.6] = 0
    return values if signed else np.abs(values)


@pytest.mark.parametrize("signed", [False, True])
def test_auroc_and_average_precision_are_those_of_scikit_learn(signed: bool) -> None:
    rng = np.random.default_rng(1)
    dense = sparse_scores(rng, 200, 12, signed=signed)
    labels = rng.random((200, 5)) < 0.3
    ranks = rank_all(sparse.csc_array(dense), labels)
    for latent in range(12):
        for label in range(5):
            assert ranks.auroc[latent, label] == pytest.approx(
                roc_auc_score(labels[:, label], dense[:, latent]), abs=1e-12
            )
            expected = average_precision_score(labels[:, label], dense[:, latent])
            assert ranks.average_precision[latent, label] == pytest.approx(expected, abs=1e-12)


def test_soft_labels_are_weights() -> None:
    rng = np.random.default_rng(2)
    dense = sparse_scores(rng, 80, 4, signed=True)
    soft = rng.random((80, 2))
    ranks = rank_all(sparse.csc_array(dense), soft)
    doubled, truth = np.concatenate([dense, dense]), np.r_[np.ones(80), np.zeros(80)]
    for latent in range(4):
        for label in range(2):
            weights = np.r_[soft[:, label], 1 - soft[:, label]]
            expected = roc_auc_score(truth, doubled[:, latent], sample_weight=weights)
            assert ranks.auroc[latent, label] == pytest.approx(expected, abs=1e-12)
            expected = average_precision_score(truth, doubled[:, latent], sample_weight=weights)
            assert ranks.average_precision[latent, label] == pytest.approx(expected, abs=1e-12)


def test_items_with_both_weights_zero_are_left_out() -> None:
    rng = np.random.default_rng(3)
    dense, labels, kept = rng.random((60, 3)), rng.random(60) < 0.5, rng.random(60) < 0.7
    positive, negative = (labels & kept)[:, None], (~labels & kept)[:, None]
    ranks = rank_all(sparse.csc_array(dense), positive, negative)
    assert ranks.auroc[1, 0] == pytest.approx(roc_auc_score(labels[kept], dense[kept, 1]), abs=1e-12)


def test_a_label_of_one_class_has_no_score() -> None:
    ranks = rank_all(sparse.csc_array(np.eye(4)), np.ones((4, 1)))
    assert np.isnan(ranks.auroc).all()
    assert np.isnan(ranks.average_precision).all()


def test_a_silent_latent_scores_one_half_and_the_base_rate() -> None:
    labels = np.array([1, 0, 0, 0])[:, None]
    ranks = rank_all(sparse.csc_array((4, 1)), labels)
    assert ranks.auroc[0, 0] == 0.5
    assert ranks.average_precision[0, 0] == 0.25


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.int64, st.integers(5, 40), elements=st.integers(0, 4)),
    st.integers(0, 2**31),
)
def test_auroc_of_the_negated_score_is_the_complement(values: np.ndarray, seed: int) -> None:
    labels = np.random.default_rng(seed).random(len(values)) < 0.5
    labels[:2] = [True, False]
    both = sparse.csc_array(np.stack([values, -values], axis=1).astype(np.float64))
    auroc = rank_all(both, labels[:, None]).auroc
    assert auroc.sum() == pytest.approx(1.0, abs=1e-12)


def test_all_latents_and_factors_are_scored_in_seconds() -> None:
    rng = np.random.default_rng(4)
    scores = sparse.random_array((4096, 1024), density=0.15, format="csc", rng=rng, dtype=np.float32)
    labels = rng.random((4096, 40)) < 0.2
    rank_all(scores[:, :2], labels)
    start = time.process_time()
    rank_all(scores, labels)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("signed", [False, True])
def test_the_threshold_maximises_f1(signed: bool) -> None:
    rng = np.random.default_rng(5)
    dense = sparse_scores(rng, 150, 1, signed=signed)[:, 0]
    labels = rng.random(150) < 1 / (1 + np.exp(-3 * dense))
    items, values = column(sparse.csc_array(dense[:, None]), 0)
    threshold, best = best_threshold(items, values, labels.astype(float), (~labels).astype(float))
    tried = {t: f1_score(labels, dense >= t) for t in np.unique(dense) if t != 0}
    assert best == pytest.approx(max(tried.values()), abs=1e-12)
    assert tried[threshold] == pytest.approx(best, abs=1e-12)
    assert curve(items, values, labels.astype(float), (~labels).astype(float), threshold).f1 == pytest.approx(best)


def test_replicates_are_scores_of_the_resampled_items() -> None:
    rng = np.random.default_rng(6)
    clusters = np.repeat(np.arange(20), 5)
    dense = sparse_scores(rng, 100, 1, signed=True)[:, 0]
    labels = (rng.random(100) < 0.4).astype(float)
    items, values = column(sparse.csc_array(dense[:, None]), 0)
    weights = image_weights(20, 10, rng)
    drawn = replicate(items, values, labels, 1 - labels, clusters, weights, 0.5)
    for at, counts in enumerate(weights):
        rows = np.repeat(np.arange(100), counts[clusters].astype(int))
        assert drawn.auroc[at] == pytest.approx(roc_auc_score(labels[rows], dense[rows]), abs=1e-9)
        assert drawn.average_precision[at] == pytest.approx(
            average_precision_score(labels[rows], dense[rows]), abs=1e-9
        )
        assert drawn.f1[at] == pytest.approx(f1_score(labels[rows], dense[rows] >= 0.5), abs=1e-9)


def test_mid_ranks_are_those_of_scipy() -> None:
    dense = sparse_scores(np.random.default_rng(7), 50, 1, signed=True)[:, 0]
    items, values = column(sparse.csc_array(dense[:, None]), 0)
    np.testing.assert_allclose(mann_whitney_ranks(items, values, 50), rankdata(dense))


@pytest.mark.parametrize("prefix", [0, 1])
@pytest.mark.parametrize("signed", [False, True])
def test_image_scores_are_reductions_of_the_dense_codes(prefix: int, signed: bool) -> None:
    rng = np.random.default_rng(8)
    dense = sparse_scores(rng, 6 * 5, 7, signed=signed).reshape(6, 5, 7)
    dense[:, :, 3] = 0
    codes = from_dense(dense)
    patches = dense[:, prefix:].astype(np.float32)
    expected = {"max": patches.max(axis=1), "mean": patches.mean(axis=1), "count": (patches > 0.3).sum(axis=1)}
    for reduce, array in expected.items():
        found = image_scores(codes, reduce=reduce, prefix_tokens=prefix, threshold=0.3)
        np.testing.assert_allclose(found.toarray(), array, atol=1e-6)
    both = image_scores(codes, prefix_tokens=prefix, both_signs=True).toarray()
    np.testing.assert_allclose(both, np.concatenate([patches.max(axis=1), (-patches).max(axis=1)], axis=1), atol=1e-6)
    np.testing.assert_allclose(patch_scores(codes, prefix_tokens=prefix).toarray(), patches.reshape(-1, 7))
    assert is_signed(codes) == signed


def test_weights_draw_within_strata() -> None:
    strata = np.array([0, 0, 0, 1, 1, 1, 1])
    weights = image_weights(7, 50, np.random.default_rng(0), strata)
    assert (weights[:, :3].sum(axis=1) == 3).all()
    assert (weights[:, 3:].sum(axis=1) == 4).all()


def test_an_interval_says_why_it_is_missing() -> None:
    assert interval(1.0, np.ones(10), 5).note == "no variation between images"
    assert interval(np.nan, np.arange(10.0), 5).note == "undefined on these images"
    found = interval(0.5, np.linspace(0, 1, 1001), 5)
    assert (found.low, found.high, found.note) == (pytest.approx(0.025), pytest.approx(0.975), "")


def test_a_difference_that_never_changes_sign_has_the_smallest_p() -> None:
    assert two_sided_p(np.linspace(1, 2, 99)) == pytest.approx(0.02)
    assert two_sided_p(np.linspace(-1, 1, 101)) == 1.0
