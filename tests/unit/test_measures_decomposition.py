"""Shapley decomposition: laws of the Shapley value, planted relabelling, shares only where there is a gain."""

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import ttest_1samp

from conceptbench.errors import ConceptBenchError
from conceptbench.measures.decomposition import NO_GAIN, decompose, shapley

PLAYERS = ("perception", "blocks", "text")
COALITIONS = [frozenset(c) for size in range(4) for c in combinations(PLAYERS, size)]


@given(hnp.arrays(np.float64, 8, elements=st.floats(-1, 1)))
def test_parts_add_up_to_the_gain(values: np.ndarray) -> None:
    game = dict(zip(COALITIONS, values, strict=True))
    parts = shapley(game, PLAYERS)
    assert sum(parts.values()) == pytest.approx(game[frozenset(PLAYERS)] - game[frozenset()], abs=1e-12)


@given(hnp.arrays(np.float64, 4, elements=st.floats(-1, 1)))
def test_a_player_that_changes_nothing_gets_exactly_zero(values: np.ndarray) -> None:
    rest = dict(zip([frozenset(c) for s in range(3) for c in combinations(PLAYERS[1:], s)], values, strict=True))
    game = {c: rest[c - {"perception"}] for c in COALITIONS}
    assert shapley(game, PLAYERS)["perception"] == 0


def test_two_players_follow_the_printed_formula() -> None:
    zz, az, za, aa = 0.4, 0.5, 0.65, 0.9
    game = {frozenset(): zz, frozenset({"p"}): az, frozenset({"m"}): za, frozenset({"p", "m"}): aa}
    parts = shapley(game, ("p", "m"))
    assert parts["p"] == pytest.approx(0.5 * (az - zz) + 0.5 * (aa - za))
    assert parts["m"] == pytest.approx(0.5 * (za - zz) + 0.5 * (aa - az))


def test_a_missing_coalition_is_named() -> None:
    with pytest.raises(ConceptBenchError, match="coalition"):
        shapley({frozenset(): 0.0}, ("p",))


def hybrids(effects: dict[str, float], n: int = 400, seeds: int = 2, base: float = 0.3) -> pd.DataFrame:
    """Images are correct when a fixed draw lies below base + the summed effects of the adapted parts."""
    frames = []
    for seed in range(seeds):
        draw = np.random.default_rng(seed).permutation(n) / n
        for states in product(("zero-shot", "adapted"), repeat=3):
            adapted = dict(zip(PLAYERS, (s == "adapted" for s in states), strict=True))
            level = base + sum(effect for part, effect in effects.items() if adapted[part])
            frame = pd.DataFrame({"image": range(n), "label": np.arange(n) % 5, "correct": draw < level - 1e-9})
            frame["log_likelihood"] = np.log(0.1 + level) - draw
            frames.append(frame.assign(seed=seed, source=states[0], blocks=states[1], text=states[2]))
    return pd.concat(frames).assign(task="flora", method="maple", half="base", variant="averaged")


def pooled(effects: dict[str, float], players: int, outcome: str = "accuracy") -> pd.DataFrame:
    table = decompose(hybrids(effects), np.random.default_rng(0), 200)
    chosen = (table["players"] == players) & (table["outcome"] == outcome) & (table["seed"] == "all")
    return table[chosen].set_index("part")


def test_additive_effects_are_returned() -> None:
    two, three = (pooled({"perception": 0.1, "blocks": 0.2, "text": 0.1}, players) for players in (2, 3))
    assert two.loc["gain", "estimate"] == pytest.approx(0.4)
    assert two.loc["perception_share", "estimate"] == pytest.approx(0.25)
    assert two.loc["mapping_share", "estimate"] == pytest.approx(0.75)
    assert three.loc["blocks", "estimate"] == pytest.approx(0.2)
    assert three.loc["text_share", "estimate"] == pytest.approx(0.25)
    assert two.loc["gain", "low"] < 0.4 < two.loc["gain", "high"]


def test_shares_of_seeds_that_differ_have_the_t_interval_of_their_linearisation() -> None:
    """Three seeds whose gain is 0.4 and whose perception is 0.1, 0.2 or 0.3 of all images."""
    parts = []
    for seed, perception in enumerate((0.1, 0.2, 0.3)):
        frame = hybrids({"perception": perception, "text": 0.4 - perception}, seeds=1, n=4000)
        parts.append(frame.assign(seed=seed))
    table = decompose(pd.concat(parts), np.random.default_rng(0), 100)
    chosen = table[(table["players"] == 2) & (table["outcome"] == "accuracy") & (table["seed"] == "all")]
    row = chosen.set_index("part").loc["perception_share"]
    half = (ttest_1samp([0.25, 0.5, 0.75], 0.5).confidence_interval(0.95).high - 0.5) * 0.95
    assert row["estimate"] == pytest.approx(0.5) and row["low"] < 0.5 - half and row["high"] > 0.5 + half


def test_relabelling_has_no_perception_at_all() -> None:
    for outcome, players in product(("accuracy", "log_likelihood"), (2, 3)):
        table = pooled({"text": 0.3}, players, outcome)
        assert table.loc["perception", "estimate"] == 0
        assert table.loc["perception_share", "estimate"] == 0
    assert pooled({"text": 0.3}, 2).loc["mapping_share", "estimate"] == pytest.approx(1)


def test_shares_are_not_reported_without_a_gain() -> None:
    table = pooled({"perception": 0.0}, 2)
    assert np.isnan(table.loc["perception_share", "estimate"])
    assert table.loc["perception_share", "note"] == NO_GAIN
    cancelling = pooled({"perception": 0.1, "text": -0.1}, 2)
    assert cancelling.loc["perception", "estimate"] == pytest.approx(0.1)
    assert np.isnan(cancelling.loc["mapping_share", "estimate"])


def test_incomplete_hybrids_are_refused() -> None:
    frame = hybrids({"text": 0.1})
    with pytest.raises(ConceptBenchError, match="does not cover every image"):
        decompose(frame.iloc[1:], np.random.default_rng(0), 20)
    with pytest.raises(ConceptBenchError, match="lacks the column"):
        decompose(frame.drop(columns="source"), np.random.default_rng(0), 20)
