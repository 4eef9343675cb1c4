"""K-SVD: the update against dense references, its laws, revival, and the learner through the public interface."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from conceptbench.dictionaries import learn, specify
from conceptbench.dictionaries.evaluate import SignalCalculator
from conceptbench.dictionaries.ksvd import TWIN_COSINE, initial_atoms, ksvd_iteration
from conceptbench.dictionaries.ksvd_update import colour, default_block_size, group_by_atom, update_dictionary
from conceptbench.dictionaries.omp import omp_encode
from conceptbench.errors import ConceptBenchError


def units(m, d, seed):
    rows = np.random.default_rng(seed).standard_normal((m, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def signals(atoms, n, k, noise, seed, signed=False):
    rng = np.random.default_rng(seed)
    supports = np.array([rng.choice(len(atoms), k, replace=False) for _ in range(n)])
    values = (1 + rng.random((n, k))) * (rng.choice([-1, 1], (n, k)) if signed else 1)
    clean = np.einsum("nk,nkd->nd", values, atoms[supports])
    return (clean + noise * rng.standard_normal(clean.shape)).astype(np.float32)


def dense(indices, values, m):
    codes = np.zeros((len(indices), m))
    rows, slots = np.nonzero(indices >= 0)
    codes[rows, indices[rows, slots]] = values[rows, slots]
    return codes


def reference_update(y, atoms, codes, order):
    """Serial K-SVD with a dense error matrix and a full singular value decomposition for every atom."""
    y, atoms, codes = y.astype(np.float64), atoms.astype(np.float64), codes.copy()
    for j in order:
        users = np.flatnonzero(codes[:, j])
        if len(users):
            error = y[users] - codes[users] @ atoms + np.outer(codes[users, j], atoms[j])
            left, strength, right = np.linalg.svd(error, full_matrices=False)
            sign = np.sign(left[:, 0] @ codes[users, j])
            atoms[j], codes[users, j] = sign * right[0], sign * strength[0] * left[:, 0]
    return atoms, codes


class FixedOrder:
    """A generator whose only permutation is the identity."""

    def permutation(self, m):
        return np.arange(m)


def problem(n=300, d=20, m=30, k=3, seed=0, signed=True, noise=0.1):
    y = signals(units(m, d, seed), n, k, noise, seed + 1, signed)
    atoms = units(m, d, seed + 2)
    return y, atoms, *omp_encode(y, atoms, k, "split" if signed else "positive")


def test_serial_form_is_exact_k_svd():
    y, atoms, indices, values = problem()
    expected, codes = reference_update(y, atoms, dense(indices, values, 30), range(30))
    update = update_dictionary(y, atoms, indices, values, rng=FixedOrder(), block_size=1, power_steps=400)
    np.testing.assert_allclose(update.atoms, expected, atol=2e-3)
    np.testing.assert_allclose(dense(indices, update.values, 30), codes, atol=5e-3)
    assert update.after == pytest.approx(np.square(y - codes @ expected).sum(), rel=1e-4)


@given(
    n=st.integers(1, 40), d=st.integers(1, 12), m=st.integers(1, 20), k=st.integers(1, 4), steps=st.integers(1, 4),
    seed=st.integers(0, 2**31), sign=st.sampled_from(["split", "positive"]),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_serial_update_never_raises_the_error(n, d, m, k, steps, seed, sign):
    k = min(k, m)
    y = np.random.default_rng(seed).standard_normal((n, d)).astype(np.float32)
    atoms = units(m, d, seed + 1)
    indices, values = omp_encode(y, atoms, k, sign)
    update = update_dictionary(
        y, atoms, indices, values, rng=np.random.default_rng(seed), sign=sign, block_size=1, power_steps=steps
    )
    scale = float(np.square(y).sum())
    assert update.before == pytest.approx(np.square(y - dense(indices, values, m) @ atoms).sum(), abs=1e-4 * scale)
    assert update.after <= update.before + 1e-5 * scale
    recomputed = np.square(y - dense(indices, update.values, m) @ update.atoms).sum()
    assert update.after == pytest.approx(recomputed, abs=1e-4 * scale), "the residual is kept up to date"
    np.testing.assert_allclose(np.linalg.norm(update.atoms, axis=1), 1, atol=1e-5)
    assert (update.values[indices < 0] == 0).all()
    assert sign == "split" or (update.values >= 0).all()
    np.testing.assert_array_equal(update.users, np.bincount(indices[indices >= 0], minlength=m))


def test_parallel_form_ends_within_one_percent_of_the_serial_one():
    """Signals that no dictionary fits exactly, so that the end is not a matter of which atoms happen to be found."""
    y = signals(units(256, 32, 0), 5000, 4, 0.5, 1, signed=True)
    ends = {}
    for size in (1, None, 64):
        atoms, random = initial_atoms(y, 256, np.random.default_rng(2)), np.random.default_rng(3)
        for _ in range(12):
            done = ksvd_iteration(y, atoms, 4, rng=random, block_size=size)
            atoms = done.atoms
        ends[size] = done.after
    assert ends[1] < 0.8 * done_at_start(y), "or the two agree because nothing was learnt"
    assert ends[None] == pytest.approx(ends[1], rel=0.01)
    assert ends[64] == pytest.approx(ends[1], rel=0.01)


def done_at_start(y):
    """Return the squared error of the first coding of that test."""
    return ksvd_iteration(y, initial_atoms(y, 256, np.random.default_rng(2)), 4, rng=np.random.default_rng(3)).before


@pytest.mark.parametrize("users", [0, 1, 2, 3])
def test_few_users(users):
    """The top singular pair of tiny matrices; an atom without users stays."""
    y = np.random.default_rng(4).standard_normal((5, 7)).astype(np.float32)
    atoms = units(2, 7, 5)
    indices = np.where(np.arange(5)[:, None] < users, 0, -1).astype(np.int32)
    values = np.where(indices >= 0, y @ atoms[:1].T, 0).astype(np.float32)
    update = update_dictionary(y, atoms, indices, values, rng=np.random.default_rng(0), block_size=1, power_steps=300)
    np.testing.assert_array_equal(update.atoms[1], atoms[1])
    if not users:
        np.testing.assert_array_equal(update.atoms, atoms)
        return
    strength = np.linalg.svd(y[:users], compute_uv=False)[0]
    assert np.square(y).sum() - update.after == pytest.approx(strength**2, rel=1e-3)


def test_coefficients_of_both_signs_move_and_atoms_keep_their_sign():
    y, atoms, indices, values = problem()
    update = update_dictionary(y, atoms, indices, values, rng=np.random.default_rng(0))
    for negative in (False, True):
        part = (values < 0) == negative
        assert np.mean(np.abs(update.values - values)[part] > 1e-3) > 0.9
    before, after = dense(indices, values, 30), dense(indices, update.values, 30)
    assert ((before * after).sum(0) > 0).all()


def test_blocks_share_few_users_and_hold_every_used_atom_once():
    _, _, indices, _ = problem(n=2000, m=200, k=3)
    start, entries = group_by_atom(indices.ravel(), 200)
    order = np.random.default_rng(1).permutation(200)
    chosen, bounds = colour(order, start, entries, 3, 2000, 10, 0.1)
    np.testing.assert_array_equal(np.sort(chosen), np.unique(indices[indices >= 0]))
    assert np.diff(bounds).max() <= 10
    assert np.diff(bounds).mean() > 4, "or nothing runs in parallel"
    for first, last in pairwise(bounds):
        seen: set[int] = set()
        for atom in chosen[first:last]:
            users = set(np.flatnonzero((indices == atom).any(1)).tolist())
            assert len(users & seen) <= 0.1 * len(users)
            seen |= users
    assert default_block_size(2048, 16) == 32
    assert default_block_size(8, 4) == 1


def test_same_seed_same_result_whatever_the_threads():
    y, atoms, indices, values = problem(n=1000, d=24, m=80)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 2, 2):
            torch.set_num_threads(count)
            found.append(update_dictionary(y, atoms, indices, values, rng=np.random.default_rng(7)))
    finally:
        torch.set_num_threads(threads)
    for other in found[1:]:
        np.testing.assert_array_equal(found[0].atoms, other.atoms)
        np.testing.assert_array_equal(found[0].values, other.values)
    other = update_dictionary(y, atoms, indices, values, rng=np.random.default_rng(8))
    assert not np.array_equal(found[0].atoms, other.atoms), "another seed, another order"


def test_idle_atoms_and_twins_become_the_worst_signals():
    true = units(30, 20, 6)
    true[:, 0] = 0
    true /= np.linalg.norm(true, axis=1, keepdims=True)
    y = signals(np.delete(true, 3, axis=0), 400, 3, 0.0, 7, signed=True)
    atoms = true.copy()
    atoms[3] = np.eye(20)[0]
    atoms[5] = -(atoms[4] + 1e-3 * atoms[6]) / np.linalg.norm(atoms[4] + 1e-3 * atoms[6])
    indices, values = omp_encode(y, atoms, 3)
    update = update_dictionary(y, atoms, indices, values, rng=np.random.default_rng(0))
    done = ksvd_iteration(y, atoms, 3, rng=np.random.default_rng(0))
    assert update.users[3] == 0, "atom 3 is orthogonal to every signal"
    assert min(update.users[4], update.users[5]) > 0, "atoms 4 and 5 are one up to the sign, and both are used"
    assert len(done.revived) == 2
    assert set(done.revived.tolist()) < {3, 4, 5}
    worst = np.argsort(-np.square(y - dense(indices, update.values, 30) @ update.atoms).sum(1))[:2]
    expected = y[worst] / np.linalg.norm(y[worst], axis=1, keepdims=True)
    np.testing.assert_allclose(done.atoms[done.revived], expected, atol=1e-5)
    kept = np.setdiff1d(np.arange(30), done.revived)
    np.testing.assert_array_equal(done.atoms[kept], update.atoms[kept])
    assert np.abs(done.atoms @ done.atoms.T - np.eye(30)).max() < TWIN_COSINE


def test_opposite_atoms_are_no_twins_where_coefficients_are_positive():
    atoms = np.concatenate([np.eye(4), -np.eye(4)]).astype(np.float32)
    y = np.random.default_rng(0).standard_normal((300, 4)).astype(np.float32)
    done = ksvd_iteration(y, atoms, 4, rng=np.random.default_rng(0), sign="positive")
    assert not len(done.revived)
    assert done.before < 1e-6
    assert len(ksvd_iteration(y, atoms, 4, rng=np.random.default_rng(0)).revived) == 0, "nothing is left to fit"


def test_initial_atoms_are_distinct_tokens_or_uniform():
    sample = np.random.default_rng(0).standard_normal((50, 6)).astype(np.float32)
    sample[10] = 0
    atoms = initial_atoms(sample, 49, np.random.default_rng(1))
    cosines = np.abs(atoms @ (sample / np.maximum(np.linalg.norm(sample, axis=1, keepdims=True), 1e-9)).T)
    assert set(cosines.argmax(1).tolist()) == set(range(50)) - {10}
    more = initial_atoms(sample, 60, np.random.default_rng(1))
    np.testing.assert_allclose(np.linalg.norm(more, axis=1), 1, atol=1e-6)
    uniform = initial_atoms(sample, 49, np.random.default_rng(1), "uniform")
    assert np.abs(uniform @ sample.T / np.maximum(np.linalg.norm(sample, axis=1), 1e-9)).max() < 0.9999


def test_recovery_of_a_toy_rises_with_the_known_support():
    """The experiment of KSVD.jl in small: part of the true atoms is given at the start, and K-SVD finds the more."""
    true = units(64, 24, 20)
    y = signals(true, 3000, 3, 0.05, 21, signed=True)
    found = []
    for share in (0.0, 0.5, 1.0):
        known = np.arange(64) < share * 64
        atoms, random = np.where(known[:, None], true, initial_atoms(y, 64, np.random.default_rng(22))), None
        random = np.random.default_rng(23)
        start = float((np.abs(true @ atoms.T).max(1) > 0.95).mean())
        for _ in range(4):
            atoms = ksvd_iteration(y, atoms.astype(np.float32), 3, rng=random).atoms
        found.append(float((np.abs(true @ atoms.T).max(1) > 0.95).mean()))
        assert found[-1] >= start
    assert found[0] < found[1] < found[2]
    assert found[2] > 0.95


def planted(n, seed, m=32, d=16):
    true = units(m, d, 30)
    return signals(true, n, 2, 0.02, seed) + 3, true


TRAIN, TRUE = planted(6000, 31)
HELD_OUT, _ = planted(1000, 32)


def learnt(seed=0, tokens=TRAIN, **options):
    spec = specify(name="ksvd", **({"method": "k-svd", "width": 32, "k": 2, "batch_size": 2000, "epochs": 4} | options))

    def batches(epoch):
        order = np.random.default_rng(epoch).permutation(len(tokens))
        yield from (tokens[order[start : start + 1500]] for start in range(0, len(tokens), 1500))

    return learn(spec, batches, d=16, seed=seed, held_out=HELD_OUT, progress=False)


@pytest.mark.parametrize("sign", ["split", "positive"])
def test_planted_atoms_are_learnt_through_the_public_interface(sign):
    dictionary = learnt(sign=sign, epochs=10)
    assert dictionary.width == (64 if sign == "split" else 32)
    assert ((TRUE @ dictionary.atoms.T).max(1) > 0.95).mean() > 0.8
    metrics = dictionary.card["metrics"]
    assert metrics["fvu"] < 0.1
    assert metrics["l0"] <= 2
    if sign == "split":
        np.testing.assert_array_equal(dictionary.atoms[32:], -dictionary.atoms[:32])


def test_seed_decides_and_uniform_start_learns_too():
    first, again, other = learnt(), learnt(), learnt(seed=1)
    assert first.digest == again.digest != other.digest
    assert learnt(init="uniform", epochs=6).card["metrics"]["fvu"] < 0.2


def test_memory_is_that_of_a_chunk_not_of_the_data(monkeypatch):
    """What an iteration sees is a chunk, and nothing of it is kept for the next."""
    sizes = []

    def spy(y, atoms, k, **options):
        sizes.append(len(y))
        return ksvd_iteration(y, atoms, k, **options)

    monkeypatch.setattr("conceptbench.dictionaries.ksvd.ksvd_iteration", spy)
    learnt(epochs=2)
    assert sizes == [2000] * 6


GROWTH = """
import pathlib, sys
import numpy as np, torch
from conceptbench.dictionaries.ksvd import initial_atoms, ksvd_iteration

