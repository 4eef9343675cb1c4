"""The calculators against analytic values, laws and scikit-learn."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import r2_score

from conceptbench.dictionaries.codes import Codes
from conceptbench.dictionaries.evaluate import (
    CosineCalculator,
    FiringCalculator,
    FvuCalculator,
    HoyerCalculator,
    SignalCalculator,
    coherence,
)
from conceptbench.errors import ConceptBenchError


def fvu(x, y, cuts=()):
    calculator = FvuCalculator()
    for left, right in zip(np.split(x, cuts), np.split(y, cuts), strict=True):
        calculator.add_batch(left, right)
    return calculator.compute()


@pytest.fixture
def tokens():
    rng = np.random.default_rng(0)
    return rng.standard_normal((200, 6)) * np.arange(1, 7) + 10 * np.arange(6)


def test_mean_predictor_is_one_and_identity_is_zero(tokens):
    assert fvu(tokens, np.broadcast_to(tokens.mean(0), tokens.shape), [50, 120]) == pytest.approx(1, abs=1e-12)
    assert fvu(tokens, tokens) == 0


def test_global_mean_predictor_is_not_one(tokens):
    """The per-feature mean is what counts: the scalar mean over tokens and features is a worse predictor."""
    assert fvu(tokens, np.full_like(tokens, tokens.mean())) > 2


def test_equals_scikit_learn(tokens):
    y = tokens + np.random.default_rng(1).standard_normal(tokens.shape)
    assert 1 - fvu(tokens, y) == pytest.approx(r2_score(tokens, y, multioutput="variance_weighted"), abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    scale=st.floats(1e-3, 1e3),
    shift=st.floats(-1e3, 1e3),
    cuts=st.lists(st.integers(0, 40), max_size=5).map(sorted),
)
def test_invariant_to_scale_shift_and_split(seed, scale, shift, cuts):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((40, 5))
    y = x + 0.3 * rng.standard_normal((40, 5))
    expected = fvu(x, y)
    assert fvu(scale * x, scale * y) == pytest.approx(expected, rel=1e-9)
    assert fvu(x + shift, y + shift) == pytest.approx(expected, rel=1e-6)
    assert fvu(x, y, cuts) == pytest.approx(expected, rel=1e-9)


def test_large_offset_does_not_cancel():
    x = np.random.default_rng(0).standard_normal((1000, 3)) + 1e6
    y = np.broadcast_to(x.mean(0), x.shape)
    assert fvu(x, y, list(range(10, 1000, 10))) == pytest.approx(1, abs=1e-9)


def test_constant_tokens_are_refused():
    with pytest.raises(ConceptBenchError, match="no variance"):
        fvu(np.ones((5, 2)), np.zeros((5, 2)))


def test_cosine_is_centred():
    x = np.array([[2.0, 1.0], [1.0, 3.0], [1.0, 1.0]])
    calculator = CosineCalculator(np.ones(2))
    calculator.add_batch(x, np.array([[5.0, 1.0], [1.0, -3.0], [7.0, 7.0]]))
    assert calculator.compute() == pytest.approx((1 - 1 + 0) / 3)


def test_firing_counts():
    dense = np.zeros((20, 4), np.float32)
    dense[:, 0] = 1  # dense
    dense[3, 1] = 2  # alive on one token in twenty
    dense[:2, 2] = 1  # exactly at the threshold of density: not above it
    rows, latents = dense.nonzero()
    indptr = np.concatenate([[0], np.cumsum((dense > 0).sum(1))]).astype(np.int64)
    codes = Codes(indptr, latents.astype(np.int32), dense[rows, latents], (10, 2, 4), "x")
    calculator = FiringCalculator(4)
    calculator.add_batch(codes)
    firing = calculator.compute()
    assert (firing.l0, firing.dead_share, firing.dense_share) == (23 / 20, 0.25, 0.25)
    assert firing.histogram().sum() == 4
    assert firing.histogram()[0] == 1


def test_no_tokens_is_an_error():
    for calculator in (FiringCalculator(3), CosineCalculator(np.zeros(2))):
        with pytest.raises(ConceptBenchError, match="No tokens"):
            calculator.compute()


def signal(x, y, centre, cuts=()):
    calculator = SignalCalculator(centre)
    for left, right in zip(np.split(x, cuts), np.split(y, cuts), strict=True):
        calculator.add_batch(left, right)
    return calculator


def test_two_thirds_in_norm_are_eight_ninths_in_energy():
    """Both conventions of the "2/3 against 1/6 of the signal" claim, for errors of the same relative length."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((300, 5))
    x -= x.mean(0)
    for recovered, energy in ((2 / 3, 8 / 9), (1 / 6, 1 - 25 / 36)):
        error = rng.standard_normal(x.shape)
        error *= (
            (1 - recovered) * np.linalg.norm(x, axis=1, keepdims=True) / np.linalg.norm(error, axis=1, keepdims=True)
        )
        assert signal(x, x + error, np.zeros(5), [70]).recovered_norm() == pytest.approx(recovered)
        assert 1 - fvu(x, x + error) == pytest.approx(energy)


