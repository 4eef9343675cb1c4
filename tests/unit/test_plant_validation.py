"""How the validation of the estimators counts: coverage, false positives, power; one model and three pooled."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from remapping_tools import world

from conceptbench.measures.association import Effects, first_order
from conceptbench.measures.metrics import MainHook, collect
from conceptbench.measures.plant_harvest import Harvest
from conceptbench.measures.plant_summary import rate_interval, validation_table
from conceptbench.measures.plant_validation import (
    pooled_repetitions,
    remapping_claims,
    repetitions,
    sample_within,
)

NO_CLAIMS = pd.DataFrame(columns=["plant", "claim", "seed", "estimate", "low", "high", "claimed"])


def planted(level: dict[str, float], n: int = 40, classes: int = 6, seed: int = 0) -> Harvest:
    """A population whose images answer independently under every edit, so that intervals can be judged."""
    rng = np.random.default_rng(seed)
    draw = rng.random(n * classes)
    scores = {name: np.stack([draw < p, np.log(0.5) + 0.1 * draw]).astype(float) for name, p in level.items()}
    return Harvest("recruit", seed, scores, np.repeat(np.arange(classes), n))


LEVELS = {
    "zero_shot": 0.4,
    "baseline": 0.5,
    "baseline_as_coded": 0.5,
    "perceived": 0.5,
    "hybrid": 0.55,
    "adapted": 0.8,
    "existing": 0.55,
    "existing_as_coded": 0.7,
    "restored": 0.6,
    "restored_as_coded": 0.75,
    "unrecruited": 0.6,
}


def test_intervals_of_repetitions_cover_within_their_monte_carlo_error() -> None:
    found = planted(LEVELS, n=200)
    rows = pd.DataFrame(repetitions(found, 200, 40, np.random.default_rng(1), draws=200))
    mine = rows[(rows["outcome"] == "accuracy") & rows["part"].isin(["gain", "perception", "mapping"])]
    covered = ((mine["low"] <= mine["truth"]) & (mine["truth"] <= mine["high"])).groupby(mine["part"]).mean()
    assert (np.abs(covered - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 200) + 0.01).all(), covered


def test_the_table_counts_coverage_bias_and_claims() -> None:
    rows = pd.DataFrame(
        {
            "plant": "null",
            "models": 1,
            "seed": [0, 0, 1, 1],
            "repetition": [0, 1, 0, 1],
            "outcome": "accuracy",
            "part": "gain",
            "truth": 0.0,
            "truth_of_all": np.nan,
            "estimate": [0.1, -0.1, 0.3, 0.1],
            "low": [-0.1, -0.2, 0.2, -0.1],
            "high": [0.3, 0.1, 0.4, np.nan],
        }
    )
    rows.loc[3, "low"] = np.nan
    claims = pd.DataFrame(
        {
            "plant": "null",
            "claim": "remapping",
            "seed": [0, 0, 1, 1],
            "repetition": [0, 1, 0, 1],
            "estimate": [0.1, 0.0, 0.0, 0.2],
            "low": [-0.1, -0.1, -0.1, 0.1],
            "high": [0.3, 0.1, 0.1, 0.3],
            "claimed": [False, False, False, True],
        }
    )
    table = validation_table(rows, claims, np.random.default_rng(0)).set_index(["part", "statistic"])["estimate"]
    assert table["gain", "coverage"] == pytest.approx(2 / 3)
    assert table["gain", "bias"] == pytest.approx(0.1)
    assert table["remapping", "false_positive_rate"] == 0.25
    assert table["all", "coverage"] == pytest.approx((2 + 3) / 7)


def four(part: str, truth: float, low: list[float], high: list[float]) -> pd.DataFrame:
    """Two repetitions of two seeds of the relabel plant; NaN bounds where every image agrees on 0."""
    head = {
        "plant": "relabel",
        "models": 1,
        "truth_of_all": np.nan,
        "seed": [0, 0, 1, 1],
        "repetition": [0, 1, 0, 1],
        "outcome": "accuracy",
        "part": part,
    }
    rows = pd.DataFrame(head | {"truth": truth, "low": low, "high": high})
    return rows.assign(estimate=((rows["low"] + rows["high"]) / 2).fillna(0.0))


def test_no_part_hides_in_the_joint_coverage_and_nothing_is_found_where_nothing_is() -> None:
    nan = np.nan
    rows = pd.concat(
        [
            four("gain", 0.3, [0.1] * 4, [0.5] * 4),
            four("perception", 0.0, [nan] * 4, [nan] * 4),
            four("mapping", 0.3, [0.1, 0.1, 0.1, 0.4], [0.5, 0.5, 0.5, 0.6]),
            four("beyond", 0.0, [0.1, -0.3, -0.1, nan], [0.2, -0.1, 0.1, nan]),
            four("recruited", 0.0, [0.1, 0.2, 0.1, -0.2], [0.2, 0.3, 0.3, 0.1]),
            four("beyond_share", 0.0, [0.1, -0.3, nan, nan], [0.2, -0.1, nan, nan]).iloc[[1]],
        ]
    )
    table = validation_table(rows, NO_CLAIMS, np.random.default_rng(0))
    found = table.set_index(["part", "statistic"])
    assert found.loc[("all", "coverage"), "estimate"] == pytest.approx((4 + 3 + 1) / 11)
    worst = found.loc[("all", "worst_coverage")]
    assert worst["estimate"] == pytest.approx(1 / 3) and worst["note"] == "beyond" and worst["n"] == 3
    rates = table[table["statistic"] == "false_positive_rate"].set_index("part")["estimate"].to_dict()
    # The share is published for one repetition only, and lies below 0 there: a study would claim nothing.
    of_claims = {"recruitment": 0, "recruitment_by_beyond": 0.25, "recruitment_by_recruited": 0.75}
    assert rates == {"perception": 0, "beyond": 0.5, "recruited": 0.75} | of_claims
    keys = collect({"plants": table}, MainHook("small", 1))
    assert keys["plants.relabel.worst_coverage"] == pytest.approx(1 / 3)
    assert keys["plants.relabel.beyond.false_positive_rate"] == 0.5
    assert keys["plants.relabel.false_positive_rate"] == 0
    assert keys["plants.relabel.recruitment_by_recruited.false_positive_rate"] == 0.75


def test_remapping_is_rarely_claimed_where_nothing_changed_and_found_where_it_did() -> None:
    readout, population, dictionary, codes = world(48)
    effects = first_order(readout, population, dictionary, codes)
    turned = Effects(effects.latents, effects.fires, effects.effect[:, ::-1])
    field = Harvest("null", 0, {}, population.targets)
    claimed = {
        name: pd.DataFrame(remapping_claims(field, effects, other, 20, 20, 5, np.random.default_rng(0)))["claimed"]
        for name, other in (("null", effects), ("turned", turned))
    }
    assert claimed["null"].mean() <= 0.15 and claimed["turned"].mean() >= 0.8


def test_models_share_a_sample_of_images_unless_nothing_changed() -> None:
    readout, population, dictionary, codes = world(48)
    effects = first_order(readout, population, dictionary, codes)
    same = Effects(effects.latents, effects.fires, effects.effect)
    field = Harvest("relabel", 0, {}, population.targets)
    rows = pd.DataFrame(remapping_claims(field, effects, same, 3, 20, 5, np.random.default_rng(0)))
    np.testing.assert_allclose(rows["estimate"], 0, atol=1e-7)
    rows = pd.DataFrame(remapping_claims(field, effects, effects, 3, 20, 5, np.random.default_rng(0)))
    assert (rows["estimate"].abs() > 1e-6).all()


def test_three_seeds_are_pooled_on_one_sample_as_a_study_pools_them() -> None:
    fields = [planted(LEVELS | {"adapted": 0.7 + 0.05 * seed}, n=100, seed=seed) for seed in range(7)]
    rows = pd.DataFrame(pooled_repetitions(fields, 5, 40, np.random.default_rng(0), draws=100))
    gains = rows[(rows["part"] == "gain") & (rows["outcome"] == "accuracy")]
    assert len(gains) == 5 * 2 and (gains["models"] == 3).all()
    true = np.array([field.true()["gain"][0].mean() for field in fields])
    np.testing.assert_allclose(gains["truth_of_all"], true.mean())
    threes = {round(float(np.mean(true[list(m)])), 9) for m in combinations(range(7), 3)}
    assert {round(float(value), 9) for value in gains["truth"]} <= threes and gains["truth"].nunique() > 2
    share = rows[(rows["part"] == "beyond_share") & (rows["outcome"] == "accuracy")]
    mine = rows[(rows["part"] == "beyond") & (rows["outcome"] == "accuracy")]
    np.testing.assert_allclose(share["truth"].to_numpy(), mine["truth"].to_numpy() / gains["truth"].to_numpy())
    covered = (gains["low"] <= gains["truth_of_all"]) & (gains["truth_of_all"] <= gains["high"])
    assert covered.mean() >= 0.8
    assert not pooled_repetitions(fields[:2], 5, 40, np.random.default_rng(0))
    table = validation_table(rows, NO_CLAIMS, np.random.default_rng(0))
    assert {"coverage", "coverage_of_all"} <= set(table.loc[table["part"] == "gain", "statistic"])
    keys = collect({"plants": table}, MainHook("small", 1))
    assert {"plants.recruit.pooled.coverage", "plants.recruit.pooled.coverage_of_all"} <= set(keys)
    assert "plants.recruit.coverage" not in keys
    assert keys["plants.recruit.recruitment_by_beyond.pooled.power"] > 0


def test_shares_without_a_true_gain_have_no_bias_and_repetitions_are_counted() -> None:
    rows = four("beyond_share", np.nan, [0.1] * 4, [0.2] * 4)
    gains = four("gain", 0.0, [0.1] * 4, [0.2] * 4)
    table = validation_table(pd.concat([gains, rows]), NO_CLAIMS, np.random.default_rng(0))
    bias = table[table["statistic"] == "bias"].set_index("part")
    assert np.isnan(bias.loc["beyond_share", "estimate"]) and bias.loc["beyond_share", "n"] == 0
    assert bias.loc["gain", "estimate"] == pytest.approx(0.15) and bias.loc["gain", "n"] == 4


def test_a_share_of_repetitions_says_how_few_they_were() -> None:
    low, high = rate_interval(np.ones(10), np.repeat([0, 1], 5))
    assert low == pytest.approx(0.025 ** (1 / 10)) and high == 1
    alone = rate_interval(np.tile([1.0, 0.0], 20), np.arange(40))
    assert alone == pytest.approx((0.338, 0.662), abs=0.001)  # Clopper and Pearson, 20 of 40
    low, high = rate_interval(np.repeat([1.0, 0.0, 1.0, 0.0], 10), np.repeat([0, 1, 2, 3], 10))
    assert low < 0.1 and high > 0.9
    assert np.isnan(rate_interval(np.zeros(0), np.zeros(0))).all()


def test_every_rate_says_whether_it_meets_what_is_asked() -> None:
    reps = 100
    head = {"plant": "amplify", "models": 1, "outcome": "accuracy", "truth_of_all": np.nan, "truth": 0.0}
    head |= {"seed": np.repeat(np.arange(10), 10), "repetition": np.tile(np.arange(10), 10), "estimate": 0.0}
    rows = []
    for part, missed in (("gain", 20), ("perception", 5), ("mapping", 0), ("recruited", 10)):
        low = np.where(np.arange(reps) * 37 % reps < missed, 0.1, -0.1)
        rows.append(pd.DataFrame(head | {"part": part, "low": low, "high": 0.2}))
    table = validation_table(pd.concat(rows), NO_CLAIMS, np.random.default_rng(0))
    asked = table.set_index(["part", "statistic"])["asked"]
    found = {part: asked[part, "coverage"] for part in ("gain", "perception", "mapping", "recruited")}
    assert found == {"gain": "below", "perception": "compatible", "mapping": "compatible", "recruited": "compatible"}
    assert asked["gain", "false_positive_rate"] == "above" and asked["mapping", "false_positive_rate"] == "compatible"
    assert asked["gain", "bias"] == ""


def test_samples_are_drawn_within_classes() -> None:
    targets = np.array([0, 0, 1, 1, 1, 2])
    drawn = sample_within(targets, 4, np.random.default_rng(0))
    assert np.bincount(targets[drawn]).tolist() == [4, 4, 4]
