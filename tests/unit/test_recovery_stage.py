"""Rule measure_recovery from folder to tables, metrics and figure, on dictionaries learnt in a second."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import ttest_1samp

from conceptbench.config import load_config, stage_spec
from conceptbench.dictionaries import Dictionary, Normaliser, learn_many, specify
from conceptbench.dictionaries.rules import KeepLargest
from conceptbench.dictionaries.synthetic import World, WorldSpec, world_spec
from conceptbench.errors import ConceptBenchError
from conceptbench.figures.recovery import draw_recovery
from conceptbench.measures.metrics import MainHook, collect
from conceptbench.measures.stages.recovery import measure_recovery, summarise
from conceptbench.tables import write_json

ROOT = Path(__file__).resolve().parents[2]
WORLD = {"features": 24, "d": 12, "l0": 2.0, "exponent": 0.6, "parents": 4, "children": 2}
SPEC = {"seed": 0, "resamples": 200}


def true_dictionary(world: World) -> Dictionary:
    """The true atoms with a tied encoder, shuffled and scaled, as if learnt."""
    order = np.random.default_rng(0).permutation(len(world.atoms))
    atoms = world.atoms[order]
    zeros = np.zeros(len(atoms), np.float32)
    normaliser = Normaliser(np.zeros(world.spec.d, np.float32), 2.0)
    return Dictionary(atoms, 1.0 * atoms, zeros, zeros[: world.spec.d], normaliser, KeepLargest(2))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two worlds with two draws, a random, a PCA and a learnt dictionary, and one with the true atoms."""
    root = tmp_path_factory.mktemp("synthetic")
    methods: dict[str, dict[str, Any]] = {
        "random": {"method": "random", "width": 24, "k": 2},
        "pca": {"method": "pca", "k": 2},
        "topk": {"method": "topk", "width": 24, "k": 2, "batch_size": 256, "lr": 0.01, "warmup_steps": 10},
    }
    seeds = {"random": [0, 1], "pca": [0], "topk": [0, 1]}
    out = {}
    for name in ("first", "second"):
        out[name] = root / name
        for seed in (0, 1):
            world = World.draw(world_spec(name, WORLD), seed)
            learnt = learn_many(
                [specify(name=key, **options) for key, options in methods.items()],
                world.batches(16_384), d=12, seeds=seeds, held_out=world.tokens("held-out", 500).x,
                tokens_per_epoch=16_384, progress=False,
            )  # fmt: skip
            for (key, repetition), dictionary in learnt.items():
                dictionary.save(out[name] / f"draw{seed}" / key / f"seed{repetition}")
            true_dictionary(world).save(out[name] / f"draw{seed}" / "planted" / "seed0")
        spec = {
            "name": name, "world": WORLD, "seed": 0, "seeds": [0, 1], "tokens": 16_384, "held_out": 4000,
            "methods": {**methods, "planted": {"method": "topk"}}, "seeds_of": {**seeds, "planted": [0]},
            "configured": {key: key for key in (*methods, "planted")},
        }  # fmt: skip
        write_json({"spec": spec}, out[name] / "manifest.json")
    return out


@pytest.fixture(scope="module")
def tables(folders: dict[str, Path]) -> dict[str, pd.DataFrame]:
    return measure_recovery(folders, SPEC)


def pooled(tables: dict[str, pd.DataFrame], dictionary: str, score: str, world: str = "first") -> pd.Series:
    table = tables["recovery"]
    mine = table[(table["dictionary"] == dictionary) & (table["score"] == score) & (table["world"] == world)]
    return mine[mine["seed"] == "all"].iloc[0]


def test_planted_atoms_are_all_found_and_random_ones_are_at_the_null(tables: dict[str, pd.DataFrame]) -> None:
    for name in ("planted", "true-omp", "true-topk"):
        assert pooled(tables, name, "mcc_recall_over_null")["estimate"] == pytest.approx(1, abs=1e-5), name
        assert pooled(tables, name, "recall_at_0.90")["estimate"] == 1
    random = pooled(tables, "random", "mcc_recall_over_null")
    assert abs(random["estimate"]) < 0.1 < pooled(tables, "topk", "mcc_recall_over_null")["estimate"]


