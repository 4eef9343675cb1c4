"""BatchTopK: the budget, the calibrated threshold, and what peers get wrong about both."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from method_tools import SHORT, dense_codes, dense_pre, planted, trained

from conceptbench.dictionaries import load_dictionary
from conceptbench.dictionaries.batch_topk import LargestOfBatch
from conceptbench.dictionaries.rules import KeepAbove
from conceptbench.dictionaries.thresholds import calibrate
from conceptbench.errors import ConceptBenchError

TOKENS, HELD_OUT = planted(8_192, 1), planted(4_096, 2)


@given(st.integers(1, 40), st.integers(1, 6), st.integers(0, 2**31))
def test_the_largest_of_the_batch_fire(tokens: int, k: int, seed: int) -> None:
    """Against a sort of all values: the B k largest, where they are positive."""
    pre = torch.from_numpy(np.random.default_rng(seed).standard_normal((tokens, 12)).astype(np.float32))
    codes = LargestOfBatch(k, 12).codes(pre)
    smallest = np.sort(pre.numpy().ravel())[::-1][: tokens * k].min()
    expected = np.where((pre.numpy() >= smallest) & (pre.numpy() > 0), pre.numpy(), 0)
    np.testing.assert_array_equal(codes.numpy(), expected)


def test_gradients_reach_what_fires_and_nothing_else() -> None:
    pre = torch.randn(16, 10, generator=torch.Generator().manual_seed(0)).requires_grad_()
    codes = LargestOfBatch(2, 10).codes(pre)
    (codes * torch.arange(10)).sum().backward()
    assert pre.grad is not None
    torch.testing.assert_close(pre.grad, torch.where(codes > 0, torch.arange(10.0).expand(16, 10), 0.0))


def test_a_batch_without_positive_values_is_safe() -> None:
    pre = (-torch.rand(8, 10)).requires_grad_()
    codes = LargestOfBatch(3, 10).codes(pre)
    codes.sum().backward()
    assert not codes.any() and pre.grad is not None and not pre.grad.any()


@given(st.lists(st.integers(1, 30), min_size=1, max_size=5), st.integers(1, 4), st.integers(0, 2**31))
def test_exactly_k_a_token_exceed_the_threshold(sizes: list[int], k: int, seed: int) -> None:
    """Whatever the tiles; with too few positive values every one of them fires."""
    random = np.random.default_rng(seed)
    tiles = [torch.from_numpy(random.standard_normal((size, 9)).astype(np.float32)) for size in sizes]
    values = torch.cat(tiles)
    threshold = calibrate(iter(tiles), k, at_most=sum(sizes))
    assert int((values > threshold).sum()) == min(k * len(values), int((values > 0).sum()))


def test_calibration_holds_few_values_and_refuses_too_many_tokens() -> None:
    tiles = [torch.rand(50, 20, generator=torch.Generator().manual_seed(i)) for i in range(20)]
    assert int((torch.cat(tiles) > calibrate(iter(tiles), 3, at_most=1_000)).sum()) == 3_000
    with pytest.raises(ConceptBenchError, match="on 1000 tokens, more than 900"):
        calibrate(iter(tiles), 3, at_most=900)


@pytest.mark.parametrize("batch_size", [64, 512])
def test_inference_l0_is_k_after_save_and_load(batch_size: int, tmp_path: Path) -> None:
    """On tokens it has not seen, within 5 %, whatever the size of the training batches."""
    learnt = trained(TOKENS, HELD_OUT, method="batch-topk", k=3, **(SHORT | {"batch_size": batch_size}))
    learnt.save(tmp_path)
    read = load_dictionary(tmp_path)
    assert isinstance(read.rule, KeepAbove) and np.unique(read.rule.thresholds).size == 1
    assert read.rule.thresholds[0] > 0 and "thresholds" in read.tensors()
    assert (dense_codes(read, HELD_OUT) > 0).sum(1).mean() == pytest.approx(3, rel=0.05)
    assert read.card["metrics"]["l0"] == pytest.approx(3, rel=0.05)


def test_codes_are_pre_activations_above_the_threshold() -> None:
    """So a token's code does not depend on its batch: one token alone gets the same."""
    learnt = trained(TOKENS, HELD_OUT, method="batch-topk", k=3, **SHORT)
    assert isinstance(learnt.rule, KeepAbove)
    pre = dense_pre(learnt, HELD_OUT)
    expected = np.where(pre > learnt.rule.thresholds, pre, 0)
    np.testing.assert_allclose(dense_codes(learnt, HELD_OUT), expected, atol=1e-4)
    np.testing.assert_allclose(dense_codes(learnt, HELD_OUT[:1]), expected[:1], atol=1e-4)
    assert len({int(count) for count in (expected > 0).sum(1)}) > 1, "some tokens have more latents than others"
