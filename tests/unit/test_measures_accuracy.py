"""Accuracy tables on predictions whose accuracy is known."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conceptbench.errors import ConceptBenchError
from conceptbench.measures.accuracy import accuracy_tables, harmonic_mean
from conceptbench.measures.metrics import MainHook, collect


def predictions(
    method: str, accuracy: float, seeds: int, n: int = 200, halves: tuple[str, ...] = ("base", "novel")
) -> pd.DataFrame:
    frames = []
    for at, half in enumerate(halves):
        for seed in range(seeds):
            rng = np.random.default_rng([seed, at, len(method)])
            frame = pd.DataFrame({"image": np.arange(n) + at * n, "label": np.arange(n) % 4 + 4 * at})
            frame["correct"] = rng.permutation(np.arange(n) < round(accuracy * n))
            frames.append(frame.assign(half=half, seed=seed, method=method, task="flora"))
    return pd.concat(frames)


def tables(*frames: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    return accuracy_tables(pd.concat(frames), np.random.default_rng(0), 300)


def test_accuracy_is_micro_and_pools_seeds() -> None:
    accuracy, _ = tables(predictions("zero-shot", 0.4, 1), predictions("maple", 0.7, 3))
    rows = accuracy.set_index(["method", "half", "seed"])
    assert rows.loc[("maple", "base", "1"), "estimate"] == pytest.approx(0.7)
    assert rows.loc[("maple", "base", "all"), "estimate"] == pytest.approx(0.7)
    assert rows.loc[("maple", "base", "all"), "n_seeds"] == 3
    pooled = rows.loc[("zero-shot", "novel", "all")]
    assert pooled["low"] < 0.4 < pooled["high"]
    assert pooled["high"] - pooled["low"] == pytest.approx(2 * 1.96 * np.sqrt(0.24 / 200), rel=0.25)


def test_the_harmonic_mean_is_of_averaged_accuracies() -> None:
    frame = predictions("maple", 0.5, 2)
    frame.loc[(frame["half"] == "base") & (frame["seed"] == 0), "correct"] = True
    frame.loc[(frame["half"] == "base") & (frame["seed"] == 1), "correct"] = False
    accuracy, _ = tables(frame)
    rows = accuracy[accuracy["seed"] == "all"].set_index("half")["estimate"]
    assert rows["base"] == 0.5
    assert rows["harmonic_mean"] == pytest.approx(float(harmonic_mean(0.5, 0.5)))


def test_the_difference_to_zero_shot_is_paired() -> None:
    _, difference = tables(predictions("zero-shot", 0.4, 1), predictions("maple", 0.7, 3))
    rows = difference.set_index("half")
    assert rows.loc["base", "estimate"] == pytest.approx(0.3)
    assert rows.loc["base", "low"] > 0
    assert set(rows.index) == {"base", "novel", "harmonic_mean"}
    same = predictions("zero-shot", 0.4, 1)
    _, none = tables(same, same.assign(method="copy"))
    assert (none["estimate"] == 0).all()
    assert (none["p"] == 1).all()


def test_a_half_that_a_method_cannot_score_has_a_row_that_says_so() -> None:
    accuracy, difference = tables(
        predictions("zero-shot", 0.4, 1), predictions("linear-probe", 0.9, 2, halves=("base",))
    )
    probe = accuracy[accuracy["method"] == "linear-probe"]
    assert probe[probe["estimate"].notna()]["half"].unique().tolist() == ["base"]
    absent = probe[probe["estimate"].isna()].set_index("half")
    assert list(absent.index) == ["novel", "harmonic_mean"]
    assert (absent["n"] == 0).all() and (absent["seed"] == "all").all() and absent["low"].isna().all()
    assert set(absent["note"]) == {"linear-probe has no classifier for classes it was not trained on"}
    assert not [key for key in collect({"accuracy": accuracy}, MainHook("b", 1)) if "linear-probe.flora.novel" in key]
    assert set(difference["half"]) == {"base"}


def test_incomplete_predictions_are_refused() -> None:
    with pytest.raises(ConceptBenchError, match="same images in every seed"):
        tables(predictions("maple", 0.5, 2).iloc[:-1])
    with pytest.raises(ConceptBenchError, match="lack the column"):
        tables(predictions("maple", 0.5, 2).drop(columns="half"))
    with pytest.raises(ConceptBenchError, match="same images"):
        tables(predictions("zero-shot", 0.5, 1), predictions("maple", 0.5, 1, n=100))


def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    covered = []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        frame = pd.DataFrame({"image": range(120), "label": np.arange(120) % 3, "half": "all", "seed": 0})
        frame = frame.assign(method="zero-shot", task="t", correct=rng.random(120) < 0.6)
        accuracy, _ = accuracy_tables(frame, rng, 150)
        row = accuracy[accuracy["seed"] == "all"].iloc[0]
        covered.append(row["low"] <= 0.6 <= row["high"])
    assert 0.90 <= np.mean(covered) <= 0.99


@given(st.floats(0, 1), st.floats(0, 1))
def test_the_harmonic_mean_lies_between_its_parts(base: float, novel: float) -> None:
    mean = float(harmonic_mean(base, novel))
    assert min(base, novel) - 1e-12 <= mean or min(base, novel) < 1e-150
    assert mean <= (base + novel) / 2 + 1e-12