def test_ceilings_stand_in_order_and_kinds_are_told_apart(tables: dict[str, pd.DataFrame]) -> None:
    f1 = {name: pooled(tables, name, "f1")["estimate"] for name in ("true-omp", "true-topk", "topk", "random")}
    assert f1["true-omp"] > f1["true-topk"] > f1["random"] and f1["true-omp"] > f1["topk"]
    assert pooled(tables, "planted", "f1")["estimate"] == pytest.approx(f1["true-topk"], abs=1e-6)
    assert pooled(tables, "planted", "shrinkage")["estimate"] == pytest.approx(
        pooled(tables, "true-topk", "shrinkage")["estimate"], abs=1e-4
    ), "the scale of the normaliser is undone"
    kinds = tables["recovery"].groupby("dictionary")["kind"].first().to_dict()
    assert kinds == {
        "true-omp": "ceiling", "true-topk": "ceiling", "random": "floor", "pca": "floor", "topk": "learned",
        "planted": "learned",
    }  # fmt: skip


def test_rows_are_pooled_over_draws_and_seeds_with_intervals(tables: dict[str, pd.DataFrame]) -> None:
    table, features = tables["recovery"], tables["recovery_features"]
    assert len(features) == 2 * 2 * 24 * (2 + 2 + 1 + 2 + 1)
    mine = table[(table["dictionary"] == "topk") & (table["score"] == "f1") & (table["world"] == "first")]
    assert sorted(zip(mine["world_seed"], mine["seed"], strict=True)) == [
        ("0", "0"), ("0", "1"), ("1", "0"), ("1", "1"), ("all", "all"),
    ]  # fmt: skip
    row = pooled(tables, "topk", "f1")
    assert row["low"] < row["estimate"] < row["high"] and row["note"] == ""
    part = features[(features["dictionary"] == "topk") & (features["world"] == "first")]
    assert row["estimate"] == pytest.approx(part["f1"].mean()) and row["n"] == 48
    singles = mine[mine["seed"] != "all"]
    assert singles["low"].isna().all() and set(singles["note"]) == {"a single draw and seed"}
    assert np.isfinite(table.loc[table["score"].isin(["fvu", "l0"]), "estimate"]).all()


def synthetic_features(offset: float) -> pd.DataFrame:
    """A table of one score: two draws that differ by `offset`, two seeds, forty features."""
    rng = np.random.default_rng(0)
    ids = {"world": "w", "dictionary": "d", "configured": "d", "method": "m", "kind": "learned", "width": 3}
    parts = [
        pd.DataFrame({**ids, "world_seed": str(w), "seed": str(s), "feature": range(40)}).assign(
            score=rng.normal(offset * w, 0.1, 40)
        )
        for w in (0, 1)
        for s in (0, 1)
    ]
    return pd.concat(parts, ignore_index=True)


def test_draws_of_the_world_are_the_outer_level() -> None:
    for offset in (0.0, 2.0):
        features = synthetic_features(offset)
        table = summarise(features, SPEC)
        row = table[table["seed"] == "all"].iloc[0]
        bounds = ttest_1samp(features.groupby("world_seed")["score"].mean(), 0).confidence_interval(0.95)
        assert (row["low"], row["high"]) == pytest.approx((bounds.low, bounds.high))
        assert row["estimate"] == pytest.approx(offset / 2, abs=0.03)


@pytest.mark.parametrize(("score", "low"), [("recall_at_0.90", 0.0), ("f1", 0.0), ("score", None)])
def test_intervals_are_cut_at_the_range_of_a_share(score: str, low: float | None) -> None:
    """Two draws of 0 and 1: the t interval of two reaches far beyond both."""
    features = synthetic_features(0.0).rename(columns={"score": score})
    features[score] = features["world_seed"].astype(float)
    row = summarise(features, SPEC).iloc[0]
    assert row["estimate"] == 0.5
    assert (row["low"], row["high"]) == (0.0, 1.0) if low == 0.0 else row["low"] < -1 and row["high"] > 2


def test_one_draw_has_its_features_and_its_seeds() -> None:
    features = synthetic_features(0.0).query("world_seed == '0'")
    values = features["score"].to_numpy()[:40]
    narrow = summarise(features.assign(score=np.tile(values, 2)), SPEC).iloc[0]
    wide = summarise(features.assign(score=features["score"] + features["seed"].astype(float)), SPEC).iloc[0]
    assert narrow["high"] - narrow["low"] == pytest.approx(2 * 1.96 * values.std() / np.sqrt(40), rel=0.2)
    assert wide["low"] < 0 and wide["high"] > 1


