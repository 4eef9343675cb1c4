"""JumpReLU: pseudo-gradients against the formula, the three penalties, thresholds in the file."""

from pathlib import Path

import numpy as np
import pytest
import torch
from method_tools import SHORT, dense_codes, dense_pre, planted, trained

from conceptbench.dictionaries import load_dictionary, specify
from conceptbench.dictionaries.jump_relu import Jump, firings, jump
from conceptbench.dictionaries.rules import KeepAbove
from conceptbench.dictionaries.specs import JumpRelu

TOKENS, HELD_OUT = planted(8_192, 1), planted(2_048, 2)
EPSILON = 0.5


def drawn() -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    random = np.random.default_rng(3)
    pre = torch.from_numpy(random.standard_normal((30, 8))).requires_grad_()
    threshold = torch.from_numpy(random.uniform(0.2, 0.8, 8)).requires_grad_()
    return pre, threshold, random.standard_normal((30, 8))


def window(pre: torch.Tensor, threshold: torch.Tensor) -> np.ndarray:
    """K((h - theta) / eps) of the unit rectangle."""
    scaled = (pre.detach().numpy() - threshold.detach().numpy()) / EPSILON
    return (np.abs(scaled) <= 0.5).astype(float)


def test_codes_and_their_pseudo_gradients() -> None:
    pre, threshold, upstream = drawn()
    codes = jump(pre, threshold, EPSILON)
    codes.backward(torch.from_numpy(upstream))
    h, theta = pre.detach().numpy(), threshold.detach().numpy()
    np.testing.assert_array_equal(codes.detach().numpy(), np.where(h > theta, h, 0))
    assert pre.grad is not None and threshold.grad is not None
    np.testing.assert_allclose(pre.grad.numpy(), upstream * (h > theta))
    expected = -(theta / EPSILON) * (upstream * window(pre, threshold)).sum(0)
    np.testing.assert_allclose(threshold.grad.numpy(), expected)
    assert np.abs(expected).min() > 0


def test_firings_and_their_pseudo_gradients() -> None:
    pre, threshold, upstream = drawn()
    firings(pre, threshold, EPSILON).backward(torch.from_numpy(upstream))
    assert pre.grad is None and threshold.grad is not None
    np.testing.assert_allclose(threshold.grad.numpy(), -(upstream * window(pre, threshold)).sum(0) / EPSILON)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"penalty": "l0"}, lambda codes: 0.7 * (codes > 0).sum() / 20),
        ({"penalty": "target", "k": 2}, lambda codes: 0.7 * ((codes > 0).sum() / 20 / 2 - 1) ** 2),
        ({"penalty": "tanh", "tanh_scale": 3.0}, lambda codes: 0.7 * np.tanh(3 * codes).sum() / 20),
        ({"penalty": "l0", "sparsity_warmup_steps": 4}, lambda codes: 0.7 / 2 * (codes > 0).sum() / 20),
    ],
)
def test_penalties_are_what_they_say(options, expected) -> None:
    spec = specify(name="x", method="jump-relu", width=8, sparsity=0.7, threshold=0.3, **options)
    assert isinstance(spec, JumpRelu)
    selection = Jump(spec, torch.device("cpu"))
    pre = torch.randn(20, 8, generator=torch.Generator().manual_seed(1))
    codes = selection.codes(pre)
    penalty = selection.penalty(pre, codes, step=1)
    assert float(penalty.detach()) == pytest.approx(expected(codes.detach().numpy()), rel=1e-5)


def test_thresholds_move_apart_and_are_saved(tmp_path: Path) -> None:
    learnt = trained(TOKENS, HELD_OUT, method="jump-relu", sparsity=0.02, epochs=2, **SHORT)
    learnt.save(tmp_path)
    read = load_dictionary(tmp_path)
    assert isinstance(read.rule, KeepAbove)
    assert (read.rule.thresholds > 0).all() and np.unique(read.rule.thresholds).size > 20
    pre = dense_pre(read, HELD_OUT)
    np.testing.assert_allclose(dense_codes(read, HELD_OUT), np.where(pre > read.rule.thresholds, pre, 0), atol=1e-4)


def test_more_weight_means_fewer_firings_and_a_target_is_met() -> None:
    shared = SHORT | {"method": "jump-relu", "epochs": 4}
    l0 = [trained(TOKENS, HELD_OUT, sparsity=weight, **shared).card["metrics"]["l0"] for weight in (0.001, 0.03)]
    aimed = trained(TOKENS, HELD_OUT, sparsity=1.0, penalty="target", k=4, **shared).card["metrics"]["l0"]
    assert l0[1] < 0.7 * l0[0]
    assert aimed == pytest.approx(4, rel=0.15)
