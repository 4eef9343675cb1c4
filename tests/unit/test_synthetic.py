"""Synthetic worlds: streams, atoms, firing probabilities, correlation and hierarchy are what the specification says."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from conceptbench.config.synthetic import Synthetic, swept_methods
from conceptbench.config.synthetic import World as WorldSection
from conceptbench.dictionaries.synthetic import (
    CHUNK,
    MOST_OFTEN,
    World,
    WorldSpec,
    firing_probabilities,
    parents_of,
    spread_atoms,
    world_spec,
)
from conceptbench.errors import ConceptBenchError

SMALL = WorldSpec(name="small", features=24, d=12, l0=3.0)


def dense(world: World, count: int = CHUNK) -> np.ndarray:
    return np.asarray(world.tokens("a", count).codes.toarray())


def test_tokens_are_sums_of_atoms_and_noise() -> None:
    quiet, loud = (World.draw(replace(SMALL, noise=noise), 1) for noise in (0.0, 0.5))
    tokens = quiet.tokens("a", 500)
    np.testing.assert_allclose(tokens.x, tokens.codes.toarray() @ quiet.atoms, atol=1e-6)
    assert tokens.x.dtype == np.float32 and (tokens.codes.data > 0).all()
    noisy = loud.tokens("a", CHUNK)
    rest = noisy.x - noisy.codes.toarray() @ loud.atoms
    assert np.sqrt(np.square(rest).sum(axis=1).mean()) == pytest.approx(0.5, rel=0.02)
    assert np.abs(np.corrcoef(rest.T) - np.eye(12)).max() < 0.06


def test_streams_depend_on_names_and_seeds_and_not_on_how_much_is_asked_for() -> None:
    world = World.draw(SMALL, 3)
    few, many = world.tokens("a", 100), world.tokens("a", CHUNK + 100)
    np.testing.assert_array_equal(few.x, many.x[:100])
    assert many.x.shape == (CHUNK + 100, 12)
    again = World.draw(SMALL, 3).tokens("a", 100)
    np.testing.assert_array_equal(few.x, again.x)
    others = [world.tokens("b", 100), World.draw(SMALL, 4).tokens("a", 100), World.draw(SMALL, 3, 1).tokens("a", 100)]
    others.append(World.draw(replace(SMALL, name="other"), 3).tokens("a", 100))
    assert all(not np.allclose(few.x, other.x) for other in others)


def test_every_epoch_gives_the_same_tokens_in_another_order() -> None:
    world, total = World.draw(SMALL, 0), 4 * CHUNK + 10
    epochs = [list(world.batches(total)(epoch)) for epoch in (0, 1, 1)]
    assert [sum(map(len, chunks)) for chunks in epochs] == [total] * 3
    first, second, again = (np.concatenate(chunks) for chunks in epochs)
    np.testing.assert_array_equal(second, again)
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first[np.lexsort(first.T)], second[np.lexsort(second.T)])


@given(st.integers(2, 300), st.floats(0, 2), st.floats(0.01, 0.49))
def test_probabilities_sum_to_l0_fall_and_stay_below_the_cap(features: int, exponent: float, share: float) -> None:
    p = firing_probabilities(features, share * features, exponent)
    assert p.sum() == pytest.approx(share * features)
    assert (np.diff(p) <= 1e-12).all() and p[0] <= MOST_OFTEN and p[-1] > 0
    free = p < MOST_OFTEN
    scale = p[free] * np.arange(1, features + 1)[free] ** exponent
    assert np.ptp(scale) <= 1e-9 * scale.max(), "Zipf's law below the cap"


def test_features_fire_as_often_as_they_should_and_independently() -> None:
    world = World.draw(SMALL, 0)
    fires = dense(world, 4 * CHUNK) > 0
    error = np.sqrt(world.probabilities * (1 - world.probabilities) / len(fires))
    assert (np.abs(fires.mean(axis=0) - world.probabilities) < 4.5 * error).all()
    assert np.abs(np.corrcoef(fires.T) - np.eye(24)).max() < 4.5 / np.sqrt(len(fires))


def test_magnitudes_are_folded_normal() -> None:
    magnitudes = World.draw(replace(SMALL, spread=1.5), 0).tokens("a", CHUNK).codes.data
    z = 1 / 1.5
    mean = 1.5 * np.sqrt(2 / np.pi) * np.exp(-(z**2) / 2) + 1 - 2 * norm.cdf(-z)
    assert magnitudes.mean() == pytest.approx(mean, rel=0.02)
    assert set(World.draw(replace(SMALL, spread=0.0), 0).tokens("a", 50).codes.data) == {1.0}


def test_correlated_features_fire_together_as_their_loadings_say() -> None:
    world = World.draw(replace(SMALL, correlation=0.8, rank=1), 2)
    assert set(np.sign(world.loadings).ravel()) == {-1.0, 1.0}
    fires = dense(world, 2 * CHUNK) > 0
    together = np.corrcoef(fires.T)
    same = world.loadings @ world.loadings.T > 0
    off = ~np.eye(24, dtype=bool)
    assert together[same & off].min() > 0.1 > 0 > together[~same].max()
    assert np.abs(fires.mean(axis=0) - world.probabilities).max() < 0.03, "the copula keeps the probabilities"


def test_children_fire_only_with_their_parent_and_as_often_as_they_should() -> None:
    spec = replace(SMALL, features=40, parents=4, children=2, depth=2, exponent=0.8)
    parents = parents_of(spec)
    assert parents[:4].tolist() == [-1] * 4 and parents[4:12].tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert parents[12:16].tolist() == [4, 4, 5, 5] and parents[27:].tolist() == [11, *[-1] * 12]
    world = World.draw(spec, 0)
    fires = dense(world, 4 * CHUNK) > 0
    for child in np.flatnonzero(parents >= 0):
        assert not (fires[:, child] & ~fires[:, parents[child]]).any()
    error = np.sqrt(world.probabilities / len(fires))
    assert (np.abs(fires.mean(axis=0) - world.probabilities) < 4.5 * error).all()


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 100), st.floats(1.3, 2.5))
def test_coherence_is_bounded_and_atoms_stay_unit(seed: int, slack: float) -> None:
    welch = np.sqrt((40 - 16) / (16 * 39))
    atoms = World.draw(WorldSpec(name="tight", features=40, d=16, l0=2, coherence=slack * welch), seed).atoms
    gram = atoms @ atoms.T
    np.testing.assert_allclose(np.diag(gram), 1, atol=1e-5)
    assert np.abs(gram - np.diag(np.diag(gram))).max() <= slack * welch + 1e-5


def test_impossible_coherence_is_refused() -> None:
    with pytest.raises(ConceptBenchError, match=r"'tight': coherence 0\.1 is below the Welch bound 0\.196"):
        WorldSpec(name="tight", features=40, d=16, l0=2, coherence=0.1)
    with pytest.raises(ConceptBenchError, match=r"No 40 atoms in 16 dimensions with a coherence of 0\.15"):
        spread_atoms(World.draw(WorldSpec(name="tight", features=40, d=16, l0=2), 0).atoms, 0.15)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"l0": 13}, "l0 13 must lie in"),
        ({"correlation": 1.0}, r"correlation must lie in \[0, 1\)"),
        ({"parents": 5, "children": 5}, "its hierarchy has 30 features"),
        ({"parents": 2, "exponent": 0.0}, "needs an exponent above 0"),
        ({"noise": -1.0}, "not negative"),
        ({"d": 1}, "at least 2"),
    ],
)
def test_specifications_that_cannot_be_drawn_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConceptBenchError, match=f"'small': .*{message}.*; correct it in the configuration"):
        replace(SMALL, **changes)


def test_the_digest_names_the_specification() -> None:
    assert SMALL.digest == replace(SMALL).digest
    digests = {SMALL.digest, *(replace(SMALL, **{name: 0.3}).digest for name in ("noise", "spread", "correlation"))}
    assert len(digests) == 4


def test_configuration_and_library_have_the_same_fields_and_defaults() -> None:
    library = {field.name: field.default for field in fields(WorldSpec) if field.name != "name"}
    section = {name: field.default for name, field in WorldSection.model_fields.items()}
    assert section == library
    assert world_spec("w", WorldSection().model_dump()) == WorldSpec(name="w")
    with pytest.raises(ConceptBenchError, match=r"Synthetic world 'w': .*colour"):
        world_spec("w", {"colour": 1})


def test_sweeps_name_dictionaries_by_what_varies() -> None:
    from conceptbench.config.dictionaries import Pca, Raw, TopK

    methods = {"topk": TopK(method="topk", width=64, k=4), "raw": Raw(method="raw"), "pca": Pca(method="pca", k=3)}
    plain = swept_methods(Synthetic(), methods)
    assert {name: method for name, (method, _) in plain.items()} == methods
    swept = swept_methods(Synthetic(methods=("topk", "pca"), widths=(32,), ks=(2, 8)), methods)
    assert list(swept) == ["topk-k2", "topk-k8", "pca-k2", "pca-k8"]
    method, origin = swept["topk-k8"]
    assert isinstance(method, TopK) and (method.width, method.k, origin) == (32, 8, "topk")
    with pytest.raises(ValueError, match="width 4 is smaller than k 8"):
        swept_methods(Synthetic(widths=(4,), ks=(8,)), methods)
