"""Claims: every judging function on tables of known truth, for each verdict that it can give; tables and page."""

import re

import claims_tables as made
import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from conceptbench.inference import Estimate
from conceptbench.measures.claims import STATEMENTS, claims_page, measure_claims
from conceptbench.measures.claims.adaptation import base_and_novel, relearnt_dictionary
from conceptbench.measures.claims.dictionaries import ablation, class_tokens, depth, trade_off
from conceptbench.measures.claims.judge import JUDGES, judge_statement, together
from conceptbench.measures.claims.latents import clusters, interpretable
from conceptbench.measures.claims.masking import (
    early_loss,
    identity_mask,
    inert_masks,
    recovery,
    selecting_and_classifying,
    zero_mask,
)
from conceptbench.measures.claims.overlap import gain_and_new_latents, same_latents, the_exception
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
    exact,
    find,
    judge,
    scaled,
    simultaneous,
)

FLORA = made.about(tasks={"flora": "flora"})
LEARNT = made.dictionaries({"topk": 8.0, "sparse": 20.0})
HALF = {("true", "off"): (0.80, 0.70, 0.55, 0.15, 0.10)}


def verdicts(found: object) -> list[str]:
    return [verdict.verdict for verdict in found]  # type: ignore[attr-defined]


def only(found: object) -> Verdict:
    (verdict,) = list(found)  # type: ignore[call-overload]
    assert isinstance(verdict, Verdict)
    return verdict


# --- rulings ---------------------------------------------------------------------------------------------------------


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
    lone = exact(1, 9)
    assert simultaneous(lone, 20) is lone


def test_rows_that_pool_the_seeds_are_found_and_a_missing_one_is_said() -> None:
    table = pd.DataFrame([made.estimate(1, seed="0") | {"k": 1}, made.estimate(2) | {"k": 1}])
    assert find(table, "no k", k=1).estimate == 2
    with pytest.raises(CannotTest, match="no k"):
        find(table, "no k", k=2)


# --- C1 to C4 --------------------------------------------------------------------------------------------------------


def test_c1_shows_ours_and_says_what_the_paper_needs() -> None:
    found = only(trade_off({"dictionaries": LEARNT}, FLORA))
    assert found.verdict == UNTESTED and "ImageNet-1k" in found.reason and "examples/paper.yaml" in found.reason
    assert found.ours.estimate == pytest.approx(1 - 0.201) and found.control_value.estimate == pytest.approx(0.1)


def test_c2_follows_error_and_l0_over_blocks() -> None:
    assert verdicts(depth({"dictionaries": LEARNT}, FLORA)) == [HOLDS, HOLDS]
    falling = made.dictionaries({"sparse": 20.0}, {2: 0.2, 4: 0.1})
    assert verdicts(depth({"dictionaries": falling}, FLORA)) == [FAILS, HOLDS]
    with pytest.raises(CannotTest, match=r"one block only: name more of them in hooks\.tiny"):
        list(depth({"dictionaries": LEARNT[LEARNT["block"] == 4]}, FLORA))
    with pytest.raises(CannotTest, match="whose L0 is free"):
        list(depth({"dictionaries": LEARNT}, made.about(dictionaries={"topk": {"method": "topk"}})))


def test_c3_names_what_is_missing() -> None:
    assert "class tokens" in only(class_tokens({}, FLORA)).reason


def test_c4_orders_l0_by_weight_and_by_width() -> None:
    methods = {
        "a": {"method": "relu-l1", "width": 64, "l1": 0.1},
        "b": {"method": "relu-l1", "width": 64, "l1": 0.2},
        "c": {"method": "relu-l1", "width": 128, "l1": 0.1},
    }
    grid = made.about(dictionaries=methods)
    falling = {"dictionaries": made.dictionaries({"a": 9.0, "b": 5.0, "c": 8.0})}
    assert verdicts(ablation(falling, grid)) == [HOLDS, HOLDS]
    rising = {"dictionaries": made.dictionaries({"a": 9.0, "b": 10.0, "c": 8.0})}
    assert verdicts(ablation(rising, grid)) == [FAILS, HOLDS]
    assert verdicts(ablation(falling, FLORA)) == [UNTESTED, UNTESTED]


