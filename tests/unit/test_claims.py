"""Claims: rulings, statements about dictionaries (C1 to C4), tables and page; the others have files of their own."""

import re

import claims_tables as made
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from conceptbench.inference import Estimate
from conceptbench.measures.claims import STATEMENTS, claims_page, measure_claims
from conceptbench.measures.claims.dictionaries import ablation, class_tokens, depth, trade_off
from conceptbench.measures.claims.judge import JUDGES, judge_statement, together
from conceptbench.measures.claims.page import _value
from conceptbench.measures.claims.verdict import (
    FAILS,
    HOLDS,
    POSITIVE,
    UNTESTED,
    CannotTest,
    Verdict,
    both,
    difference,
    everywhere,
    exact,
    find,
    judge,
    scaled,
    simultaneous,
)
from conceptbench.measures.resampling import joint_interval

FLORA = made.about(tasks={"flora": "flora"})
LEARNT = made.dictionaries({"topk": 8.0, "sparse": 20.0})


def test_the_interval_decides_and_not_the_value() -> None:
    assert judge(Estimate(4, 3, 5, 9), "it", 2, 6) == (HOLDS, "")
    assert judge(Estimate(1, 0, 1.9, 9), "it", 2)[0] == FAILS
    outcome, reason = judge(Estimate(4, 1, 5, 9), "the loss", at_least=2)
    assert outcome == UNTESTED and "the interval of the loss contains 2" in reason
    assert judge(Estimate(4, np.nan, np.nan, 1, "one seed only"), "it", 2) == (
        UNTESTED,
        "it has no interval: one seed only",
    )
    assert judge(exact(4, 9), "it", 2)[0] == HOLDS and judge(exact(1, 9), "it", 2)[0] == FAILS
    assert judge(Estimate(0, np.nan, np.nan, 9, "no variation between images"), "it", POSITIVE)[0] == FAILS


@given(st.floats(-5, 5), st.floats(0.01, 3), st.floats(-5, 5))
def test_a_bound_and_its_reverse_are_never_both_met(value: float, half: float, bound: float) -> None:
    found = Estimate(value, value - half, value + half, 9)
    assume(bound not in (found.low, found.high))
    above, below = judge(found, "it", at_least=bound)[0], judge(found, "it", at_most=bound)[0]
    assert (above == UNTESTED) == (below == UNTESTED) == (value - half < bound < value + half)
    assert not (above == HOLDS and below == HOLDS)


def test_all_must_hold_and_one_that_fails_decides() -> None:
    assert both((HOLDS, ""), (UNTESTED, "b"), (FAILS, "c")) == (FAILS, "c")
    assert both((HOLDS, ""), (UNTESTED, "b")) == (UNTESTED, "b")
    parts = [Verdict("p", HOLDS, task="a"), Verdict("p", UNTESTED, "too few", "b")]
    assert together(parts) == (UNTESTED, "b, p: too few")
    assert together([*parts, Verdict("q", FAILS, "no", "a")]) == (FAILS, "a, q: no")
    assert together(parts[:1]) == (HOLDS, "")


def test_scaling_by_a_negative_number_swaps_the_ends() -> None:
    assert scaled(Estimate(0.1, 0.0, 0.3, 9), -100) == Estimate(-10, -30, -0.0, 9)
    apart = difference(exact(3, 9), Estimate(1, 0, 2, 9))
    assert (apart.estimate, apart.low, apart.high) == (2, 1, 3)


def test_the_largest_of_many_points_needs_a_wider_interval() -> None:
    """Of 20 independent points without an effect, the largest is wrongly outside 0 in 5 % of samples at most."""
    found = np.random.default_rng(3).normal(size=(4000, 20))
    largest = found[np.arange(4000), np.abs(found).argmax(axis=1)]
    wide = [simultaneous(Estimate(x, x - 1.96, x + 1.96, 9), 20) for x in largest]
    missed = np.mean([estimate.low > 0 or estimate.high < 0 for estimate in wide])
    assert 0.03 < missed < 0.06
    assert np.mean(np.abs(largest) > 1.96) > 0.5
    assert simultaneous(Estimate(1, 0, 3, 9), 1) == Estimate(1, 0, 3, 9)


@pytest.mark.parametrize(("n_seeds", "n_points"), [(3, 15), (4, 15), (3, 42)])
def test_intervals_of_few_seeds_cover_together(n_seeds: int, n_points: int) -> None:
    """Family-wise error of independent points at most 5 %; the normal factor would miss one in 29 to 55 %."""
    values = np.random.default_rng(4).standard_normal((2000, n_points, n_seeds))
    error, wrong, ends = values.std(axis=2, ddof=1) / np.sqrt(n_seeds), [], (-np.inf, np.inf)
    for means, errors in zip(values.mean(axis=2), error, strict=True):
        points = {
            str(at): joint_interval(mean, [(one**2, n_seeds - 1)], 9)
            for at, (mean, one) in enumerate(zip(means, errors, strict=True))
        }
        wide, _ = everywhere(points, "it", ends)
        wrong.append(any(found.low > 0 or found.high < 0 for found in wide.values()))
    assert abs(np.mean(wrong) - 0.05) < 3 * np.sqrt(0.05 * 0.95 / 2000) + 0.05 - (1 - (1 - 0.05 / n_points) ** n_points)


