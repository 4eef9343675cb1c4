"""Recovery scores on planted dictionaries: the truth scores 1, chance 0, and every way of failing shows as itself."""

from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.optimize import nnls
from sklearn.metrics import precision_recall_fscore_support

from conceptbench.dictionaries.synthetic import World, WorldSpec
from conceptbench.measures.oracle import project, pursue
from conceptbench.measures.recovery import align, alignment_scores, chance_mcc, over_chance
from conceptbench.measures.recovery_firing import (
    Side,
    absorption_scores,
    firing_scores,
    match_firing,
    shrinkage_scores,
    splitting_scores,
)

WORLD = World.draw(WorldSpec(name="test", features=32, d=16, l0=3.0), 0)
A, B = WORLD.tokens("a", 3000), WORLD.tokens("b", 3000)
ALL = np.arange(32)


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def csr(dense: np.ndarray) -> sparse.csr_array:
    return sparse.csr_array(dense)


def test_the_true_dictionary_scores_one_in_any_order() -> None:
    order = rng().permutation(32)
    found = align(WORLD.atoms, 3.0 * WORLD.atoms[order], ALL)
    scores = alignment_scores(found, 32, chance_mcc(WORLD.atoms, 32, rng()))
    for name in scores.keys() - {"mcc_recall_null"}:
        np.testing.assert_allclose(scores[name], 1.0, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(order[found.latent], ALL)


def test_atoms_that_point_the_other_way_find_nothing() -> None:
    orthogonal = np.eye(16)
    found = align(orthogonal, -orthogonal, np.arange(16))
    assert found.cosine.tolist() == [0.0] * 16 and set(found.latent) == {-1}


def test_random_dictionaries_score_at_the_null() -> None:
    chance = chance_mcc(WORLD.atoms, 48, rng())
    assert 0.3 < chance < 0.7, "in 16 dimensions random directions come close by luck"
    scores = [
        alignment_scores(align(WORLD.atoms, draw.standard_normal((48, 16)), np.arange(48)), 48, chance)
        for draw in map(np.random.default_rng, range(1, 33))
    ]
    for name in ("mcc_recall_over_null", "mcc_precision_over_null"):
        assert np.mean([score[name].mean() for score in scores]) == pytest.approx(0, abs=0.02)


def test_missing_atoms_cost_recall_and_spare_latents_cost_precision() -> None:
    orthogonal = np.eye(16)
    half = alignment_scores(align(orthogonal, orthogonal[:8], np.arange(8)), 8, 0.0)
    assert half["mcc_recall"].mean() == 0.5 and half["mcc_precision"].mean() == 1.0
    twice = np.concatenate([orthogonal, orthogonal])
    copied = alignment_scores(align(orthogonal, twice, np.arange(32)), 32, 0.0)
    assert copied["recall_at_0.90"].mean() == 1.0 and copied["precision_at_0.90"].mean() == 0.5
    dead = align(orthogonal, twice, np.arange(4))
    assert dead.cosine.sum() == 4.0, "only live latents count"


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_alignment_is_the_best_assignment_and_ignores_order_and_scale(seed: int) -> None:
    draw = np.random.default_rng(seed)
    atoms, learnt = draw.standard_normal((4, 5)), draw.standard_normal((5, 5))
    unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (atoms, learnt)]
    cosines = np.maximum(unit[0] @ unit[1].T, 0)
    best = max(sum(cosines[i, j] for i, j in enumerate(order)) for order in permutations(range(5), 4))
    assert align(atoms, learnt, np.arange(5)).cosine.sum() == pytest.approx(best)
    shuffled = draw.permutation(5)
    again = align(atoms, 2.5 * learnt[shuffled], np.arange(5))
    assert again.cosine.sum() == pytest.approx(best)


def test_over_chance_maps_chance_to_zero_and_one_to_one() -> None:
    np.testing.assert_allclose(over_chance(np.array([0.25, 1.0, 0.0]), 0.25), [0, 1, -1 / 3])
    assert np.isnan(over_chance(np.ones(1), 1.0)).all()


