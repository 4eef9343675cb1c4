"""The sparse step of archetypal and frozen atoms against automatic differentiation: values and gradients, fp32."""

from typing import Any

import numpy as np
import pytest
import torch
from method_tools import SHORT, in_torch, planted, started

from conceptbench.dictionaries.autoencoder_sparse import SparseAutoencoderLearner

TOKENS = planted(4_096, 1)
METHODS: dict[str, dict[str, Any]] = {
    "archetypal": {"candidates": 64},
    "archetypal-strict": {"candidates": 64, "relaxation": 0.0},
    "frozen": {},
    "jump-relu": {"sparsity": 0.05, "threshold": 0.6, "bandwidth": 0.5, "k": None},
    "jump-relu-tanh": {"sparsity": 0.05, "threshold": 0.6, "bandwidth": 0.5, "penalty": "tanh"},
    "jump-relu-target": {"sparsity": 0.5, "threshold": 0.6, "bandwidth": 0.5, "penalty": "target"},
    "jump-relu-wide": {"sparsity": 0.05, "threshold": 0.6, "bandwidth": 2.0},
}


def options_of(name: str) -> dict[str, Any]:
    method = "jump-relu" if name.startswith("jump") else name.partition("-")[0]
    return {**SHORT, "k": 3, **METHODS[name], "method": method, "width": 96}


def steps(learner: Any, count: int) -> list[Any]:
    return [learner.step(torch.from_numpy(TOKENS[start : start + 128])) for start in range(0, count * 128, 128)]


@pytest.fixture
def always_sparse(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many latents fire."""
    monkeypatch.setattr("conceptbench.dictionaries.jump_relu.DENSE_SHARE", 1.0)


@pytest.mark.usefixtures("always_sparse")
@pytest.mark.parametrize("name", sorted(METHODS))
def test_gradients_equal_those_of_torch(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One step with dead latents: the gradient of every parameter, before Adam, within 1e-4 of its largest value."""
    options = options_of(name) | {"dead_tokens": 1, "aux_alpha": 0.5}
    (_, fast), (_, slow) = started(TOKENS, **options), in_torch(TOKENS, **options)
    assert isinstance(fast, SparseAutoencoderLearner)
    found = []
    for learner in (fast, slow):
        learner._clock._silent[::2] = 10
        monkeypatch.setattr(learner, "_apply", lambda: None)
        report = learner.step(torch.from_numpy(TOKENS[:128]))
        parameters = [tensor for group in learner._optimiser.param_groups for tensor in group["params"]]
        found.append((report, [tensor.grad for tensor in parameters]))
    (ours, one), (theirs, other) = found
    assert ours.loss == pytest.approx(theirs.loss, rel=1e-4) and ours.fvu == pytest.approx(theirs.fvu, rel=1e-4)
    assert ours.l0 == theirs.l0 and ours.dead_share == theirs.dead_share
    assert len(one) == len(other) >= 3
    for gradient, expected in zip(one, other, strict=True):
        torch.testing.assert_close(gradient, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
        assert float(expected.abs().max()) > 0


@pytest.mark.usefixtures("always_sparse")
@pytest.mark.parametrize("name", sorted(METHODS))
def test_steps_equal_those_of_torch(name: str) -> None:
    """Twelve steps from one start: reports and tensors within 1e-3."""
    options = options_of(name) | {"dead_tokens": 200}
    (_, fast), (_, slow) = started(TOKENS, **options), in_torch(TOKENS, **options)
    for ours, theirs in zip(steps(fast, 12), steps(slow, 12), strict=True):
        assert ours.loss == pytest.approx(theirs.loss, rel=1e-3) and ours.fvu == pytest.approx(theirs.fvu, rel=1e-3)
    one, other = fast.finish(), slow.finish()
    for tensor, value in other.tensors().items():
        np.testing.assert_allclose(one.tensors()[tensor], value, atol=1e-3 * np.abs(value).max() + 1e-6, err_msg=tensor)


@pytest.mark.parametrize("options", [{}, {"threshold": 2.0}, {"bandwidth": 2.0}])
def test_a_dense_step_is_taken_where_it_must(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Many latents in their windows, few of them, and windows that reach below 0."""
    _, learner = started(TOKENS, **(options_of("jump-relu") | {"threshold": 0.3} | options))
    dense, original = [], learner._pre  # type: ignore[attr-defined]
    monkeypatch.setattr(learner, "_pre", lambda x: dense.append(x) or original(x))
    steps(learner, 2)
    assert len(dense) == (0 if options == {"threshold": 2.0} else 2)


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_nothing_of_the_size_of_tokens_times_latents_is_differentiated(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No pre-activations are computed by torch, whatever proposes the candidates."""
    monkeypatch.setattr("conceptbench.dictionaries.candidates.resolve", lambda _: precision)
    _, learner = started(TOKENS, **options_of("frozen"))
    monkeypatch.setattr(learner, "_pre", lambda x: pytest.fail("dense pre-activations"))
    before = learner._decoder.atoms().clone()  # type: ignore[attr-defined]
    assert [report.l0 for report in steps(learner, 3)] == [3, 3, 3]
    assert torch.equal(learner._decoder.atoms(), before), "frozen atoms stay"  # type: ignore[attr-defined]