# --- C5 to C9, C13 ---------------------------------------------------------------------------------------------------


def test_c5_wants_a_small_loss_and_more_than_a_subspace() -> None:
    tables = made.masking() | {"dictionaries": LEARNT}
    found = only(identity_mask(tables, FLORA))
    assert found.verdict == HOLDS and found.ours.estimate == pytest.approx(2.0)
    assert found.control == "loss with 10 principal components (L0 8.0)"
    assert found.control_value.estimate == pytest.approx(32.0)
    lossy = {key: (0.6, *values[1:]) if key[1] == "off" else values for key, values in made.ACCURACY.items()}
    assert only(identity_mask(made.masking(lossy) | {"dictionaries": LEARNT}, FLORA)).verdict == FAILS
    alike = {("pca", "on"): (0.10, 0.11, 0.82, 0.82, np.nan)}
    found = only(identity_mask(made.masking(alike) | {"dictionaries": LEARNT}, FLORA))
    assert found.verdict == FAILS and "components" in found.reason


def test_c6_compares_with_the_number_of_classes() -> None:
    tables = made.masking() | {"overlap": made.overlap({"flora": 0.9}, {"flora": 0.9})}
    curves = tables["masking"]
    curves.loc[curves["k"] == 0, ["low", "high"]] = np.nan
    curves["note"] = "no variation between images"
    assert only(zero_mask(tables, FLORA)).verdict == HOLDS
    curves.loc[curves["selection"] == "true", "estimate"] = 0.2
    assert only(zero_mask(tables, FLORA)).verdict == FAILS


def test_c7_wants_a_loss_beyond_both_controls_and_a_falling_curve() -> None:
    assert set(verdicts(early_loss(made.masking(), FLORA))) == {HOLDS}
    found = list(early_loss(made.masking({("matched", "off"): (0.80, 0.6, 0.30, 0.2, 0.1)}), FLORA))
    assert [v.verdict for v in found if "matched" in v.control] == [FAILS, FAILS]
    rising = list(early_loss(made.masking({("true", "off"): (0.80, 0.70, 0.40, 0.5, 0.10)}), FLORA))[-1]
    assert rising.part == "largest rise along k" and rising.verdict == FAILS
    assert rising.ours.estimate == pytest.approx(10.0)
    small = list(early_loss(made.masking({("true", "off"): (0.80, 0.78, 0.65, 0.2, 0.10)}), FLORA))
    assert small[0].verdict == FAILS and "the loss is not above 20" in small[0].reason


def test_c8_bounds_the_largest_change_and_counts_the_hits() -> None:
    found = list(inert_masks(made.masking(), FLORA))
    assert [v.verdict for v in found] == [HOLDS, HOLDS]
    assert "hits 2.0 active latents" in found[0].detail and found[0].control_value.estimate == pytest.approx(-10)
    assert found[1].control_value.estimate == pytest.approx(-3)
    hurt = list(inert_masks(made.masking({("random", "off"): (0.8, 0.8, 0.78, 0.7, 0.1)}), FLORA))
    assert [v.verdict for v in hurt] == [FAILS, HOLDS]


def test_c9_wants_a_gain_that_outlives_the_label() -> None:
    assert verdicts(recovery(made.masking(), FLORA)) == [HOLDS, HOLDS]
    assert list(recovery(made.masking(), FLORA))[1].control_value.estimate == pytest.approx(45)
    alike = made.masking({("matched-predicted", "on"): (0.10, 0.12, 0.20, 0.72, 0.80)})
    assert verdicts(recovery(alike, FLORA)) == [HOLDS, FAILS]
    tables = made.masking()
    less = {name: table[table["k"] != 100] for name, table in tables.items()}
    assert "measures.masking.k lacks 100" in only(recovery(less, FLORA)).reason