def test_true_codes_fire_perfectly_and_shuffled_ones_at_the_null() -> None:
    perfect, latent = firing_scores(Side(A.codes, A.codes), Side(B.codes, B.codes), rng())
    np.testing.assert_array_equal(latent, ALL)
    assert (perfect["f1"] == 1).all() and (perfect["f1_over_null"] == 1).all()
    assert 0.02 < perfect["f1_null"].mean() < 0.2
    lost = [csr(side.codes.toarray()[rng().permutation(3000)]) for side in (A, B)]
    nothing, _ = firing_scores(Side(A.codes, lost[0]), Side(B.codes, lost[1]), np.random.default_rng(5))
    assert nothing["f1_over_null"].mean() == pytest.approx(0, abs=0.02)


def test_firing_is_matched_on_a_and_scored_on_b() -> None:
    swapped = csr(B.codes.toarray()[:, ::-1])
    scores, latent = firing_scores(Side(A.codes, A.codes), Side(B.codes, swapped), rng())
    np.testing.assert_array_equal(latent, ALL)
    assert scores["f1"].mean() < 0.2, "the order of B must not be seen by the matching"


def test_f1_precision_and_recall_equal_scikit_learn() -> None:
    noisy = [np.where(rng().random(side.codes.shape) < 0.1, 1.0, side.codes.toarray()) for side in (A, B)]
    scores, latent = firing_scores(Side(A.codes, csr(noisy[0])), Side(B.codes, csr(noisy[1])), rng())
    for feature in (0, 7, 31):
        expected = precision_recall_fscore_support(
            B.codes.toarray()[:, feature] > 0, noisy[1][:, latent[feature]] > 0, average="binary"
        )
        got = [scores[name][feature] for name in ("firing_precision", "firing_recall", "f1")]
        np.testing.assert_allclose(got, expected[:3])


def test_rare_features_have_no_firing_scores() -> None:
    rare = A.codes.toarray()
    rare[:, 5] = 0
    rare[:9, 5] = 1
    scores, _ = firing_scores(Side(csr(rare), A.codes), Side(B.codes, B.codes), rng())
    assert np.isnan(scores["f1"][5]) and np.isfinite(np.delete(scores["f1"], 5)).all()


def split_in_two(codes: sparse.csr_array, feature: int) -> sparse.csr_array:
    """Two latents that share the firings of one feature by its magnitude."""
    dense = codes.toarray()
    large = dense[:, feature] > 1
    extra = np.where(large, dense[:, feature], 0)
    dense[large, feature] = 0
    return csr(np.column_stack([dense, extra]))


def test_splitting_is_found_where_it_is_planted() -> None:
    a, b = (Side(side.codes, split_in_two(side.codes, 3)) for side in (A, B))
    scores = splitting_scores(a, b)
    assert scores["set_size"][3] == 2 and scores["splitting"].sum() == 1
    np.testing.assert_array_equal(scores["set_f1"], 1.0)
    assert firing_scores(a, b, rng())[0]["f1"][3] < 0.8


def absorbed(codes: sparse.csr_array, parent: int, child: int) -> sparse.csr_array:
    dense = codes.toarray()
    dense[dense[:, child] > 0, parent] = 0
    return csr(dense)