def test_ends_are_cut_after_the_interval_is_widened() -> None:
    """Cut at 1 first, the upper end would stay at a distance that says nothing of the error."""
    found = joint_interval(0.9, [(0.04, 2)], 9, (-1.0, 1.0))
    wide = simultaneous(found, 15, (-1.0, 1.0))
    assert (wide.low, wide.high) == (-1, 1) and found.high == 1
    assert scaled(found, -100).error == pytest.approx(20)
    apart = difference(found, exact(0.5, 9))
    assert apart.error == pytest.approx(0.2) and apart.freedom == 2
    assert difference(found, Estimate(0.5, 0.4, 0.6, 9)).error is None


def test_every_point_is_judged_and_not_the_largest_alone() -> None:
    """The larger change is known well and inside; the smaller one has a wide interval."""
    points = {"k = 1": Estimate(0.8, 0.7, 0.9, 9), "k = 2": Estimate(0.1, -3, 3, 9)}
    outcome, reason = everywhere(points, "the change", (-100, 100), -1, 1)[1]
    assert outcome == UNTESTED and "the change at k = 2" in reason


def test_a_lone_value_is_not_widened() -> None:
    lone = exact(1, 9)
    assert simultaneous(lone, 20) is lone


def test_rows_that_pool_the_seeds_are_found_and_a_missing_one_is_said() -> None:
    table = pd.DataFrame([made.estimate(1, seed="0") | {"k": 1}, made.estimate(2) | {"k": 1}])
    assert find(table, "no k", k=1).estimate == 2
    with pytest.raises(CannotTest, match="no k"):
        find(table, "no k", k=2)


def test_c1_shows_ours_and_says_what_the_paper_needs() -> None:
    found = made.only(trade_off({"dictionaries": LEARNT}, FLORA))
    assert found.verdict == UNTESTED and "ImageNet-1k" in found.reason and "examples/paper.yaml" in found.reason
    assert found.ours.estimate == pytest.approx(1 - 0.201) and found.control_value.estimate == pytest.approx(0.1)


def test_c2_follows_error_and_l0_over_blocks() -> None:
    assert made.verdicts(depth({"dictionaries": LEARNT}, FLORA)) == [HOLDS, HOLDS]
    falling = made.dictionaries({"sparse": 20.0}, {2: 0.2, 4: 0.1})
    assert made.verdicts(depth({"dictionaries": falling}, FLORA)) == [FAILS, HOLDS]
    with pytest.raises(CannotTest, match=r"one block only: name more of them in hooks\.tiny"):
        list(depth({"dictionaries": LEARNT[LEARNT["block"] == 4]}, FLORA))
    with pytest.raises(CannotTest, match="whose L0 is free"):
        list(depth({"dictionaries": LEARNT}, made.about(dictionaries={"topk": {"method": "topk"}})))


def test_c3_names_what_is_missing() -> None:
    assert "class tokens" in made.only(class_tokens({}, FLORA)).reason


def test_c4_orders_l0_by_weight_and_by_width() -> None:
    methods = {
        "a": {"method": "relu-l1", "width": 64, "l1": 0.1},
        "b": {"method": "relu-l1", "width": 64, "l1": 0.2},
        "c": {"method": "relu-l1", "width": 128, "l1": 0.1},
    }
    grid = made.about(dictionaries=methods)
    falling = {"dictionaries": made.dictionaries({"a": 9.0, "b": 5.0, "c": 8.0})}
    assert made.verdicts(ablation(falling, grid)) == [HOLDS, HOLDS]
    rising = {"dictionaries": made.dictionaries({"a": 9.0, "b": 10.0, "c": 8.0})}
    assert made.verdicts(ablation(rising, grid)) == [FAILS, HOLDS]
    assert made.verdicts(ablation(falling, FLORA)) == [UNTESTED, UNTESTED]


def test_there_are_seventeen_statements_each_with_its_judge() -> None:
    names = [f"C{number}" for number in range(1, 18)]
    assert [statement.id for statement in STATEMENTS] == names == list(JUDGES)


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement.id)
def test_without_tables_every_statement_says_what_it_lacks(statement: object) -> None:
    found = made.only(judge_statement(statement, {}, FLORA))  # type: ignore[arg-type]
    assert found.verdict == UNTESTED and re.search(r"measures\.|adaptations\.|dictionaries|table", found.reason)


def test_page_shows_no_negative_zero() -> None:
    assert _value(-0.04, -0.3, 0.02, "points") == "0.0 [-0.3, 0.0] points"
    assert _value(-0.04, np.nan, np.nan, "") == "-0.040" and _value(np.nan, 0, 0, "points") == ""


def test_tables_and_page_are_made_of_the_verdicts() -> None:
    tables = made.masking() | {"dictionaries": LEARNT, "accuracy_difference": made.differences(0.2, 0.01)}
    spec = {name: getattr(FLORA, name) for name in FLORA.__dataclass_fields__}
    found = measure_claims(tables, spec)
    claims, parts = found["claims"].set_index("claim"), found["claim_parts"]
    assert len(claims) == 17 and set(parts["claim"]) == set(claims.index)
    assert claims.loc["C15", "verdict"] == HOLDS and claims.loc["C14", "verdict"] == UNTESTED
    assert claims.loc["C9", "held"] == 2 == (parts["claim"] == "C9").sum()
    assert (parts.loc[parts["estimate"].isna(), "note"] != "").all()
    page = claims_page(found["claims"], parts, "toy")
    rows = [line for line in page.splitlines() if line.startswith("| [C")]
    assert len(rows) == 17 and all(line.count("|") == 7 for line in rows)
    assert "20.0 [19.0, 21.0] points" in rows[14] and "**holds** (2 of 2 parts hold)" in rows[14]
    assert sum(page.count(f"\n## {name}\n") for name in claims.index) == 17 and "nan" not in page
