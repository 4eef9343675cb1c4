"""k-means, ICA, semi-NMF and the sample they are fitted to."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from method_tools import ATOMS, D, dense_codes, planted, started, trained
from sklearn.cluster import MiniBatchKMeans

from conceptbench.dictionaries.rules import Assign
from conceptbench.dictionaries.sampling import Reservoir
from conceptbench.dictionaries.semi_nmf import update
from conceptbench.errors import ConceptBenchError

TOKENS, HELD_OUT = planted(8_192, 1), planted(2_048, 2)


def test_k_means_replaces_a_token_by_its_nearest_centre() -> None:
    """One latent fires with the value 1, and the FVU is that of the distances to the nearest centres."""
    learnt = trained(TOKENS, HELD_OUT, method="k-means", width=50)
    assert isinstance(learnt.rule, Assign)
    codes = dense_codes(learnt, HELD_OUT)
    assert set(np.unique(codes)) == {0, 1} and (codes.sum(1) == 1).all()
    centres = learnt.normaliser.invert(learnt.atoms + learnt.decoder_bias)
    distances = np.linalg.norm(HELD_OUT[:, None] - centres[None], axis=2)
    np.testing.assert_array_equal(codes.argmax(1), distances.argmin(1))
    fvu = np.square(distances.min(1)).sum() / np.square(HELD_OUT - HELD_OUT.mean(0)).sum()
    assert learnt.card["metrics"]["fvu"] == pytest.approx(fvu, rel=1e-4)
    assert learnt.card["metrics"]["l0"] == 1


def test_k_means_is_scikit_learns() -> None:
    """As good as an independent call on the same tokens, within the noise of its start."""
    learnt = trained(TOKENS, TOKENS, method="k-means", width=50)
    theirs = MiniBatchKMeans(50, random_state=1, n_init=1, batch_size=4096).fit(TOKENS)
    fvu = theirs.inertia_ / np.square(TOKENS - TOKENS.mean(0)).sum()
    assert learnt.card["metrics"]["fvu"] == pytest.approx(fvu, rel=0.05)


def test_ica_codes_are_the_signed_sources() -> None:
    """With every component kept both ways the codes reconstruct exactly; atoms come in opposite pairs."""
    learnt = trained(TOKENS, HELD_OUT, method="ica", k=D)
    assert learnt.width == 2 * D and learnt.card["fit"]["converged"]
    np.testing.assert_array_equal(learnt.atoms[:D], -learnt.atoms[D:])
    codes = dense_codes(learnt, HELD_OUT)
    assert not ((codes[:, :D] > 0) & (codes[:, D:] > 0)).any()
    np.testing.assert_allclose(learnt.reconstruct(HELD_OUT), HELD_OUT, atol=1e-3)
    sources = codes[:, :D] - codes[:, D:]
    correlations = np.corrcoef(sources.T) - np.eye(D)
    assert np.abs(correlations).max() < 0.1


def test_ica_says_when_it_has_not_converged() -> None:
    learnt = trained(TOKENS, HELD_OUT, method="ica", k=2, max_iter=1)
    assert learnt.card["fit"] == {"tokens": 8_192, "iterations": 1, "converged": False}
    with pytest.raises(ConceptBenchError, match=f"asks for {D + 1} of {D} available"):
        started(TOKENS, method="ica", k=2, components=D + 1)


@given(st.integers(2, 8), st.integers(2, 8), st.integers(0, 2**31))
def test_semi_nmf_never_raises_its_error(width: int, d: int, seed: int) -> None:
    """The law of the multiplicative update, from any non-negative start; codes stay non-negative."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(60, d, generator=generator, dtype=torch.float64)
    codes = torch.rand(60, width, generator=generator, dtype=torch.float64) + 0.1
    errors = []
    for _ in range(6):
        codes, atoms = update(x, codes)
        errors.append(float((x - codes @ atoms).square().sum()))
    total = float(x.square().sum())
    assert bool((codes >= 0).all())
    assert all(later <= earlier + 1e-9 * total for earlier, later in pairwise(errors))
    assert errors[-1] <= total * (1 + 1e-9)


def test_semi_nmf_atoms_are_unit_directions_and_codes_few() -> None:
    learnt = trained(TOKENS, HELD_OUT, method="semi-nmf", width=ATOMS, k=4, sample=4_096)
    np.testing.assert_allclose(np.linalg.norm(learnt.atoms, axis=1), 1, rtol=1e-5)
    assert (dense_codes(learnt, HELD_OUT) > 0).sum(1).max() <= 4
    assert learnt.card["metrics"]["fvu"] < 0.6


@pytest.mark.parametrize(("method", "options"), [("k-means", {"width": 64}), ("semi-nmf", {"width": 64, "k": 2})])
def test_too_few_tokens_are_refused(method: str, options: dict) -> None:
    _, learner = started(TOKENS, method=method, sample=64, **options)
    learner.step(torch.from_numpy(TOKENS[:40]))
    with pytest.raises(ConceptBenchError, match="asks for 64 atoms of 40 training tokens"):
        learner.finish()


def reservoir(capacity: int, sizes: list[int], seed: int = 0) -> np.ndarray:
    kept = Reservoir(capacity, 1, torch.Generator().manual_seed(seed))
    stream = iter(torch.arange(float(sum(sizes)))[:, None].split(sizes))
    for batch in stream:
        kept.add(batch)
    return kept.tokens()[:, 0]


@given(st.integers(1, 20), st.lists(st.integers(1, 15), min_size=1, max_size=6))
def test_a_reservoir_keeps_different_tokens_of_the_stream(capacity: int, sizes: list[int]) -> None:
    kept = reservoir(capacity, sizes)
    assert len(kept) == min(capacity, sum(sizes)) == len(set(kept.tolist()))
    np.testing.assert_array_equal(kept, reservoir(capacity, sizes))


def test_every_token_is_as_likely_to_be_kept() -> None:
    """Chi-squared over 40 tokens, 3 of which are kept, in 4,000 draws: 39 degrees of freedom, 99.9 % quantile 72.1."""
    counts = np.zeros(40)
    for seed in range(4_000):
        counts[reservoir(3, [7, 20, 13], seed).astype(int)] += 1
    assert float((np.square(counts - 300) / 300).sum()) < 72.1
    assert not np.array_equal(reservoir(3, [40], 0), reservoir(3, [40], 1))