def test_c13_looks_at_every_point_of_the_curves() -> None:
    text = {"task": "flora", "method": "maple", "half": "base", "variant": "averaged", "outcome": "accuracy"}
    decomposition = pd.DataFrame([text | {"players": 3, "part": "text"} | made.estimate(0.1)])
    tables = made.masking() | {"decomposition": decomposition}
    found = list(selecting_and_classifying(tables, FLORA))
    assert [v.verdict for v in found] == [HOLDS, HOLDS, HOLDS]
    assert found[2].control_value.estimate == pytest.approx(10) and found[2].detail == "k = 10 (on) of 3 points"
    changes = tables["masking_changes"]
    at = (changes["against"] == "own-ranking") & (changes["model"] == "maple") & (changes["k"] == 100)
    changes.loc[at, ["estimate", "low", "high"]] = (-0.04, -0.05, -0.03)
    assert verdicts(selecting_and_classifying(tables, FLORA)) == [HOLDS, FAILS, HOLDS]
    without = tables | {"masking_changes": changes[changes["model"] == "zero-shot"]}
    found_without = only(selecting_and_classifying(without, FLORA))
    assert found_without.verdict == UNTESTED and "measures.masking.methods" in found_without.reason


def test_a_task_without_the_papers_edit_says_so() -> None:
    tables = {name: table[table["edit"] != "replace"] for name, table in made.masking().items()}
    assert "measures.masking.edits lacks replace" in only(recovery(tables, FLORA)).reason


# --- C10 to C12 ------------------------------------------------------------------------------------------------------


def test_c10_wants_most_latents_high_and_the_exception_lowest() -> None:
    overlap = made.overlap({"flora": 0.9, "terra": 0.7}, {"flora": 0.95, "terra": 0.6})
    new = {"flora": [0.1, 0.3, 0.1, 0.2], "terra": [9.0, 11.0, 10.0, 12.0]}
    tables = {"overlap": overlap, "overlap_regions": made.regions(new)}
    found = list(same_latents(tables, made.about()))
    assert [v.verdict for v in found] == [HOLDS] * 4
    share = next(v for v in found if v.task == "flora" and "share" in v.part)
    assert share.ours.estimate == pytest.approx(160 / (160 + 0.4 + 0.7))
    swapped = {"flora": new["terra"], "terra": new["flora"]}
    tables["overlap_regions"] = made.regions(swapped)
    assert verdicts(same_latents(tables, made.about())) == [FAILS, HOLDS, FAILS, HOLDS]
    apart = {
        "overlap": made.overlap({"flora": 0.3}, {"flora": 0.9}),
        "overlap_regions": made.regions({"flora": [0.1] * 4}),
    }
    assert verdicts(same_latents(apart, FLORA)) == [HOLDS, FAILS]


def test_c11_finds_a_correlation_where_there_is_one() -> None:
    rng = np.random.default_rng(0)
    gains = rng.uniform(0.1, 0.7, 24)
    tables = {"hybrids": made.hybrids({"flora": gains}), "overlap_regions": made.regions({"flora": 10 * gains})}
    found = only(gain_and_new_latents(tables, made.about()))
    assert found.verdict == FAILS and found.ours.estimate > 0.95 and found.control_value.estimate < 0.05
    tables["overlap_regions"] = made.regions({"flora": rng.permutation(24)})
    assert only(gain_and_new_latents(tables, made.about())).verdict == HOLDS
    tables["overlap_regions"] = made.regions({"flora": [0.0] * 24})
    found = only(gain_and_new_latents(tables, made.about()))
    assert found.verdict == HOLDS and "the same for every class" in found.detail
    few = {"hybrids": made.hybrids({"flora": gains[:4]}), "overlap_regions": made.regions({"flora": gains[:4]})}
    assert "4 classes" in only(gain_and_new_latents(few, made.about())).reason
    with pytest.raises(CannotTest, match=r"adaptations\.tasks"):
        list(gain_and_new_latents(tables, made.about(tasks={"terra": "terra"})))


