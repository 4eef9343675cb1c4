"""Matching, splitting, absorption, counterfactual specificity and named kinds on planted truth."""

import numpy as np
import pandas as pd
import pytest

from conceptbench.errors import ConceptBenchError
from conceptbench.measures.counterfactual import counterfactual_specificity
from conceptbench.measures.kinds import KindSpec, composition_presence, unite_kinds
from conceptbench.measures.matching import MatchingSpec, match_factors, matched_latents
from conceptbench.measures.sparse import from_dense
from conceptbench.measures.truth import FactorLabels, Side, TruthSpec, side

TRUTH = TruthSpec(prefix_tokens=0, minimum_positive=5)
SPEC = MatchingSpec(n_resamples=200)
NAMES = (("shape", "star"), ("shape", "ring"), ("colour", "red"), ("colour", "blue"))


def one_object_world(seed: int, n: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Factor presence [image, 4] with one shape and one colour an image, and noise codes [image, 1, 12]."""
    rng = np.random.default_rng(seed)
    shape, colour = rng.integers(0, 2, n), rng.integers(0, 2, n)
    present = np.stack([shape == 0, shape == 1, colour == 0, colour == 1], axis=1)
    codes = rng.random((n, 1, 12)) * (rng.random((n, 1, 12)) < 0.2)
    return present, codes


def as_side(present: np.ndarray, codes: np.ndarray) -> Side:
    return side(from_dense(codes), FactorLabels(present, NAMES), TRUTH, False)


def plant(seed: int, kind: str) -> Side:
    present, codes = one_object_world(seed)
    rng = np.random.default_rng(seed + 100)
    codes[:, 0, 0] = present[:, 0] * (1 + rng.random(len(present)))
    star, red = present[:, 0], present[:, 2]
    if kind == "split":
        codes[:, 0, 0] = (star & red) * 1.0
        codes[:, 0, 1] = (star & ~red) * 5.0
    if kind == "absorb":
        absorbed = star & red & (rng.random(len(present)) < 0.7)
        codes[:, 0, 0] = (star & ~absorbed) * 1.0
        codes[:, 0, 1] = absorbed * 1.0
    return as_side(present, codes)


def star_row(kind: str) -> pd.Series:
    table = match_factors(plant(0, kind), plant(1, kind), np.random.default_rng(0), TRUTH, SPEC)
    return table.set_index(["factor", "value"]).loc[("shape", "star")]


def test_one_latent_is_matched_alone() -> None:
    row = star_row("one")
    assert row["one_to_one_latent"] == row["best_latent"] == 0
    assert row["set_size"] == 1
    assert row["best_auroc"] == row["set_auroc"] == 1


def test_a_split_value_takes_both_latents() -> None:
    row = star_row("split")
    assert row["set_size"] == 2
    assert sorted(row["set_latents"].split()) == ["0", "1"]
    assert row["set_auroc"] == 1
    assert row["best_auroc"] < 0.8


def test_one_to_one_gives_every_value_its_own_latent() -> None:
    table = match_factors(plant(0, "split"), plant(1, "split"), np.random.default_rng(0), TRUTH, SPEC)
    assert table["one_to_one_latent"].is_unique


def test_absorption_is_found() -> None:
    row = star_row("absorb")
    assert row["absorbing_context"] == "colour=red"
    assert row["child_latent"] == 1
    assert row["recall_gap"] > 0.5
    assert row["absorption_gap"] > 0.9
    assert row["absorbed"] or row["note"] == "no variation between images"


def test_noise_shows_no_absorption() -> None:
    gaps = []
    for seed in range(6):
        a, b = (as_side(*one_object_world(seed + 10 * s)) for s in (1, 2))
        table = match_factors(a, b, np.random.default_rng(seed), TRUTH, SPEC)
        gaps.append(table)
    table = pd.concat(gaps)
    assert abs(table["absorption_gap"].mean()) < 0.06
    assert abs(table["recall_gap"].mean()) < 0.06
    assert table["absorbed"].mean() < 0.15


def test_matched_latents_are_the_union_over_values() -> None:
    table = pd.DataFrame({"factor": ["shape", "shape", "colour"], "set_latents": ["3 1", "1 5", "9"]})
    assert matched_latents(table, "shape") == [1, 3, 5]


def test_specificity_is_one_when_only_matched_latents_move() -> None:
    rng = np.random.default_rng(0)
    before = rng.random((40, 2, 6)) + 1
    after = before.copy()
    changed = ["shape"] * 20 + ["colour"] * 20
    after[:20, :, :2] += 1
    after[20:, :, 2:4] += rng.random((20, 1, 1))
    matched = {"shape": [0, 1], "colour": [2, 3], "size": [4]}
    table = counterfactual_specificity(
        from_dense(before), from_dense(after), changed, matched, np.random.default_rng(0)
    )
    found = table[table["factor"] == "all"].set_index("statistic")["estimate"]
    assert found["specificity"] == pytest.approx(1, abs=1e-6)
    assert found["null_specificity"] == pytest.approx(0, abs=1e-6)


def test_specificity_of_noise_equals_its_null() -> None:
    rng = np.random.default_rng(1)
    before, after = rng.random((400, 2, 9)), rng.random((400, 2, 9))
    changed = list(rng.choice(["shape", "colour", "size"], 400))
    matched = {"shape": [0, 1, 2], "colour": [3, 4], "size": [5]}
    table = counterfactual_specificity(
        from_dense(before), from_dense(after), changed, matched, np.random.default_rng(0)
    )
    difference = table[(table["factor"] == "all") & (table["statistic"] == "difference")].iloc[0]
    assert difference["low"] < 0 < difference["high"]


def test_pairs_that_do_not_change_are_counted() -> None:
    codes = from_dense(np.ones((3, 2, 2)))
    table = counterfactual_specificity(codes, codes, ["shape"] * 3, {"shape": [0]}, np.random.default_rng(0))
    assert table["note"].str.contains("3 pairs without a change").all()
    with pytest.raises(ConceptBenchError, match="aligned codes"):
        counterfactual_specificity(codes, codes, ["shape"], {"shape": [0]}, np.random.default_rng(0))


SHAPES, COLOURS = ("ring", "star", "square", "cross", "circle"), ("red", "blue", "white", "green", "cyan")
KINDS = {
    "wug": [
        {"shape": "ring", "colour": "red"},
        {"shape": "star", "colour": "blue"},
        {"shape": "square", "colour": "white"},
    ]
}
KIND_SPEC = KindSpec(n_null=20, n_resamples=100)


def kind_world(seed: int, unites: bool, n: int = 600, often: float = 0.0) -> tuple[Side, pd.DataFrame]:
    """One object an image; with probability `often` it is a member of the kind."""
    rng = np.random.default_rng(seed)
    shapes, colours = rng.integers(0, 5, n), rng.integers(0, 5, n)
    member = rng.integers(0, 3, n)
    shapes, colours = np.where(rng.random(n) < often, [member, member], [shapes, colours])
    objects = pd.DataFrame(
        {"image": range(n), "shape": [SHAPES[i] for i in shapes], "colour": [COLOURS[i] for i in colours]}
    )
    codes = np.zeros((n, 1, 12))
    codes[np.arange(n), 0, shapes] = 1 + rng.random(n)
    codes[np.arange(n), 0, 5 + colours] = 1 + rng.random(n)
    if unites:
        codes[:, 0, 11] = composition_presence(objects, range(n), KINDS["wug"]).any(axis=1)
    return side(from_dense(codes), FactorLabels(np.zeros((n, 0), bool), ()), TRUTH, False), objects


def unite(unites: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    (a, objects_a), (b, objects_b) = kind_world(0, unites), kind_world(1, unites)
    images = (range(600), range(600))
    return unite_kinds(a, b, objects_a, objects_b, images, KINDS, np.random.default_rng(0), KIND_SPEC)


def test_a_latent_that_unites_a_kind_beats_random_groups() -> None:
    table, null = unite(True)
    row = table.iloc[0]
    assert row["latent"] == 11
    assert row["estimate"] == 1
    assert row["p"] == pytest.approx(1 / 21)
    assert len(null) == row["n_null"] == 20
    assert row["null_high"] < 0.75


def test_a_frequent_kind_counts_with_as_many_images_as_its_null() -> None:
    images = (range(600), range(600))
    (_, objects_a), (_, objects_b) = kind_world(0, False, often=0.5), kind_world(1, False, often=0.5)
    present = composition_presence(objects_b, images[1], KINDS["wug"]).sum(axis=0)
    p = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        a, b = (
            side(from_dense(rng.random((600, 1, 40))), FactorLabels(np.zeros((600, 0), bool), ()), TRUTH, False)
            for _ in range(2)
        )
        table, null = unite_kinds(a, b, objects_a, objects_b, images, KINDS, np.random.default_rng(0), KIND_SPEC)
        assert set(null["n_positive"]) == {table.loc[0, "n_positive"]} and table.loc[0, "n_positive"] < present.min()
        p.append(table.loc[0, "p"])
    assert 0.3 < np.mean(p) < 0.7


def test_latents_of_shapes_and_colours_do_not_unite_a_kind() -> None:
    row = unite(False)[0].iloc[0]
    assert row["estimate"] < 0.75
    assert row["p"] > 0.05


def test_a_member_without_images_gets_a_note() -> None:
    (a, objects_a), (b, objects_b) = kind_world(0, True), kind_world(1, True)
    kinds = {"none": [{"shape": "ring", "colour": "pink"}, {"shape": "star", "colour": "blue"}]}
    images = (range(600), range(600))
    table, _ = unite_kinds(a, b, objects_a, objects_b, images, kinds, np.random.default_rng(0), KIND_SPEC)
    assert "fewer than 5 images" in table.loc[0, "note"]


def test_a_composition_needs_one_object_with_all_its_values() -> None:
    objects = pd.DataFrame({"image": [0, 0, 1], "shape": ["ring", "star", "ring"], "colour": ["blue", "red", "red"]})
    found = composition_presence(objects, [0, 1], [{"shape": "ring", "colour": "red"}, {"shape": "ring"}])
    np.testing.assert_array_equal(found, [[False, True], [True, True]])
