"""Latent statistics on codes whose values are known."""

import numpy as np
import pytest

from conceptbench.dictionaries.evaluate import DENSE_ABOVE
from conceptbench.errors import ConceptBenchError
from conceptbench.measures.latents import LatentSpec, label_entropy, label_std, latent_statistics
from conceptbench.measures.sparse import from_dense


def planted() -> np.ndarray:
    """[image 4, token 3 (the first is a prefix), latent 4]; latent 2 is dead, latent 3 always on."""
    codes = np.zeros((4, 3, 4))
    codes[0, :, 0] = [0.0, 0.3, 0.6]
    codes[1, :, 0] = [0.0, 0.1, 0.0]
    codes[3, :, 1] = [0.9, 0.0, 0.0]
    codes[:, :, 3] = 0.5
    return codes


def statistics(spec: LatentSpec | None = None):
    labels, images = np.array([2, 5, 2, 0]), np.array([10, 11, 12, 13])
    return latent_statistics(from_dense(planted()), labels, images, {2: "two", 5: "five", 0: "zero"}, spec)


def test_statistics_of_planted_codes() -> None:
    table, _ = statistics()
    first = table.iloc[0]
    assert first["frequency_image"] == pytest.approx(2 / 4)
    assert first["frequency_token"] == pytest.approx(3 / 12)
    assert first["mean_activation"] == pytest.approx((0.9 / 3 + 0.1 / 3) / 2)
    assert first["count_mean"] == pytest.approx(2 / 4)
    share = np.array([0.9, 0.1])
    assert first["label_entropy"] == pytest.approx(-(share * np.log(share)).sum())
    assert first["label_std"] == pytest.approx(np.std([2, 5]))
    assert list(table["dead"]) == [False, False, True, False]
    assert list(table["dense"]) == [True, False, False, True]
    assert LatentSpec().dense_above == DENSE_ABOVE == 0.1


def test_the_two_image_level_definitions_differ() -> None:
    table, _ = statistics(LatentSpec(tau=0.7))
    assert table.loc[0, "count_mean"] == 0
    assert table.loc[0, "frequency_image"] == 0.5
    assert table.loc[1, "count_mean"] == pytest.approx(1 / 4)


def test_dead_latents_have_no_exemplars_and_no_nan_activation() -> None:
    table, exemplars = statistics()
    assert table.loc[2, "mean_activation"] == 0
    assert np.isnan(table.loc[2, "label_entropy"])
    assert 2 not in set(exemplars["latent"])


def test_exemplars_are_the_top_images_with_their_strongest_patch() -> None:
    _, exemplars = statistics()
    first = exemplars[exemplars["latent"] == 0]
    assert list(first["image"]) == [10, 11]
    assert list(first["patch"]) == [1, 0]
    assert list(first["class_name"]) == ["two", "five"]
    assert list(exemplars[exemplars["latent"] == 1]["patch"]) == [-1]


def test_entropy_is_zero_for_one_class_and_log_k_for_equal_shares() -> None:
    assert label_entropy(np.array([3.0, 1.0]), np.array([4, 4])) == 0
    assert label_entropy(np.ones(4), np.arange(4)) == pytest.approx(np.log(4))
    assert np.isnan(label_entropy(np.ones(2), np.array([-1, -1])))
    assert np.isnan(label_std(np.array([-1])))


def test_statistics_agree_with_a_dense_reference() -> None:
    rng = np.random.default_rng(0)
    dense = rng.random((30, 5, 20)) * (rng.random((30, 5, 20)) < 0.1)
    table, exemplars = latent_statistics(from_dense(dense), rng.integers(0, 3, 30), np.arange(30))
    mean = dense.astype(np.float32).mean(axis=1)
    np.testing.assert_allclose(table["frequency_image"], (mean > 0).mean(axis=0))
    np.testing.assert_allclose(table["mean_activation"], mean.sum(0) / np.maximum((mean > 0).sum(0), 1), rtol=1e-5)
    for latent, part in exemplars.groupby("latent"):
        np.testing.assert_allclose(part["score"], -np.sort(-mean[:, latent])[: len(part)], rtol=1e-5)


def test_labels_of_another_length_are_refused() -> None:
    with pytest.raises(ConceptBenchError, match="4 coded images but 3 labels"):
        latent_statistics(from_dense(planted()), np.zeros(3, int), np.arange(4))