def test_c12_wants_the_exception_above_every_other_task() -> None:
    new = {"flora": [0.1, 0.3, 0.1, 0.2], "terra": [9.0, 11.0, 10.0, 12.0]}
    overlap = made.overlap({"flora": 0.9, "terra": 0.7}, {"flora": 0.95, "terra": 0.6})
    tables = {"overlap": overlap, "overlap_regions": made.regions(new)}
    assert verdicts(the_exception(tables, made.about())) == [HOLDS, HOLDS]
    alike = tables | {"overlap": made.overlap({"flora": 0.9, "terra": 0.7}, {"flora": 0.6, "terra": 0.9})}
    assert verdicts(the_exception(alike, made.about())) == [HOLDS, FAILS]
    with pytest.raises(CannotTest, match="a task like EuroSAT"):
        list(the_exception(tables, FLORA))


# --- C14 to C17 ------------------------------------------------------------------------------------------------------


def concepts(apart: float, *, task: str = "flora") -> pd.DataFrame:
    rows = []
    for name, shift in (("followed", apart), ("adapted", 0.0)):
        head = {"task": task, "method": "maple", "outcome": "accuracy", "part": "existing", "dictionary": name}
        for seed in range(3):
            value = made.estimate(0.2 + shift + 0.001 * seed * shift, seed=str(seed))
            rows += [head | {"sets": sets, "q": 0.1} | value for sets in ("own", "matched")]
            rows.append(head | {"sets": "own", "q": 0.5} | made.estimate(9.0, seed=str(seed)))
    return pd.DataFrame(rows)


def validity(*, valid: bool) -> pd.DataFrame:
    head = {"task": "flora", "method": "maple", "statistic": "fvu"}
    values = {"followed": 0.12 if valid else 0.3, "adapted": 0.1, "followed-on-zero-shot": 0.1}
    rows = [
        head | {"dictionary": name, "valid": valid or name != "followed"} | made.estimate(value, seed=seed)
        for name, value in values.items()
        for seed in ("0", "1", "2", "all")
    ]
    return pd.DataFrame(rows)


def test_c14_compares_dictionaries_of_the_same_seed() -> None:
    near = only(relearnt_dictionary({"concepts": concepts(0.005), "validity": validity(valid=True)}, FLORA))
    assert near.verdict == HOLDS and near.ours.estimate == pytest.approx(0.5, rel=0.01)
    far = only(relearnt_dictionary({"concepts": concepts(0.05), "validity": validity(valid=True)}, FLORA))
    assert far.verdict == FAILS
    invalid = only(relearnt_dictionary({"concepts": concepts(0.005), "validity": validity(valid=False)}, FLORA))
    assert invalid.verdict == FAILS and "not valid" in invalid.reason
    one = concepts(0.0)
    missing = only(
        relearnt_dictionary({"concepts": one[one["dictionary"] == "followed"], "validity": validity(valid=True)}, FLORA)
    )
    assert missing.verdict == UNTESTED and "measures.concepts.relearn does not name maple" in missing.reason


def differences(base: float, novel: float, seeds: int = 3) -> pd.DataFrame:
    head = {"task": "flora", "method": "maple", "n_seeds": seeds}
    values = {"base": base, "novel": novel}
    return pd.DataFrame([head | {"half": half} | made.estimate(value, 0.01) for half, value in values.items()])


def test_c15_wants_base_up_and_novel_not() -> None:
    assert verdicts(base_and_novel({"accuracy_difference": differences(0.2, -0.1)}, FLORA)) == [HOLDS, HOLDS]
    assert verdicts(base_and_novel({"accuracy_difference": differences(-0.2, 0.1)}, FLORA)) == [FAILS, FAILS]
    assert "seeds" in only(base_and_novel({"accuracy_difference": differences(0.2, 0.0, 1)}, FLORA)).reason
    table = differences(0.2, 0.0)
    found = only(base_and_novel({"accuracy_difference": table[table["half"] == "novel"]}, FLORA))
    assert "base-to-novel" in found.reason


