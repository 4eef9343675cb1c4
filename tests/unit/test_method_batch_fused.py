"""The sparse step of BatchTopK and Matryoshka against automatic differentiation: values and gradients, fp32."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from method_tools import SHORT, D, in_torch, planted, started

from conceptbench.dictionaries.batch_fused import BatchSelection, FusedBatchLearner, explain_prefixes
from conceptbench.dictionaries.candidates import Candidates
from conceptbench.dictionaries.support import Support

TOKENS = planted(4_096, 1)
UNEVEN = [5, 27, 11, 21, 3, 29, 13, 19]
"""How often each of eight tokens is repeated, 128 in all, so that equal values straddle the last place."""
PREFIXES = {"batch-topk": {}, "matryoshka": {"prefixes": [0.25, 0.5, 1.0]}}


@pytest.mark.parametrize("method", sorted(PREFIXES))
def test_steps_equal_those_of_torch(method: str) -> None:
    """Twelve steps from one start, dead latents and their auxiliary loss on the way: within 1e-3 of each tensor."""
    options = SHORT | PREFIXES[method] | {"method": method, "k": 3, "dead_tokens": 1, "width": 96}
    (_, fast), (_, slow) = started(TOKENS, **options), in_torch(TOKENS, **options)
    assert isinstance(fast, FusedBatchLearner)
    dead = 0.0
    for start in range(0, 12 * 128, 128):
        batch = torch.from_numpy(TOKENS[start : start + 128])
        one, other = fast.step(batch), slow.step(batch)
        dead = max(dead, one.dead_share)
        assert one.l0 == other.l0 == 3
        assert one.loss == pytest.approx(other.loss, rel=1e-3) and one.fvu == pytest.approx(other.fvu, rel=1e-3)
    assert dead > 0
    ours, theirs = fast.finish(), slow.finish()
    for name, tensor in theirs.tensors().items():
        np.testing.assert_allclose(ours.tensors()[name], tensor, atol=1e-3 * np.abs(tensor).max() + 1e-6, err_msg=name)


@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 2**31))
def test_the_term_is_the_gradient_of_the_nested_loss(tokens: int, per_token: int, seed: int) -> None:
    """Values and gradients of codes, atoms and target against float64 autograd, for three prefixes."""
    random = np.random.default_rng(seed)
    target, atoms = (random.standard_normal(shape).astype(np.float32) for shape in ((tokens, 5), (12, 5)))
    latents = np.sort(random.random((tokens, 12)).argsort(1)[:, :per_token], axis=1).astype(np.int32)
    values = random.uniform(0.1, 1, latents.shape).astype(np.float32)
    support = Support(np.arange(tokens + 1, dtype=np.int64) * per_token, latents.ravel(), values.ravel())
    ends, weight = (3, 7, 12), 0.6
    term, squares, last = explain_prefixes(target, support, atoms, ends, weight)
    x, z, a = (torch.from_numpy(array).double().requires_grad_() for array in (target, values, atoms))
    codes = torch.zeros(tokens, 12, dtype=torch.float64).scatter(1, torch.from_numpy(latents).long(), z)
    residuals = [x - codes[:, :end] @ a[:end] for end in ends]
    mean = torch.stack([e.square().sum() for e in residuals]).mean()
    (weight / 2 * mean).backward()
    assert squares == pytest.approx(float(mean.detach()), rel=1e-5, abs=1e-9)
    np.testing.assert_allclose(last, residuals[-1].detach().numpy(), atol=1e-5)
    assert z.grad is not None and x.grad is not None and a.grad is not None
    np.testing.assert_allclose(term.gradients.reshape(values.shape), z.grad.numpy(), atol=1e-5)
    np.testing.assert_allclose(term.weights[:tokens, None] * term.residual[:tokens], x.grad.numpy(), atol=1e-5)
    of_atoms = np.zeros((12, 5))
    rows = term.rows if len(term.rows) else np.repeat(np.arange(tokens), per_token)
    np.add.at(of_atoms, support.latents, -(support.values * term.weights[rows])[:, None] * term.residual[rows])
    np.testing.assert_allclose(of_atoms, a.grad.numpy(), atol=1e-5)


def test_the_floor_never_changes_the_choice() -> None:
    """After a batch of large values one of small values: the same firings as from a fresh start."""
    random = np.random.default_rng(4)
    encoder = torch.from_numpy(random.standard_normal((32, D)).astype(np.float32))
    candidates = Candidates(encoder, torch.zeros(32), "fp32")
    batches = [random.standard_normal((64, D)).astype(np.float32) * size for size in (10, 0.1, 1)]
    warm = BatchSelection(candidates, 2)
    for batch in batches:
        chosen, fresh = warm.choose(batch), BatchSelection(candidates, 2).choose(batch)
        assert chosen.firings == 2 * 64
        for name in ("start", "latents", "values"):
            np.testing.assert_array_equal(getattr(chosen, name), getattr(fresh, name))
    negative = Candidates(torch.zeros(32, D), -torch.ones(32), "fp32")
    assert BatchSelection(negative, 2).choose(batches[0]).firings == 0, "nothing positive, nothing fires"


def test_of_equal_values_the_first_fire() -> None:
    """Repeated tokens tie at the last place; which of them fire depends on their places, not on the floor."""
    random = np.random.default_rng(5)
    encoder = torch.from_numpy(random.standard_normal((32, D)).astype(np.float32))
    candidates = Candidates(encoder, torch.zeros(32), "fp32")
    tied = 0
    for size in range(1, 20):
        warm = BatchSelection(candidates, 2)
        warm.choose(random.standard_normal((64, D)).astype(np.float32) * np.float32(0.1 * size))
        batch = np.repeat(random.standard_normal((8, D)).astype(np.float32), UNEVEN, axis=0)
        chosen, fresh = warm.choose(batch), BatchSelection(candidates, 2).choose(batch)
        for name in ("start", "latents", "values"):
            np.testing.assert_array_equal(getattr(chosen, name), getattr(fresh, name))
        whole = candidates.above(batch, np.zeros(32, np.float32))
        order = np.lexsort((np.arange(whole.firings), -whole.values))[: 2 * len(batch)]
        wanted = np.zeros(whole.firings, bool)
        wanted[order] = True
        expected = whole.keep(wanted)
        np.testing.assert_array_equal(chosen.start, expected.start)
        np.testing.assert_array_equal(chosen.latents, expected.latents)
        tied += (whole.values == expected.values.min()).sum() > (expected.values == expected.values.min()).sum()
    assert tied > 10, "the last place is tied in most of these batches"


@pytest.mark.parametrize("method", sorted(PREFIXES))
def test_repeated_tokens_go_on_bit_for_bit(method: str) -> None:
    """A learner that was stored after any step takes the next one as if it had gone on."""
    options = SHORT | PREFIXES[method] | {"method": method, "k": 3, "dead_tokens": 200}
    (_, whole), (_, second) = (started(TOKENS, **options) for _ in range(2))
    assert isinstance(whole, FusedBatchLearner) and isinstance(second, FusedBatchLearner)
    for at in range(12):
        state = {name: array.copy() for name, array in whole.state().items()}
        batch = torch.from_numpy(np.repeat(TOKENS[8 * at : 8 * at + 8], UNEVEN, axis=0))
        whole.step(batch)
        second.restore(state)
        second._selection._floor = 0.0  # as in a process that has just begun
        second.step(batch)
        for name, array in whole.state().items():
            np.testing.assert_array_equal(second.state()[name], array, err_msg=f"{name} after step {at}")


@pytest.mark.parametrize("method", sorted(PREFIXES))
def test_a_restored_learner_goes_on_bit_for_bit(method: str) -> None:
    options = SHORT | PREFIXES[method] | {"method": method, "k": 3, "dead_tokens": 200}
    (_, whole), (_, first), (_, second) = (started(TOKENS, **options) for _ in range(3))
    assert isinstance(first, FusedBatchLearner) and isinstance(second, FusedBatchLearner)
    batches = [torch.from_numpy(TOKENS[start : start + 128]) for start in range(0, 1024, 128)]
    for batch in batches:
        whole.step(batch)
    for batch in batches[:5]:
        first.step(batch)
    second.restore({name: array.copy() for name, array in first.state().items()})
    for batch in batches[5:]:
        second.step(batch)
    assert second.finish().digest == whole.finish().digest
