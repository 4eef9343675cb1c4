"""Leaderboard: ranks, nulls of the same hook point, errors at equal L0, and what it does without some measures."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conceptbench.config.stages import DETERMINISTIC
from conceptbench.errors import ConceptBenchError
from conceptbench.figures.leaderboard import draw_leaderboard
from conceptbench.measures.leaderboard import PRIMARY, SECONDARY, measure_leaderboard
from conceptbench.measures.nulls import WITHOUT_CHANCE

METHODS = {"topk": "topk", "topk-4": "topk", "mine": "custom", "random": "random", "pca": "pca"}
CONFIGURED = {**{name: name for name in METHODS}, "topk-4": "topk"}
L0 = {"topk": 8.0, "topk-4": 2.0, "mine": 24.0, "random": 9.0, "pca": 32.0}
FVU = {"topk": 0.1, "topk-4": 0.4, "mine": 0.05, "random": 0.7, "pca": 0.04}
RECOVERED = {"topk": 0.7, "topk-4": 0.5, "mine": 0.8, "random": 0.2, "pca": 0.4}


def cards() -> pd.DataFrame:
    rows = []
    for backbone in ("b", "c"):
        for name, l0 in L0.items():
            for seed in (0,) if name == "pca" else (0, 1, 2):
                ids = {"backbone": backbone, "block": 1, "dictionary": name, "seed": str(seed), "width": 64}
                more = {"dead_share": 0.1, "tokens_per_s": 1e5 + seed, "seconds": 2.0}
                rows.append({**ids, "method": METHODS[name], "l0": l0, "fvu": FVU[name] + 0.001 * seed, **more})
    return pd.DataFrame(rows)


def pooled(statistic: str, values: dict[str, float], half: float = 0.02, **more: object) -> pd.DataFrame:
    rows = [
        {
            "backbone": "b",
            "block": 1,
            "dictionary": name,
            "statistic": statistic,
            "seed": "all",
            "n": 50,
            "note": "",
            **more,
        }
        | {"estimate": value, "low": value - half, "high": value + half}
        for name, value in values.items()
    ]
    return pd.DataFrame(rows)


def tables() -> dict[str, pd.DataFrame]:
    truth = pd.concat(
        [
            pooled("recovered_at_0.90", RECOVERED, level="image"),
            pooled("recovered_at_0.90", dict.fromkeys(RECOVERED, 0.99), level="patch"),
        ]
    )
    stable = pooled("above_floor", {"topk": 0.3, "mine": 0.01, "random": 0.0}, runs="seeds")
    alike = pooled("mean_excess", {"topk": 0.06, "random": 0.07})
    return {"dictionaries": cards(), "truth_summary": truth, "stability": stable, "monosemanticity_summary": alike}


@pytest.fixture
def board() -> pd.DataFrame:
    return measure_leaderboard(tables(), METHODS, CONFIGURED, "topk")


def cell(board: pd.DataFrame, name: str, column: str, backbone: str = "b") -> pd.Series:
    mine = (board["dictionary"] == name) & (board["column"] == column) & (board["backbone"] == backbone)
    return board[mine].iloc[0]


def test_rank_follows_recovery_above_the_best_null(board: pd.DataFrame) -> None:
    ranks = board[board["backbone"] == "b"].groupby("dictionary")["rank"].first()
    assert ranks.to_dict() == {"mine": 1, "topk": 2, "topk-4": 3, "pca": 4, "random": 5}
    assert set(board["criterion"]) == {PRIMARY}
    row = cell(board, "mine", PRIMARY)
    assert row["estimate"] == pytest.approx(0.4) and row["low"] == pytest.approx(0.4 - 0.02 * np.sqrt(2))
    assert row["beats_null"] and row["null_dictionary"] == "pca"


def test_a_hook_point_without_the_criterion_has_no_ranks(board: pd.DataFrame) -> None:
    assert set(board.loc[board["backbone"] == "c", "rank"]) == {0}


def test_nulls_never_beat_themselves_and_unclear_differences_do_not_count(board: pd.DataFrame) -> None:
    assert not board.loc[board["role"] == "null", "beats_null"].any()
    assert not cell(board, "mine", "stability_above_floor")["beats_null"]
    assert cell(board, "topk", "stability_above_floor")["beats_null"]
    assert not cell(board, "topk", "mean_excess")["beats_null"]


def test_the_uncertainty_of_the_null_counts() -> None:
    """An interval above the null's estimate is not enough where the null itself is not known well."""
    changed = tables()
    known, unsure = pooled("mean_excess", {"topk": 0.12}, 0.02), pooled("mean_excess", {"random": 0.07}, 0.06)
    changed["monosemanticity_summary"] = pd.concat([known, unsure])
    row = cell(measure_leaderboard(changed, METHODS, CONFIGURED, "topk"), "topk", "mean_excess")
    assert row["low"] > row["null_estimate"] and not row["beats_null"]
    changed["monosemanticity_summary"] = pooled("mean_excess", {"topk": 0.12, "random": 0.07}, 0.02)
    assert cell(measure_leaderboard(changed, METHODS, CONFIGURED, "topk"), "topk", "mean_excess")["beats_null"]


