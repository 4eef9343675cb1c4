"""The choice of firing latents against a dense float32 encoder, with either precision of the candidates."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conceptbench.dictionaries import candidates as module
from conceptbench.dictionaries.candidates import Candidates, block_height
from conceptbench.dictionaries.kernels import round_rows

PRECISIONS = ["bf16", "fp32"]


def tensors(seed, width=96, d=40, tokens=33, spread=1.0):
    rng = np.random.default_rng(seed)
    encoder = rng.standard_normal((width, d)) * np.exp(spread * rng.standard_normal((width, 1)))
    bias, x = rng.standard_normal(width), rng.standard_normal((tokens, d)) * 3
    return tuple(array.astype(np.float32) for array in (encoder, bias, x))


def dense_codes(encoder, bias, x, k):
    """Codes [token, latent] in float64: the k largest pre-activations where they are positive."""
    pre = x.astype(np.float64) @ encoder.T.astype(np.float64) + bias
    codes = np.zeros_like(pre)
    chosen = np.argsort(-pre, axis=1, kind="stable")[:, :k]
    np.put_along_axis(codes, chosen, np.take_along_axis(pre, chosen, 1), 1)
    return np.maximum(codes, 0)


def as_dense(support, width):
    codes = np.zeros((support.tokens, width), np.float32)
    rows = np.repeat(np.arange(support.tokens), np.diff(support.start))
    codes[rows, support.latents] = support.values
    assert (support.values > 0).all()
    assert (np.diff(rows * width + support.latents) > 0).all(), "latents ascend within a token, none twice"
    return codes


def choose(encoder, bias, precision):
    return Candidates(torch.from_numpy(encoder), torch.from_numpy(bias), precision)


@pytest.mark.parametrize("precision", PRECISIONS)
@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6), k=st.integers(1, 12), width=st.sampled_from([12, 37, 96, 512]), spread=st.floats(0, 2)
)
def test_the_k_largest_are_those_of_a_dense_encoder(precision, seed, k, width, spread):
    encoder, bias, x = tensors(seed, width=width, spread=spread)
    codes = as_dense(choose(encoder, bias, precision).largest(x, k), width)
    expected = dense_codes(encoder, bias, x, k)
    np.testing.assert_array_equal(codes > 0, expected > 0)
    np.testing.assert_allclose(codes, expected, rtol=2e-5, atol=2e-5)


def near_ties(width=256, d=64, tokens=16):
    """Latents that bfloat16 cannot tell apart: their pre-activations differ by parts in a hundred thousand."""
    rng = np.random.default_rng(3)
    base = rng.standard_normal(d)
    encoder = base + rng.standard_normal((width, d)) * 1e-4
    x = base + rng.standard_normal((tokens, d)) * 0.1
    return encoder.astype(np.float32), np.zeros(width, np.float32), x.astype(np.float32)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_latents_that_bfloat16_cannot_tell_apart_are_ordered_in_float32(precision):
    encoder, bias, x = near_ties()
    pre = np.sort(x.astype(np.float64) @ encoder.T.astype(np.float64), axis=1)[:, ::-1]
    codes = as_dense(choose(encoder, bias, precision).largest(x, 7), len(encoder))
    np.testing.assert_allclose(np.sort(codes, axis=1)[:, ::-1][:, :7], pre[:, :7], rtol=3e-6)
    rounded = torch.from_numpy(x).bfloat16() @ torch.from_numpy(encoder).bfloat16().T
    naive = rounded.topk(7, dim=1).indices.numpy()
    wrong = [set(row) != set(np.flatnonzero(code)) for row, code in zip(naive, codes, strict=True)]
    assert np.mean(wrong) > 0.8, "the example must be hard for a choice by bfloat16 alone"


def test_the_result_does_not_depend_on_the_precision_of_the_candidates(monkeypatch):
    encoder, bias, x = tensors(5, width=512, tokens=100)
    results = [choose(encoder, bias, precision).largest(x, 9) for precision in PRECISIONS]
    monkeypatch.setattr(module, "TILE_VALUES", 512 * 7)
    results.append(choose(encoder, bias, "bf16").largest(x, 9))
    for other in results[1:]:
        np.testing.assert_array_equal(as_dense(results[0], 512), as_dense(other, 512))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("offset", [-1e4, 0.0, 5.0])
def test_thresholds_equal_a_dense_comparison(precision, offset):
    encoder, bias, x = tensors(6)
    bias += np.float32(offset)
    thresholds = np.random.default_rng(0).uniform(0, 4, len(bias)).astype(np.float32)
    support = choose(encoder, bias, precision).above(x, thresholds)
    pre = x.astype(np.float64) @ encoder.T.astype(np.float64) + bias
    expected = np.where(pre > thresholds, pre, 0)
    codes = as_dense(support, len(encoder))
    np.testing.assert_array_equal(codes > 0, expected > 0)
    np.testing.assert_allclose(codes, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_batch_without_positive_pre_activations_fires_nowhere(precision):
    encoder, bias, x = tensors(7)
    support = choose(encoder, bias - 1e4, precision).largest(x, 4)
    assert (support.firings, support.tokens) == (0, len(x))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_large_bias_and_equal_rows_are_decided_by_the_smaller_latent(precision):
    encoder, bias, x = np.ones((8, 4), np.float32), np.full(8, 100, np.float32), np.ones((2, 4), np.float32)
    support = choose(encoder, bias, precision).largest(x, 3)
    assert [sorted(row) for row in support.latents.reshape(2, 3).tolist()] == [[0, 1, 2]] * 2
    assert (support.values == 104).all()


def test_rounding_equals_torch_and_its_loss_is_the_norm_of_the_difference():
    rows = np.random.default_rng(0).standard_normal((50, 30)).astype(np.float32)
    rounded, norms = np.empty((50, 30), np.int16), np.empty((2, 50), np.float32)
    round_rows(0, 50, rows, rounded, norms)
    expected = torch.from_numpy(rows).bfloat16()
    np.testing.assert_array_equal(rounded, expected.view(torch.int16).numpy())
    np.testing.assert_allclose(norms[0], expected.float().norm(dim=1), rtol=1e-5)
    np.testing.assert_allclose(norms[1], (torch.from_numpy(rows) - expected.float()).norm(dim=1), rtol=1e-4)


@pytest.mark.parametrize(("width", "k", "height"), [(16_384, 32, 32), (1024, 8, 16), (96, 5, 2), (37, 2, 1), (8, 8, 1)])
def test_blocks_divide_the_width_and_outnumber_the_choice(width, k, height):
    assert block_height(width, k) == height


def test_an_encoder_that_is_not_finite_is_noticed():
    encoder, bias, _ = tensors(8)
    encoder[3, 3] = np.nan
    assert not choose(encoder, bias, "bf16").finite()


@pytest.mark.parametrize("precision", PRECISIONS)
def test_some_latents_alone_equal_an_encoder_of_these(precision):
    encoder, bias, x = tensors(9, width=128)
    some = np.array([3, 17, 18, 90, 127])
    codes = as_dense(choose(encoder, bias, precision).among(some).largest(x, 3), 5)
    np.testing.assert_array_equal(codes, as_dense(choose(encoder[some], bias[some], precision).largest(x, 3), 5))


def test_many_kept_latents_are_in_order():
    encoder, bias, x = tensors(10, width=900, tokens=5)
    support = choose(encoder, bias, "bf16").largest(x, 400)
    np.testing.assert_allclose(as_dense(support, 900), dense_codes(encoder, bias, x, 400), rtol=2e-5, atol=2e-5)