@pytest.mark.parametrize("between", [0.02, 0.5])
def test_intervals_over_three_draws_cover(between: float) -> None:
    """Draws that differ little or much, seeds and features with scatter of their own; the truth is 0."""
    rng, held, simulations = np.random.default_rng(3), 0, 300
    index = pd.MultiIndex.from_product(
        [["0", "1", "2"], ["0", "1"], range(20)], names=["world_seed", "seed", "feature"]
    )
    ids = {"world": "w", "dictionary": "d", "configured": "d", "method": "m", "kind": "learned", "width": 3}
    features = index.to_frame(index=False).assign(**ids)
    for _ in range(simulations):
        world, seed = between * rng.standard_normal((3, 1, 1)), 0.05 * rng.standard_normal((3, 2, 1))
        values = world + seed + 0.3 * rng.standard_normal((3, 1, 20)) + 0.05 * rng.standard_normal((3, 2, 20))
        row = summarise(features.assign(score=values.ravel()), {"seed": 0, "resamples": 10}).iloc[0]
        held += row["low"] <= 0 <= row["high"]
    assert held / simulations >= 0.92


def test_scores_that_few_features_have_are_averaged_over_these() -> None:
    features = synthetic_features(0.0)
    features.loc[features["feature"] >= 3, "score"] = np.nan
    row = summarise(features, SPEC).iloc[0]
    assert row["estimate"] == pytest.approx(features["score"].mean()) and row["n"] == 6
    features["score"] = np.nan
    assert len(summarise(features, SPEC)) == 0


def test_results_repeat_and_do_not_depend_on_other_worlds(
    folders: dict[str, Path], tables: dict[str, pd.DataFrame]
) -> None:
    alone = measure_recovery({"second": folders["second"]}, SPEC)["recovery"]
    together = tables["recovery"]
    together = together[together["world"] == "second"].reset_index(drop=True)
    pd.testing.assert_frame_equal(alone, together)


def test_metrics_have_plain_keys_for_the_first_world(tables: dict[str, pd.DataFrame]) -> None:
    metrics = collect({"recovery": tables["recovery"]}, MainHook("clip-tiny", 4))
    row = pooled(tables, "topk", "f1", "second")
    assert metrics["recovery.topk@second.f1"] == row["estimate"]
    assert metrics["recovery.topk@second.f1.low"] == row["low"] < metrics["recovery.topk@second.f1.high"]
    assert metrics["recovery.planted.recall_at_0.90"] == 1 and "recovery.planted@first.f1" not in metrics


def test_the_figure_shows_pooled_rows_and_repeats_byte_by_byte(tables: dict[str, pd.DataFrame], tmp_path: Path) -> None:
    for folder in ("one", "two"):
        draw_recovery(tables["recovery"], tmp_path / folder / "recovery", dpi=60)
    for suffix in ("png", "svg", "csv"):
        one, two = (tmp_path / folder / f"recovery.{suffix}" for folder in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
    shown = pd.read_csv(tmp_path / "one" / "recovery.csv")
    assert set(shown["seed"]) == {"all"} and set(shown["world"]) == {"first", "second"}
    draw_recovery(tables["recovery"].iloc[:0], tmp_path / "empty", formats=("png",), dpi=50)
    assert (tmp_path / "empty.png").stat().st_size > 1000
    with pytest.raises(ConceptBenchError, match=r"'recovery' lacks the column.*kind"):
        draw_recovery(tables["recovery"].drop(columns="kind"), tmp_path / "bad")


def test_a_missing_dictionary_is_named(folders: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text((folders["first"] / "manifest.json").read_text())
    with pytest.raises(ConceptBenchError, match=r"draw0/pca/seed0/card\.json does not exist"):
        measure_recovery({"first": tmp_path}, SPEC)


def test_stamps_of_a_world_hold_what_learning_depends_on() -> None:
    overlay = {"synthetic": {"worlds": {"plain": {"l0": 3.0}}, "methods": ["topk", "pca"], "ks": [2, 4]}}
    config = load_config(ROOT / "config.yaml", overlay)
    spec = stage_spec(config, "learn_synthetic", world="plain")
    assert json.loads(json.dumps(spec)) == spec
    assert list(spec["methods"]) == ["topk-k2", "topk-k4", "pca-k2", "pca-k4"]
    assert spec["seeds_of"] == {"topk-k2": [0, 1, 2], "topk-k4": [0, 1, 2], "pca-k2": [0], "pca-k4": [0]}
    built = world_spec("plain", spec["world"])
    assert built == replace(WorldSpec(name="plain"), l0=3.0)
    assert stage_spec(config, "measure_recovery")["worlds"] == ["plain"]
    with pytest.raises(ConceptBenchError, match=r"'synthetic.methods' names the dictionary 'topp'.*'topk'"):
        load_config(ROOT / "config.yaml", {"synthetic": {"methods": ["topp"]}})
    with pytest.raises(ConceptBenchError, match="hierarchy has 500 features"):
        load_config(ROOT / "config.yaml", {"synthetic": {"worlds": {"w": {"parents": 100}}}})
