"""Sparse coding by orthogonal matching pursuit against independent references; the rule `Pursue` in a dictionary."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls
from sklearn.linear_model import orthogonal_mp_gram

from conceptbench.dictionaries import Dictionary, Normaliser, load_dictionary
from conceptbench.dictionaries.omp import omp_encode, split_signs
from conceptbench.dictionaries.omp_kernels import _drop
from conceptbench.dictionaries.rules import Pursue
from conceptbench.errors import ConceptBenchError


def units(m, d, seed):
    rows = np.random.default_rng(seed).standard_normal((m, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def noisy_signals(atoms, n, k, noise, seed, signed=False):
    """k-sparse signals with coefficients in [1, 2] and noise of a given relative norm; returns (signals, supports)."""
    rng = np.random.default_rng(seed)
    supports = np.array([rng.choice(len(atoms), k, replace=False) for _ in range(n)])
    values = 1 + rng.random((n, k))
    if signed:
        values *= rng.choice([-1, 1], (n, k))
    clean = np.einsum("nk,nkd->nd", values, atoms[supports].astype(np.float64))
    errors = rng.standard_normal(clean.shape)
    scale = noise * np.linalg.norm(clean, axis=1, keepdims=True) / np.linalg.norm(errors, axis=1, keepdims=True)
    return (clean + scale * errors).astype(np.float32), supports


def reconstruct(indices, values, atoms):
    return np.einsum("nk,nkd->nd", np.where(indices >= 0, values, 0).astype(np.float64), atoms[indices])


def positive_reference(y, atoms, k):
    """The same non-negative pursuit, slowly: scipy's exact non-negative least squares on the support at every step."""
    support: list[int] = []
    values = np.zeros(0)
    for _ in range(4 * k):
        along = atoms @ (y - values @ atoms[support])
        along[support] = -np.inf
        atom = int(along.argmax())
        if len(support) == k or along[atom] <= 1e-5 * (atoms @ y).max():
            break
        support.append(atom)
        values, _ = nnls(atoms[support].T, y, maxiter=1000)
        support = [j for j, value in zip(support, values, strict=True) if value > 0]
        values = values[values > 0]
    return dict(zip(support, values, strict=True))