def test_absorption_is_found_where_it_is_planted() -> None:
    spec = WorldSpec(name="tree", features=32, d=16, l0=3.0, exponent=0.7, parents=4, children=2)
    world = World.draw(spec, 0)
    a, b = world.tokens("a", 6000), world.tokens("b", 6000)
    clean, planted = (
        absorption_scores(one, two, match_firing(one), world.parents)
        for one, two in (
            (Side(a.codes, a.codes), Side(b.codes, b.codes)),
            (Side(a.codes, absorbed(a.codes, 1, 6)), Side(b.codes, absorbed(b.codes, 1, 6))),
        )
    )
    assert world.parents[6] == 1
    np.testing.assert_array_equal(clean["absorption"][:4], 0)
    assert np.isnan(planted["absorption"][4:]).all(), "features without children"
    both = b.codes.toarray()[b.codes.toarray()[:, 1] > 0]
    share = (both[:, 6] > 0)[(both[:, [6, 7]] > 0).any(axis=1)].mean()
    assert planted["absorption"][1] == pytest.approx(share)
    assert planted["absorption"][[0, 2, 3]].tolist() == [0, 0, 0]
    assert abs(planted["absorption_null"][1]) < 0.05 < planted["absorption_over_null"][1]


def test_a_latent_that_misses_at_random_absorbs_nothing() -> None:
    world = World.draw(WorldSpec(name="tree", features=32, d=16, l0=3.0, exponent=0.7, parents=4, children=2), 0)
    sides = []
    for split in ("a", "b"):
        tokens = world.tokens(split, 16_000)
        kept = tokens.codes.toarray() * (np.random.default_rng(len(sides)).random(tokens.codes.shape) < 0.7)
        sides.append(Side(tokens.codes, csr(kept)))
    scores = absorption_scores(*sides, match_firing(sides[0]), world.parents)
    assert np.nanmean(scores["absorption_over_null"]) == pytest.approx(0, abs=0.04)


def test_shrinkage_is_the_missing_share_of_the_magnitude() -> None:
    a, b = (Side(side.codes, csr(0.4 * side.codes.toarray())) for side in (A, B))
    scores = shrinkage_scores(a, b, ALL, WORLD.atoms, 2.0 * WORLD.atoms)
    np.testing.assert_allclose(scores["shrinkage"], 0.2, atol=1e-5)
    tilted = shrinkage_scores(Side(A.codes, A.codes), Side(B.codes, B.codes), ALL, WORLD.atoms, -WORLD.atoms)
    np.testing.assert_allclose(tilted["shrinkage"], 2.0, atol=1e-5)


def test_pursuit_finds_the_true_codes_of_tokens_without_noise() -> None:
    world = World.draw(WorldSpec(name="clear", features=24, d=32, l0=2.0, noise=0.0, coherence=0.25), 0)
    tokens = world.tokens("a", 400)
    found = pursue(tokens.x, world.atoms, np.diff(tokens.codes.indptr).astype(np.int64))
    np.testing.assert_allclose(found.toarray(), tokens.codes.toarray(), atol=1e-4)


def test_pursuit_equals_a_plain_loop_with_least_squares() -> None:
    x = A.x[:60].astype(np.float64)
    fires = rng().integers(0, 5, 60)
    found = pursue(x, WORLD.atoms, fires).toarray()
    for row, k in enumerate(fires):
        support: list[int] = []
        values = np.zeros(0)
        for _ in range(k):
            products = WORLD.atoms @ (x[row] - WORLD.atoms[support].T @ values)
            products[support] = -np.inf
            if products.max() <= 0:
                break
            support.append(int(products.argmax()))
            values = np.linalg.lstsq(WORLD.atoms[support].T.astype(np.float64), x[row], rcond=None)[0]
        expected = np.zeros(32)
        expected[support] = np.maximum(values, 0)
        np.testing.assert_allclose(found[row], expected, atol=1e-5)
        if len(support) and (values > 0).all():
            np.testing.assert_allclose(values, nnls(WORLD.atoms[support].T, x[row])[0], atol=1e-5)


def test_projection_keeps_the_largest_positive_products() -> None:
    found = project(A.x[:50], WORLD.atoms, 3).toarray()
    products = A.x[:50] @ WORLD.atoms.T
    for row in range(50):
        kept = np.argsort(-products[row])[:3]
        expected = np.zeros(32)
        expected[kept] = np.maximum(products[row, kept], 0)
        np.testing.assert_allclose(found[row], expected, atol=1e-5)
