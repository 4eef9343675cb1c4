"""Leaderboard: ranks, nulls of the same hook point, errors at equal L0, and what it does without some measures."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from conceptbench.errors import ConceptBenchError
from conceptbench.figures.leaderboard import draw_leaderboard
from conceptbench.measures.leaderboard import PRIMARY, SECONDARY, measure_leaderboard

METHODS = {"topk": "topk", "topk-4": "topk", "mine": "custom", "random": "random", "pca": "pca"}
L0 = {"topk": 8.0, "topk-4": 2.0, "mine": 24.0, "random": 9.0, "pca": 32.0}
FVU = {"topk": 0.1, "topk-4": 0.4, "mine": 0.05, "random": 0.7, "pca": 0.04}
RECOVERED = {"topk": 0.7, "topk-4": 0.5, "mine": 0.8, "random": 0.2, "pca": 0.4}


def cards() -> pd.DataFrame:
    rows = []
    for backbone in ("b", "c"):
        for name, l0 in L0.items():
            for seed in (0,) if name == "pca" else (0, 1, 2):
                ids = {"backbone": backbone, "block": 1, "dictionary": name, "seed": str(seed), "width": 64}
                cost = {"dead_share": 0.1, "tokens_per_s": 1e5 + seed, "seconds": 2.0}
                rows.append({**ids, "method": METHODS[name], "l0": l0, "fvu": FVU[name] + 0.001 * seed, **cost})
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
    return measure_leaderboard(tables(), METHODS, "topk")


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


def test_cost_and_sparsity_have_no_null(board: pd.DataFrame) -> None:
    for column in ("l0", "tokens_per_s", "dead_share", "fvu"):
        row = cell(board, "topk", column)
        assert row["null_dictionary"] == "" and np.isnan(row["null_estimate"]) and not row["beats_null"]


def test_errors_are_compared_at_equal_l0(board: pd.DataFrame) -> None:
    """Near the reference's L0 the own error counts, else that of the method's line, else none."""
    assert cell(board, "topk", SECONDARY)["estimate"] == pytest.approx(0.101)
    assert cell(board, "random", SECONDARY)["estimate"] == pytest.approx(0.701)
    assert cell(board, "topk-4", SECONDARY)["estimate"] == pytest.approx(0.101)
    alone = cell(board, "mine", SECONDARY)
    assert np.isnan(alone["estimate"]) and alone["note"] == "no dictionary of this method near L0 8"


def test_interpolation_runs_over_log_l0() -> None:
    changed = tables()
    changed["dictionaries"] = changed["dictionaries"].replace({"dictionary": {"mine": "topk-24"}})
    methods = {**METHODS, "topk-24": "topk"}
    changed["dictionaries"].loc[changed["dictionaries"]["dictionary"] == "random", "l0"] = 6.0
    board = measure_leaderboard({"dictionaries": changed["dictionaries"]}, methods, "random")
    wanted = np.interp(np.log(6), np.log([2, 8, 24]), [0.401, 0.101, 0.051])
    assert cell(board, "topk-24", SECONDARY)["estimate"] == pytest.approx(wanted)


def test_without_truth_the_error_decides() -> None:
    board = measure_leaderboard({"dictionaries": cards()}, METHODS, "topk")
    assert set(board["criterion"]) == {SECONDARY}
    ranks = board[board["backbone"] == "b"].groupby("dictionary")["rank"].first()
    assert ranks["topk"] == 1 and ranks["random"] == 3 and ranks["mine"] == 0
    with pytest.raises(ConceptBenchError, match="needs the table dictionaries"):
        measure_leaderboard({}, METHODS, "topk")


def test_figure_follows_the_ranks_and_the_hook_point(board: pd.DataFrame, tmp_path: Path) -> None:
    draw_leaderboard(
        board, tmp_path / "leaderboard", backbone="b", block=1, dictionary="topk", formats=("png",), dpi=50
    )
    shown = pd.read_csv(tmp_path / "leaderboard.csv")
    assert set(shown["backbone"]) == {"b"} and set(shown["dictionary"]) == set(L0)
    draw_leaderboard(board, tmp_path / "other", backbone="absent", block=9, formats=("png",), dpi=50)
    assert len(pd.read_csv(tmp_path / "other.csv"))