@pytest.mark.parametrize("noise", [0.0, 0.3, 0.8])
def test_signed_pursuit_is_that_of_scikit_learn(noise):
    atoms = units(192, 64, 0)
    y, _ = noisy_signals(atoms, 200, 8, noise, 1, signed=True)
    wide, signals = atoms.astype(np.float64), y.astype(np.float64)
    dense = orthogonal_mp_gram(wide @ wide.T, wide @ signals.T, n_nonzero_coefs=8).T
    indices, values = omp_encode(y, atoms, 8)
    ours, reference = signals - reconstruct(indices, values, atoms), signals - dense @ wide
    np.testing.assert_allclose(np.linalg.norm(ours, axis=1), np.linalg.norm(reference, axis=1), rtol=1e-4, atol=1e-4)
    same = [set(np.flatnonzero(row)) == set(found.tolist()) for row, found in zip(dense, indices, strict=True)]
    assert np.mean(same) >= (0.99 if noise else 0.9), "float32 may break a near tie in another way"
    agree = np.flatnonzero(same)
    np.testing.assert_allclose(np.take_along_axis(dense, indices, 1)[agree], values[agree], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("k", [3, 10])
@pytest.mark.parametrize("sign", ["split", "positive"])
def test_exact_recovery_without_noise(k, sign):
    atoms = units(2000, 1000, 2)
    y, supports = noisy_signals(atoms, 40, k, 0.0, 3, signed=sign == "split")
    indices, values = omp_encode(y, atoms, k, sign)
    np.testing.assert_array_equal(np.sort(indices, 1), np.sort(supports, 1))
    np.testing.assert_allclose(reconstruct(indices, values, atoms), y, atol=2e-5)


@given(
    d=st.integers(2, 24), m=st.integers(1, 40), k=st.integers(1, 12), n=st.integers(1, 9), seed=st.integers(0, 2**31),
    sign=st.sampled_from(["split", "positive"]),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_laws_of_both_pursuits(d, m, k, n, seed, sign):
    """k at most, no atom twice, spare slots empty, residual orthogonal to the support, never worse than nothing."""
    k = min(k, m)
    atoms = units(m, d, seed)
    y = np.random.default_rng(seed + 1).standard_normal((n, d)).astype(np.float32)
    indices, values = omp_encode(y, atoms, k, sign)
    assert indices.shape == values.shape == (n, k)
    residual = y - reconstruct(indices, values, atoms)
    assert (np.linalg.norm(residual, axis=1) <= np.linalg.norm(y, axis=1) * (1 + 1e-4)).all()
    for row, found, coefficients in zip(residual, indices, values, strict=True):
        used = found[found >= 0]
        assert len(set(used.tolist())) == len(used)
        assert (coefficients[found < 0] == 0).all()
        conditioned = len(used) == 0 or np.linalg.cond(atoms[used].astype(np.float64)) < 100
        assert not conditioned or np.abs(atoms[used] @ row).max(initial=0) < 1e-3
    assert sign == "split" or (values >= 0).all()


def test_positive_pursuit_is_exact_non_negative_least_squares():
    """Against a slow reference, on coherent atoms, where atoms are often dropped again."""
    rng = np.random.default_rng(5)
    atoms = rng.standard_normal((60, 12)) + 0.7
    atoms = (atoms / np.linalg.norm(atoms, axis=1, keepdims=True)).astype(np.float32)
    y = (rng.standard_normal((150, 12)) + 0.3).astype(np.float32)
    indices, values = omp_encode(y, atoms, 6, "positive")
    signed, _ = omp_encode(y, atoms, 6, "split")
    wide = atoms.astype(np.float64)
    dropped = 0
    for signal, found, coefficients in zip(y.astype(np.float64), indices, values, strict=True):
        expected = positive_reference(signal, wide, 6)
        ours = np.linalg.norm(signal - coefficients[found >= 0] @ wide[found[found >= 0]])
        theirs = np.linalg.norm(signal - sum((v * wide[j] for j, v in expected.items()), np.zeros(12)))
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-3)
        _, least = nnls(wide[found[found >= 0]].T, signal) if (found >= 0).any() else (None, ours)
        assert ours == pytest.approx(least, rel=1e-4, abs=1e-4)
        dropped += int((found < 0).any())
    assert (values >= 0).all()
    assert dropped > 0, "the data must reach the early end, where no atom correlates positively"
    assert not np.array_equal(signed, indices)


def test_every_exchange_shrinks_the_support_whatever_rounding_does():
    """The step to the boundary is a ratio: times its denominator it can miss the coefficient, and none leaves."""
    rng = np.random.default_rng(3)
    gram, p0, size = np.eye(4, dtype=np.float32), np.ones(4, np.float32), 3
    for _ in range(500):
        coefficients, target = rng.random(4), rng.random(4)
        target[rng.integers(size)] *= -1
        feasible = coefficients[:size].copy()
        left = _drop(np.arange(4), coefficients, target, size, gram, p0, np.zeros((4, 4)), np.zeros(4))
        assert left < size
        assert (coefficients[:left] > 0).all() and coefficients[:left].max() <= max(feasible.max(), 1)


def test_spare_slots_zero_signals_and_dependent_atoms():
    atoms = np.concatenate([np.eye(4), np.eye(4)[:1], -np.eye(4)[:1]]).astype(np.float32)
    y = np.array([[0, 0, 0, 0], [2, 0, 0, 0], [1, -3, 0, 0]], np.float32)
    indices, values = omp_encode(y, atoms, 3)
    np.testing.assert_array_equal(indices, [[-1, -1, -1], [0, -1, -1], [1, 0, -1]])
    np.testing.assert_allclose(values, [[0, 0, 0], [2, 0, 0], [-3, 1, 0]], atol=1e-6)
    indices, values = omp_encode(-y, atoms, 3, "positive")
    np.testing.assert_array_equal(indices, [[-1, -1, -1], [5, -1, -1], [1, 5, -1]])


def test_tiles_and_threads_do_not_change_a_code(monkeypatch):
    atoms = units(300, 32, 7)
    y, _ = noisy_signals(atoms, 500, 5, 0.3, 8)
    expected = omp_encode(y, atoms, 5)
    monkeypatch.setattr("conceptbench.dictionaries.omp.TILE_VALUES", 300 * 37)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            for ours, reference in zip(omp_encode(y, atoms, 5), expected, strict=True):
                np.testing.assert_allclose(ours, reference, rtol=1e-4, atol=1e-5)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    ("k", "shape", "value", "message"),
    [
        (0, (2, 8), 0.0, "choose k from 1 to 12"),
        (13, (2, 8), 0.0, "choose k from 1 to 12"),
        (3, (2, 9), 0.0, "do not fit atoms of 8 features"),
        (3, (2, 8), np.nan, "NaN or infinity"),
    ],
)
def test_bad_input_is_one_sentence(k, shape, value, message):
    with pytest.raises(ConceptBenchError, match=message):
        omp_encode(np.full(shape, value, np.float32), units(12, 8, 0), k)