def status(name):
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))

torch.set_num_threads(int(sys.argv[1]))
rng = np.random.default_rng(0)
y = rng.standard_normal((200_000, 64)).astype(np.float32)
atoms = initial_atoms(y, 128, rng)
ksvd_iteration(y[:2000], atoms, 2, rng=rng)
pathlib.Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS:")
ksvd_iteration(y, atoms, 2, rng=rng)
print(status("VmHWM:") - before, y.nbytes)
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").is_file(), reason="the peak is reset through Linux's /proc")
def test_memory_does_not_grow_by_the_data_with_every_thread():
    """Less than the data once more is noise; a copy for each of four threads would be three times the data."""
    grown = {}
    for threads in (1, 4):
        done = subprocess.run(
            [sys.executable, "-c", GROWTH, str(threads)], capture_output=True, text=True, check=True,
            env={**os.environ, "NUMBA_NUM_THREADS": "4"},
        )  # fmt: skip
        grown[threads], data = map(int, done.stdout.split())
    assert grown[1] > 0 and grown[4] - grown[1] < data


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k is 0, it must lie in 1..32"),
        ({"k": 33}, "k is 33, it must lie in 1..32"),
        ({"sign": "both"}, "it must be positive or split"),
        ({"block_size": 0}, "block_size is 0"),
        ({"power_steps": 0}, "power_steps is 0"),
        ({"init": "zeros"}, "it must be data or uniform"),
        ({"batch_size": 7000, "epochs": 1}, "fewer than one batch of 7000"),
        ({"width": 7000, "batch_size": 6000}, "asks for 7000 atoms of 6000 training tokens"),
    ],
)
def test_bad_specifications_are_one_sentence(options, message):
    with pytest.raises(ConceptBenchError, match=message):
        learnt(**options)


def test_an_error_of_one_third_recovers_two_thirds_of_the_norm():
    """Tokens at the centre have no signal and are not counted."""
    x = np.random.default_rng(40).standard_normal((100, 8))
    for centre in (np.zeros(8), np.full(8, 3.0)):
        signal = SignalCalculator(centre)
        signal.add_batch(x + centre, x * 2 / 3 + centre)
        signal.add_batch(np.tile(centre, (5, 1)), np.ones((5, 8)))
        assert signal.recovered_norm() == pytest.approx(2 / 3)
    with pytest.raises(ConceptBenchError, match="No tokens to evaluate on"):
        SignalCalculator(np.zeros(8)).recovered_norm()