def test_signal_and_bias_of_shrunk_tokens(tokens):
    centre = tokens.mean(0)
    shrunk = signal(tokens, centre + 0.6 * (tokens - centre), centre, [3, 150])
    assert shrunk.recovered_norm() == pytest.approx(0.6)
    assert shrunk.bias() == pytest.approx(0.6)
    still = signal(np.r_[tokens, centre[None]], np.r_[tokens, centre[None]], centre)
    assert (still.recovered_norm(), still.bias()) == pytest.approx((1.0, 1.0))
    assert signal(tokens, np.broadcast_to(centre, tokens.shape), centre).bias() is None
    with pytest.raises(ConceptBenchError, match="No tokens"):
        SignalCalculator(centre).recovered_norm()


def hoyer(dense, splits=()):
    dense = np.asarray(dense, np.float32)
    calculator = HoyerCalculator(dense.shape[1])
    for part in np.split(dense, splits):
        rows, latents = np.nonzero(part)
        indptr = np.searchsorted(rows, np.arange(len(part) + 1)).astype(np.int64)
        shape = (len(part), 1, dense.shape[1])
        calculator.add_batch(Codes(indptr, latents.astype(np.int32), part[rows, latents], shape, "x"))
    return calculator.compute()


def test_hoyer_runs_from_all_alike_to_one_latent():
    assert hoyer([[2, 0, 0, 0]]) == pytest.approx(1)
    assert hoyer([[3, 3, 3, 3]]) == pytest.approx(0)
    assert hoyer([[2, 0, 0, 0], [3, 3, 3, 3], [0, 0, 0, 0]], [1]) == pytest.approx(0.5)
    assert hoyer([[0, 0, 0, 0]]) is None and hoyer([[1]]) is None


@pytest.mark.parametrize("width", [2, 7, 40])
def test_coherence_equals_the_whole_table(width, monkeypatch):
    monkeypatch.setattr("conceptbench.dictionaries.evaluate.COHERENCE_ROWS", 6)
    atoms = np.random.default_rng(width).standard_normal((width, 5)).astype(np.float32)
    unit = atoms / np.linalg.norm(atoms, axis=1, keepdims=True)
    cosines = unit @ unit.T
    off = cosines[~np.eye(width, dtype=bool)].reshape(width, width - 1)
    found = coherence(atoms)
    assert found.largest == pytest.approx(np.abs(off).max(), abs=1e-6)
    assert found.mean_nearest == pytest.approx(off.max(1).mean(), abs=1e-6)


def test_coherence_tells_doubles_from_opposites_and_skips_zero_atoms():
    doubled = coherence(np.array([[1, 0], [2, 0], [0, 0], [0, 1]], np.float32))
    assert doubled.largest == pytest.approx(1) and doubled.mean_nearest == pytest.approx(2 / 3)
    opposite = coherence(np.array([[1.0, 0], [-1, 0]], np.float32))
    assert (opposite.largest, opposite.mean_nearest) == pytest.approx((1, -1))
    assert coherence(np.array([[1.0, 0], [0, 0]], np.float32)) is None