def test_split_signs_keeps_the_sum():
    indices = np.array([[3, 0, -1], [1, 2, 0]], np.int32)
    values = np.array([[-2, 1, 0], [0.5, -1, -3]], np.float32)
    latents, positive = split_signs(indices, values, 4, "split")
    np.testing.assert_array_equal(latents, [[-1, 0, 7], [1, 4, 6]])
    np.testing.assert_array_equal(positive, np.array([[0, 1, 2], [0.5, 3, 1]], np.float32))
    assert (split_signs(indices, np.abs(values), 4, "positive")[0] == [[-1, 0, 3], [0, 1, 2]]).all()


@pytest.mark.parametrize("sign", ["split", "positive"])
def test_dictionary_encodes_by_pursuit_and_keeps_its_rule(sign, tmp_path):
    half = units(40, 16, 9)
    atoms = np.concatenate([half, -half]) if sign == "split" else half
    mean = np.random.default_rng(10).standard_normal(16).astype(np.float32)
    zeros = np.zeros(len(atoms), np.float32)
    dictionary = Dictionary(atoms, atoms.copy(), zeros, mean, Normaliser(mean, 2.0), Pursue(4, sign))
    y, _ = noisy_signals(half, 30, 4, 0.2, 11, signed=sign == "split")
    x = 2 * (y + mean) + mean
    codes = dictionary.encode(x.reshape(10, 3, 16))
    indices, values = omp_encode(y, half, 4, sign)
    np.testing.assert_allclose(
        dictionary.decode(codes), 2 * (reconstruct(indices, values, half) + mean) + mean, atol=1e-3
    )
    assert codes.shape == (10, 3, len(atoms))
    assert np.diff(codes.indptr).max() == 4
    dictionary.save(tmp_path)
    loaded = load_dictionary(tmp_path)
    assert loaded.rule == Pursue(4, sign)
    np.testing.assert_array_equal(loaded.encode(x).indices, codes.indices)


def test_the_best_pair_of_orthogonal_atoms_is_found():
    """On orthonormal atoms the pursuit is the best k-term approximation; all pairs are tried."""
    atoms, _ = np.linalg.qr(np.random.default_rng(12).standard_normal((6, 6)))
    y = np.random.default_rng(13).standard_normal((20, 6)).astype(np.float32)
    indices, _ = omp_encode(y, atoms.astype(np.float32), 2)
    for signal, found in zip(y, indices, strict=True):
        energy = {pair: np.square(atoms[list(pair)] @ signal).sum() for pair in itertools.combinations(range(6), 2)}
        assert tuple(sorted(found.tolist())) == max(energy, key=energy.get)