def test_the_difference_to_the_null_is_not_taken_twice(board: pd.DataFrame) -> None:
    """The primary score is a difference already: its own interval decides, though the null's own has a width too."""
    changed = tables()
    changed["truth_summary"] = pooled("recovered_at_0.90", {"mine": 0.5, "pca": 0.4}, 0.065, level="image")
    row = cell(measure_leaderboard(changed, METHODS, CONFIGURED, "topk"), "mine", PRIMARY)
    assert 0 < row["low"] < 0.065 and row["beats_null"]


def test_a_null_without_chance_is_known_exactly_one_with_a_single_seed_is_not() -> None:
    one = cards()
    one.loc[one["dictionary"] == "pca", ["l0", "fvu"]] = [8.0, 0.5]
    board = measure_leaderboard({"dictionaries": one}, METHODS, CONFIGURED, "topk")
    row = cell(board, "topk", SECONDARY)
    assert row["null_dictionary"] == "pca" and row["beats_null"]
    one = one[(one["dictionary"] != "pca") & ((one["dictionary"] != "random") | (one["seed"] == "0"))]
    board = measure_leaderboard({"dictionaries": one}, METHODS, CONFIGURED, "topk")
    row = cell(board, "topk", SECONDARY)
    assert row["null_dictionary"] == "random" and not row["beats_null"]
    assert WITHOUT_CHANCE == DETERMINISTIC


def test_cards_have_no_null_and_no_speed(board: pd.DataFrame) -> None:
    """What learning costs is for the benchmarks: the clock of a card leaves out part of it."""
    assert not {"tokens_per_s", "seconds"} & set(board["column"])
    for column in ("l0", "dead_share", "fvu"):
        row = cell(board, "topk", column)
        assert row["null_dictionary"] == "" and np.isnan(row["null_estimate"]) and not row["beats_null"]


def test_errors_are_compared_at_equal_l0(board: pd.DataFrame) -> None:
    """Near the reference's L0 the own error counts, else that of the curve, else none."""
    assert cell(board, "topk", SECONDARY)["estimate"] == pytest.approx(0.101)
    assert cell(board, "random", SECONDARY)["estimate"] == pytest.approx(0.701)
    assert cell(board, "topk-4", SECONDARY)["estimate"] == pytest.approx(0.101)
    alone = cell(board, "mine", SECONDARY)
    assert np.isnan(alone["estimate"]) and alone["note"] == "no dictionary of this curve near L0 8"


def test_interpolation_runs_over_log_l0() -> None:
    changed = tables()
    changed["dictionaries"] = changed["dictionaries"].replace({"dictionary": {"mine": "topk-24"}})
    methods = {**METHODS, "topk-24": "topk"}
    changed["dictionaries"].loc[changed["dictionaries"]["dictionary"] == "random", "l0"] = 6.0
    configured = {**CONFIGURED, "topk-24": "topk"}
    board = measure_leaderboard({"dictionaries": changed["dictionaries"]}, methods, configured, "random")
    wanted = np.interp(np.log(6), np.log([2, 8, 24]), [0.401, 0.101, 0.051])
    assert cell(board, "topk-24", SECONDARY)["estimate"] == pytest.approx(wanted)


def test_curves_of_one_method_are_kept_apart() -> None:
    """Two recipes of TopK at the same sparsities: each has the error of its own dictionary, never that of the other."""
    rows = []
    for recipe, error in (("short", 0.4), ("long", 0.2)):
        for k in (4, 8, 16):
            ids = {"backbone": "b", "block": 1, "dictionary": f"{recipe}-k{k}", "l0": float(k), "dead_share": 0.0}
            rows += [{**ids, "seed": str(seed), "fvu": error - 0.005 * k} for seed in (0, 1)]
    table = pd.DataFrame(rows)
    methods = {name: "topk" for name in table["dictionary"]}
    configured = {name: name.partition("-")[0] for name in methods}
    board = measure_leaderboard({"dictionaries": table}, methods, configured, "short-k8")
    for name in methods:
        wanted = 0.36 if name.startswith("short") else 0.16
        assert cell(board, name, SECONDARY)["estimate"] == pytest.approx(wanted), name

    mixed = measure_leaderboard({"dictionaries": table}, methods, dict.fromkeys(methods, "all"), "short-k8")
    refused = cell(mixed, "short-k4", SECONDARY)
    assert np.isnan(refused["estimate"]) and refused["note"] == "two dictionaries of this curve have the same L0"


def test_without_truth_the_error_decides() -> None:
    board = measure_leaderboard({"dictionaries": cards()}, METHODS, CONFIGURED, "topk")
    assert set(board["criterion"]) == {SECONDARY}
    ranks = board[board["backbone"] == "b"].groupby("dictionary")["rank"].first()
    assert ranks["topk"] == 1 and ranks["random"] == 3 and ranks["mine"] == 0
    with pytest.raises(ConceptBenchError, match="needs the table dictionaries"):
        measure_leaderboard({}, METHODS, CONFIGURED, "topk")


def test_figure_follows_the_ranks_and_the_hook_point(board: pd.DataFrame, tmp_path: Path) -> None:
    draw_leaderboard(
        board, tmp_path / "leaderboard", backbone="b", block=1, dictionary="topk", formats=("png",), dpi=50
    )
    shown = pd.read_csv(tmp_path / "leaderboard.csv")
    assert set(shown["backbone"]) == {"b"} and set(shown["dictionary"]) == set(L0)
    draw_leaderboard(board, tmp_path / "other", backbone="absent", block=9, formats=("png",), dpi=50)
    assert len(pd.read_csv(tmp_path / "other.csv"))
