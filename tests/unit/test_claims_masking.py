"""Claims about masking curves, C5 to C9 and C13, on tables of known truth."""

import claims_tables as made
import numpy as np
import pandas as pd
import pytest

from conceptbench.measures.claims.masking import (
    early_loss,
    identity_mask,
    inert_masks,
    recovery,
    selecting_and_classifying,
    zero_mask,
)
from conceptbench.measures.claims.verdict import FAILS, HOLDS, UNTESTED

FLORA = made.about(tasks={"flora": "flora"})
LEARNT = made.dictionaries({"topk": 8.0, "sparse": 20.0})


def test_c5_wants_a_small_loss_and_more_than_a_subspace() -> None:
    tables = made.masking() | {"dictionaries": LEARNT}
    found = made.only(identity_mask(tables, FLORA))
    assert found.verdict == HOLDS and found.ours.estimate == pytest.approx(2.0)
    assert found.control == "loss with 10 principal components (L0 8.0)"
    assert found.control_value.estimate == pytest.approx(32.0)
    lossy = {key: (0.6, *values[1:]) if key[1] == "off" else values for key, values in made.ACCURACY.items()}
    assert made.only(identity_mask(made.masking(lossy) | {"dictionaries": LEARNT}, FLORA)).verdict == FAILS
    alike = {("pca", "on"): (0.10, 0.11, 0.82, 0.82, np.nan)}
    found = made.only(identity_mask(made.masking(alike) | {"dictionaries": LEARNT}, FLORA))
    assert found.verdict == FAILS and "components" in found.reason


def test_a_loss_that_nothing_is_left_for_decides_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Accuracy of 12 points with all latents and 10 without any: no 5, 20 or 3 points can be lost."""
    monkeypatch.setattr(made, "UNEDITED", 0.13)
    low = {("true", "off"): (0.12, 0.12, 0.11, 0.10, 0.10), ("true", "on"): (0.10, 0.10, 0.11, 0.12, 0.12)}
    poor = made.masking(low | {("pca", "on"): (0.10, 0.10, 0.11, 0.13, np.nan)})
    kept = made.only(identity_mask(poor | {"dictionaries": LEARNT}, FLORA))
    assert kept.verdict == UNTESTED and "no 5 points to lose" in kept.reason
    early = next(iter(early_loss(poor, FLORA)))
    assert early.verdict == UNTESTED and early.reason.endswith("12.0 with all latents and 10.0 without any")
    inert = {v.part.split("up to 10 ")[1].split(" ")[0]: v for v in inert_masks(poor, FLORA)}
    assert inert["random"].verdict == HOLDS and inert["top"].verdict == UNTESTED


def test_c6_compares_with_the_number_of_classes() -> None:
    tables = made.masking() | {"overlap": made.overlap({"flora": 0.9}, {"flora": 0.9})}
    curves = tables["masking"]
    curves.loc[curves["k"] == 0, ["low", "high"]] = np.nan
    curves["note"] = "no variation between images"
    assert made.only(zero_mask(tables, FLORA)).verdict == HOLDS
    curves.loc[curves["selection"] == "true", "estimate"] = 0.2
    assert made.only(zero_mask(tables, FLORA)).verdict == FAILS


def test_c7_wants_a_loss_beyond_both_controls_and_a_falling_curve() -> None:
    assert set(made.verdicts(early_loss(made.masking(), FLORA))) == {HOLDS}
    found = list(early_loss(made.masking({("matched", "off"): (0.80, 0.6, 0.30, 0.2, 0.1)}), FLORA))
    assert [v.verdict for v in found if "matched" in v.control] == [FAILS, FAILS]
    rising = list(early_loss(made.masking({("true", "off"): (0.80, 0.70, 0.40, 0.5, 0.10)}), FLORA))[-1]
    assert rising.part == "largest rise along k" and rising.verdict == FAILS
    assert rising.ours.estimate == pytest.approx(10.0) and rising.ours.low > 2
    assert rising.detail == "k = 10 to 100 of 10 pairs, as if points were independent"
    wide = made.masking({("true", "off"): (0.80, 0.70, 0.40, 0.5, 0.10)})
    curves = wide["masking"]
    curves.loc[curves["outcome"] == "accuracy", ["low", "high"]] += [-0.1, 0.1]
    assert list(early_loss(wide, FLORA))[-1].verdict == UNTESTED
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
    assert made.verdicts(recovery(made.masking(), FLORA)) == [HOLDS, HOLDS]
    assert list(recovery(made.masking(), FLORA))[1].control_value.estimate == pytest.approx(45)
    alike = made.masking({("matched-predicted", "on"): (0.10, 0.12, 0.20, 0.72, 0.80)})
    assert made.verdicts(recovery(alike, FLORA)) == [HOLDS, FAILS]
    tables = made.masking()
    less = {name: table[table["k"] != 100] for name, table in tables.items()}
    assert "measures.masking.k lacks 100" in made.only(recovery(less, FLORA)).reason


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
    assert made.verdicts(selecting_and_classifying(tables, FLORA)) == [HOLDS, FAILS, HOLDS]
    # one point of 42 with few degrees of freedom: its t interval is inside, all points together are not
    changes.loc[at, ["estimate", "low", "high"]] = (0.002, -0.006, 0.0099)
    changes.loc[at, ["error", "freedom"]] = (0.002, 3.0)
    unsure = list(selecting_and_classifying(tables, FLORA))[1]
    assert unsure.verdict == UNTESTED and unsure.reason.startswith("the interval of the change at k = 100 (on)")
    without = tables | {"masking_changes": changes[changes["model"] == "zero-shot"]}
    found_without = made.only(selecting_and_classifying(without, FLORA))
    assert found_without.verdict == UNTESTED and "measures.masking.methods" in found_without.reason


def test_a_task_without_the_papers_edit_says_so() -> None:
    tables = {name: table[table["edit"] != "replace"] for name, table in made.masking().items()}
    assert "measures.masking.edits lacks replace" in made.only(recovery(tables, FLORA)).reason
