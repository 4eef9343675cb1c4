"""Overlap of top latents on planted classes: identical, disjoint and resampled models."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import spearmanr

from conceptbench.errors import ConceptBenchError
from conceptbench.measures.overlap import ClassInfo, OverlapSpec, overlap_statistics, overlap_tables
from conceptbench.measures.sparse import ArrayCodes, from_dense

SPEC = OverlapSpec(ks=(5, 10), upper_rank=5, lower_rank=10, n_splits=10, n_resamples=60)
CLASSES = [ClassInfo(label, f"class {label}", "base") for label in range(6)]
LABELS = np.repeat(np.arange(6), 24)


def codes(seed: int, shift: int = 0, noise: float = 0.5) -> ArrayCodes:
    """Every class has its own firing rates over 40 latents (moved by `shift`); tokens fire by chance."""
    rates = np.random.default_rng(99).random((6, 40)) ** 4
    rng = np.random.default_rng(seed)
    fires = rng.random((144, 8, 40)) < np.roll(rates[LABELS], shift, axis=1)[:, None]
    return from_dense(fires * (0.3 + rng.random((144, 8, 40)) * noise))


def tables(before: ArrayCodes, *after: ArrayCodes) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    seeds = {str(at): one for at, one in enumerate(after)}
    return overlap_tables(before, seeds, LABELS, CLASSES, np.random.default_rng(0), SPEC)


def mean_of(table: pd.DataFrame, comparison: str, k: int = 5, seed: str = "all") -> pd.Series:
    chosen = table[(table["label"] == -1) & (table["comparison"] == comparison) & (table["k"] == k)]
    return chosen[chosen["seed"] == seed].iloc[0]


def test_the_same_model_overlaps_fully_and_its_gap_is_zero() -> None:
    overlap, regions, _ = tables(codes(0), codes(0))
    assert mean_of(overlap, "adapted")["estimate"] == 1
    assert mean_of(overlap, "gap")["estimate"] == 0
    assert mean_of(overlap, "adapted", 0)["estimate"] == pytest.approx(1)
    adapted = regions[(regions["label"] == -1) & (regions["comparison"] == "adapted")].set_index(["region", "seed"])
    assert adapted.loc[("high", "all"), "estimate"] >= 5
    assert adapted.loc[("low_to_high", "all"), "estimate"] == 0


def test_resampled_images_of_one_model_are_at_the_null() -> None:
    overlap, _, _ = tables(codes(0), codes(1), codes(2))
    gap = mean_of(overlap, "gap")
    assert abs(gap["estimate"]) < 0.06
    assert gap["low"] <= 0.03
    assert gap["high"] >= -0.03
    assert mean_of(overlap, "null_class")["estimate"] < mean_of(overlap, "null_halves")["estimate"]


def test_seeds_that_differ_widen_the_mean_over_classes() -> None:
    """One seed hardly moved and one far off: no interval narrower than that of two numbers, cut at 0 and 1."""
    overlap, _, _ = tables(codes(0), codes(1), codes(1, shift=7))
    row, gap = mean_of(overlap, "adapted"), mean_of(overlap, "gap")
    assert (row["low"], row["high"]) == (0, 1)
    assert gap["low"] < 0 and gap["high"] > 1


def test_a_moved_model_is_far_from_the_null() -> None:
    overlap, regions, points = tables(codes(0), codes(1, shift=7))
    assert mean_of(overlap, "gap")["low"] > 0.3
    moved = regions[(regions["label"] == -1) & (regions["comparison"] == "adapted") & (regions["seed"] == "all")]
    assert moved.set_index("region").loc["low_to_high", "estimate"] > 1
    assert set(points["region"]) <= {"high", "high_to_low", "low_to_high", "between", ""}


def test_statistics_agree_with_sets_and_scipy() -> None:
    rng = np.random.default_rng(3)
    one, other = rng.random((4, 30)), rng.random((4, 30))
    one[:, 20:], other[:, 25:] = 0, 0
    found = overlap_statistics(one, other, SPEC)
    for row in range(4):
        a, b = set(np.argsort(-one[row])[:10]), set(np.argsort(-other[row])[:10])
        assert found["jaccard", 10][row] == pytest.approx(len(a & b) / len(a | b))
        active = (one[row] > 0) | (other[row] > 0)
        expected = spearmanr(one[row, active], other[row, active]).statistic
        assert found["rank_correlation", 0][row] == pytest.approx(expected)


def test_silent_latents_are_never_on_top() -> None:
    one = np.array([[3.0, 2.0, 0.0, 0.0]])
    other = np.array([[3.0, 0.0, 0.0, 1.0]])
    assert overlap_statistics(one, other, OverlapSpec(ks=(4,)))["jaccard", 4][0] == pytest.approx(1 / 3)


def test_regions_partition_the_latents_above_the_upper_bound() -> None:
    rng = np.random.default_rng(5)
    one, other = rng.random((6, 50)), rng.random((6, 50))
    found = overlap_statistics(one, other, SPEC)
    total = sum(found[name, 0] for name in ("high", "high_to_low", "low_to_high", "between"))
    np.testing.assert_array_equal(total, np.full(6, 5.0))


def test_every_class_has_rows_with_the_bounds() -> None:
    overlap, regions, _ = tables(codes(0), codes(1))
    assert set(overlap["label"]) == {-1, *range(6)}
    own = regions[(regions["label"] == 2) & (regions["comparison"] == "adapted")]
    assert (own["upper_bound"] >= own["lower_bound"]).all()
    per_class = overlap[
        (overlap["label"] >= 0) & (overlap["comparison"] == "adapted") & (overlap["statistic"] == "jaccard")
    ]
    assert (per_class["low"].isna() | (per_class["low"] <= per_class["estimate"])).all()


def test_regions_keep_the_halves_that_are_like_the_null() -> None:
    """Zero-shot against adapted and against itself on the same halves: of the same model there is no difference."""
    _, same, _ = tables(codes(0), codes(0))
    assert set(same["comparison"]) == {"adapted", "adapted_halves", "null_halves", "gap"}
    wide = same.pivot_table(index=["label", "region", "seed"], columns="comparison", values="estimate")
    np.testing.assert_allclose(wide["adapted_halves"], wide["null_halves"])
    assert (wide["gap"] == 0).all() and (
        wide.loc[(-1, "high"), "adapted"] > wide.loc[(-1, "high"), "null_halves"]
    ).all()
    _, moved, _ = tables(codes(0), codes(1, shift=7))
    new = moved[(moved["label"] == -1) & (moved["region"] == "low_to_high") & (moved["seed"] == "all")]
    found = new.set_index("comparison")["estimate"]
    assert found["gap"] == pytest.approx(found["null_halves"] - found["adapted_halves"]) and found["gap"] < -1


def test_codes_of_other_images_are_refused() -> None:
    short = from_dense(np.ones((3, 8, 40)))
    with pytest.raises(ConceptBenchError, match="seed 0"):
        tables(codes(0), short)
    with pytest.raises(ConceptBenchError, match="at least two"):
        overlap_tables(
            codes(0), {"0": codes(1)}, LABELS, [ClassInfo(9, "none", "base")], np.random.default_rng(0), SPEC
        )
