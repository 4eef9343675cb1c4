"""Names of metrics.json and what is left out of it."""

import numpy as np
import pandas as pd
import pytest

from conceptbench.measures.metrics import MainHook, collect

MAIN = MainHook("clip-tiny", 4)


def estimate(**names: object) -> dict[str, object]:
    return {**names, "estimate": 0.5, "low": 0.4, "high": 0.6, "n": 10, "seed": "all", "note": ""}


def test_keys_carry_their_intervals() -> None:
    rows = [estimate(task="flora", method="maple", half=half) for half in ("base", "novel", "harmonic_mean")]
    found = collect({"accuracy": pd.DataFrame(rows)}, MAIN)
    assert found["adaptation.maple.flora.base"] == 0.5
    assert found["adaptation.maple.flora.harmonic_mean.low"] == 0.4
    assert found["adaptation.maple.flora.novel.high"] == 0.6


def test_dictionaries_of_the_main_hook_are_named_plainly() -> None:
    names = {"level": "image", "statistic": "recovered_at_0.90", "dictionary": "topk"}
    rows = [estimate(**names, backbone="clip-tiny", block=4), estimate(**names, backbone="random-tiny", block=4)]
    found = collect({"truth_summary": pd.DataFrame(rows)}, MAIN)
    assert "truth.topk.recovered_at_0.90" in found
    assert "truth.topk@random-tiny/block4.recovered_at_0.90.low" in found


def test_claims_that_cannot_be_tested_have_no_key() -> None:
    verdicts = ("holds", "does not hold", "cannot be tested here")
    table = pd.DataFrame({"claim": ["C1", "C2", "C3"], "verdict": verdicts})
    assert collect({"claims": table}, MAIN) == {"claims.C1.holds": 1.0, "claims.C2.holds": 0.0}


def test_values_that_do_not_exist_have_no_key() -> None:
    names = {
        "task": "flora",
        "method": "maple",
        "half": "base",
        "variant": "averaged",
        "outcome": "accuracy",
        "players": 2,
    }
    rows = [
        estimate(**names, part="gain"),
        estimate(**names, part="perception_share") | dict.fromkeys(("estimate", "low", "high"), np.nan),
    ]
    found = collect({"decomposition": pd.DataFrame(rows)}, MAIN)
    assert set(found) == {
        "remapping.maple.flora.gain",
        "remapping.maple.flora.gain.low",
        "remapping.maple.flora.gain.high",
    }


def test_the_other_tables_give_their_keys() -> None:
    ids = {"backbone": "clip-tiny", "block": 4, "dictionary": "topk"}
    tables = {
        "backbones": pd.DataFrame([estimate(backbone="clip-tiny", statistic="zero_shot.colour")]),
        "dictionaries": pd.DataFrame(
            [{**ids, "seed": s, "fvu": 0.1 + s, "l0": 8.0, "dead_share": 0.0} for s in (0, 1)]
        ),
        "kinds": pd.DataFrame([estimate(**ids, kind="wug", null_high=0.7, q=0.01)]).drop(columns="block"),
        "overlap": pd.DataFrame(
            [estimate(task="flora", method="maple", half="base", label=-1, k=10, statistic="jaccard", comparison="gap")]
        ),
        "accuracy_difference": pd.DataFrame([estimate(task="flora", method="maple", half="base")]),
        "truth_comparison": pd.DataFrame(
            [
                estimate(
                    level="image",
                    statistic="mean_auroc",
                    null_backbone="clip-tiny",
                    null_block=4,
                    null_dictionary="pca",
                )
            ]
        ),
    }
    found = collect(tables, MAIN)
    assert found["backbones.clip-tiny.zero_shot.colour"] == 0.5
    assert found["dictionaries.topk.fvu"] == pytest.approx(0.6)
    assert found["kinds.clip-tiny.topk.n_beyond_null"] == 1
    assert found["kinds.clip-tiny.topk.wug.united_auroc"] == 0.5
    assert found["overlap.maple.flora.base.jaccard_gap_at_10"] == 0.5
    assert found["adaptation.maple.flora.base_over_zero_shot"] == 0.5
    assert found["truth_over_null.pca.mean_auroc"] == 0.5
    assert all(np.isfinite(value) for value in found.values())