def interpretable_tables(mine: np.ndarray, control: np.ndarray) -> dict[str, pd.DataFrame]:
    points = np.zeros((len(mine), 2))
    labels = {"topk": mine, "random": control}
    return {
        "latents": pd.concat([made.statistics(points, "flora", name) for name in labels]),
        "exemplars": pd.concat([made.exemplars(array, "flora", name) for name, array in labels.items()]),
    }


def test_c16_compares_label_entropy_with_shuffled_labels_and_a_random_dictionary() -> None:
    pure, mixed = np.repeat(np.arange(10), 4).reshape(10, 4), np.add.outer(np.arange(10), np.arange(4)) % 10
    # one class a latent has entropy 0, so the gap is what shuffled labels have: below ln 4
    found = list(interpretable(interpretable_tables(pure, mixed), FLORA))
    assert [v.verdict for v in found] == [HOLDS, UNTESTED]
    assert 0.9 < found[0].ours.estimate < np.log(4) and "measures.truth_on" in found[1].reason
    assert next(iter(interpretable(interpretable_tables(mixed, pure), FLORA))).verdict == FAILS
    with pytest.raises(CannotTest, match="random"):
        list(interpretable(interpretable_tables(pure, mixed), made.about(dictionaries={"topk": {"method": "topk"}})))


def test_c16_compares_masks_where_they_are_known() -> None:
    pure = np.repeat(np.arange(10), 4).reshape(10, 4)
    rows = []
    for name, value in (("topk", 0.4), ("random", 0.2)):
        head = {"backbone": "tiny", "block": 4, "dictionary": name, "metric": "iou", "floor": 0.1}
        rows += [head | made.estimate(value + 0.01 * seed, seed=str(seed)) for seed in range(3)]
    tables = interpretable_tables(pure, pure[::-1]) | {"truth_patches": pd.DataFrame(rows)}
    found = list(interpretable(tables, FLORA))[-1]
    assert found.verdict == HOLDS and found.ours.estimate == pytest.approx(0.31)
    tables["truth_patches"]["dictionary"] = tables["truth_patches"]["dictionary"].map(
        {"topk": "random", "random": "topk"}
    )
    assert list(interpretable(tables, FLORA))[-1].verdict == FAILS


def test_c17_tells_two_clusters_from_one() -> None:
    rng = np.random.default_rng(1)
    one = rng.normal(size=(200, 2)) * 0.3
    two = one + np.where(np.arange(200) < 100, 0, 4)[:, None]
    assert only(clusters({"latents": made.statistics(two, "flora")}, FLORA)).verdict == HOLDS
    assert only(clusters({"latents": made.statistics(one, "flora")}, FLORA)).verdict == FAILS
    assert "fewer than 30" in only(clusters({"latents": made.statistics(two[:20], "flora")}, FLORA)).reason


# --- all together ----------------------------------------------------------------------------------------------------


def test_there_are_seventeen_statements_each_with_its_judge() -> None:
    names = [f"C{number}" for number in range(1, 18)]
    assert [statement.id for statement in STATEMENTS] == names == list(JUDGES)


@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement.id)
def test_without_tables_every_statement_says_what_it_lacks(statement: object) -> None:
    found = only(judge_statement(statement, {}, FLORA))  # type: ignore[arg-type]
    assert found.verdict == UNTESTED and re.search(r"measures\.|adaptations\.|dictionaries|table", found.reason)


def test_page_shows_no_negative_zero() -> None:
    assert _value(-0.04, -0.3, 0.02, "points") == "0.0 [-0.3, 0.0] points"
    assert _value(-0.04, np.nan, np.nan, "") == "-0.040" and _value(np.nan, 0, 0, "points") == ""


def test_tables_and_page_are_made_of_the_verdicts() -> None:
    tables = made.masking() | {"dictionaries": LEARNT, "accuracy_difference": differences(0.2, -0.1)}
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
