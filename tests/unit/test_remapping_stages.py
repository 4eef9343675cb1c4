"""The rules of remapping on a small CLIP and few random images: whole tables, tidy columns, refusals."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
from remapping_tools import BLOCK, CLASSES, WIDTH, StandIn, adapter, dictionary, small_backbone

from conceptbench.errors import ConceptBenchError
from conceptbench.measures.metrics import MainHook, collect
from conceptbench.measures.readout import activations_of, balanced_rows
from conceptbench.measures.stages.association import measure_association
from conceptbench.measures.stages.concepts import measure_concepts
from conceptbench.measures.stages.masking import measure_masking
from conceptbench.measures.stages.plants import measure_plants
from conceptbench.measures.stages.validity import measure_validity
from conceptbench.tables import ESTIMATE_COLUMNS

SEEDS = (0, 1)


@dataclass
class Pictures:
    """Random pictures of four classes, a third in each of the splits train, val and test."""

    each: int = 12
    name: str = "noise"
    classes: tuple[str, ...] = CLASSES

    def __len__(self) -> int:
        return 3 * self.each * len(CLASSES)

    def rows(self, split: str) -> np.ndarray:
        return np.flatnonzero(np.arange(len(self)) % 3 == ("train", "val", "test").index(split))

    def labels(self, rows: np.ndarray) -> np.ndarray:
        return np.asarray(rows) // 3 % len(CLASSES)

    def pictures(self, rows: np.ndarray) -> np.ndarray:
        shades = 60 * self.labels(rows)[:, None, None, None] + np.zeros((1, 16, 16, 3))
        noise = np.stack([np.random.default_rng(int(row)).integers(0, 70, (16, 16, 3)) for row in rows])
        return (shades + noise).astype(np.uint8)

    def thumbnails(self, rows: np.ndarray) -> np.ndarray:
        return self.pictures(rows)


SPEC = {
    "seed": 0,
    "setting": "all-classes",
    "block": BLOCK,
    "firing_threshold": 0.05,
    "resamples": 100,
    "masking": {"k": [1, 5], "images": 24, "edits": ["keep-error", "replace"], "dense": ["kept", "filtered"]},
    "concepts": {"q": 0.5, "q_sweep": [0.2], "images": 24, "exact": 2, "halvings": 3},
    "plants": {"seeds": 3, "resamples": 3, "images": 6, "population": 12, "q": 0.5},
}
BACKBONE, DATASET = small_backbone(), Pictures()
ADAPTERS: dict[str, dict[int, StandIn]] = {
    "zero-shot": {seed: adapter() for seed in SEEDS},
    "moved": {seed: adapter(seed=seed + 5, depth=2) for seed in SEEDS},
}
TOKENS = activations_of(BACKBONE, ADAPTERS["zero-shot"][0], DATASET, DATASET.rows("train"), range(4), BLOCK).numpy()  # type: ignore[arg-type]
DICTIONARIES = {seed: dictionary(TOKENS, k=3, seed=seed) for seed in SEEDS}


def test_masking_gives_every_curve_its_controls() -> None:
    tables = measure_masking("noise", BACKBONE, DATASET, ADAPTERS, DICTIONARIES, SPEC)  # type: ignore[arg-type]
    curves = tables["masking"]
    assert set(ESTIMATE_COLUMNS) <= set(curves.columns)
    own = curves[(curves["model"] == curves["selected_by"]) & (curves["dense"] == "kept")]
    controls = {"matched", "matched-predicted", "matched-wrong", "matched-dataset"}
    assert set(own["selection"]) == {"true", "predicted", "wrong", "dataset", "random", "pca"} | controls
    crossed = curves[curves["model"] != curves["selected_by"]]
    assert set(crossed["selection"]) == {"true", "dataset", "matched", "matched-dataset"}
    assert set(map(tuple, curves[["selected_by", "model"]].drop_duplicates().to_numpy())) == {
        (one, other) for one in ADAPTERS for other in ADAPTERS
    }
    assert set(own["k"]) == {0, 1, 5, 48} and set(own["outcome"]) == {"accuracy", "log_likelihood", "kl"}
    keys = ["model", "selected_by", "edit", "dense", "selection", "direction", "k", "outcome"]
    assert not curves.duplicated(keys).any()
    whole = own[(own["edit"] == "keep-error") & (own["outcome"] == "kl")].set_index(["selection", "direction", "k"])
    assert whole.loc[("true", "on", 48), "estimate"].eq(0).all()
    assert whole.loc[("true", "off", 0), "estimate"].eq(0).all()
    hit = tables["masking_balance"].set_index(["model", "dense", "selection", "k", "outcome"])["estimate"]
    assert hit["moved", "kept", "true", 5, "active_latents"] == hit["moved", "kept", "matched", 5, "active_latents"]
    of_controls = curves["selection"].str.startswith("matched")
    assert curves.loc[of_controls, ["disjoint", "shared"]].notna().all().all()
    assert curves.loc[~of_controls, ["disjoint", "shared"]].isna().all().all()
    assert curves.loc[of_controls & (curves["k"] == 48), "disjoint"].eq(0).all()
    gaps = tables["masking_contrasts"]
    assert (gaps["shared"].notna() == gaps["selection"].str.endswith("-matched")).all()
    assert set(gaps["selection"]) >= {f"{name}-matched" for name in ("true", "predicted", "wrong", "dataset")}
    values = [t.set_index([*keys])["estimate"] for t in (own, gaps[gaps["dense"] == "kept"])]
    at = ("moved", "moved", "replace", "kept"), ("on", 5, "log_likelihood")
    gap = values[0][(*at[0], "predicted", *at[1])] - values[0][(*at[0], "matched-predicted", *at[1])]
    assert values[1][(*at[0], "predicted-matched", *at[1])] == pytest.approx(gap)


def test_masking_changes_are_differences_of_the_curves() -> None:
    tables = measure_masking("noise", BACKBONE, DATASET, ADAPTERS, DICTIONARIES, SPEC)  # type: ignore[arg-type]
    keys = ["model", "selected_by", "edit", "dense", "selection", "direction", "k"]
    curves, changes = (tables[name][tables[name]["outcome"] == "accuracy"] for name in ("masking", "masking_changes"))
    curve, change = curves.set_index(keys)["estimate"], changes.set_index([*keys, "against"])["estimate"]
    assert change.index.is_unique and set(tables["masking_changes"]["outcome"]) == {"accuracy", "log_likelihood"}
    view = ("moved", "moved", "replace", "kept", "true", "off")
    unedited = curve[("moved", "moved", "keep-error", "kept", "true", "off", 0)]
    assert change[(*view, 5, "start")] == pytest.approx(curve[(*view, 5)] - curve[(*view, 0)])
    assert change[(*view, 5, "unedited")] == pytest.approx(curve[(*view, 5)] - unedited)
    other = ("zero-shot", "zero-shot", *view[2:])
    assert change[(*view, 5, "zero-shot")] == pytest.approx(curve[(*view, 5)] - curve[(*other, 5)])
    crossed = ("moved", "zero-shot", *view[2:])
    assert change[(*crossed, 5, "own-ranking")] == pytest.approx(curve[(*crossed, 5)] - curve[(*view, 5)])
    assert (change.xs("start", level="against").xs(("off", 0), level=("direction", "k")) == 0).all()
    assert "unedited" not in set(changes.loc[changes["edit"] == "keep-error", "against"])


def test_concepts_give_all_sets_controls_and_metrics() -> None:
    which = {"followed": {"": DICTIONARIES}, "adapted": {"moved": DICTIONARIES}}
    table = measure_concepts("noise", BACKBONE, DATASET, ADAPTERS, which, SPEC)  # type: ignore[arg-type]
    followed = table[table["dictionary"] == "followed"]
    assert set(followed["sets"]) == {"own", "predicted", "any", "matched", "permuted", "as_coded"}
    assert set(followed["q"]) == {0.5, 0.2} and set(table["seed"]) == {"0", "1", "all"}
    assert {"sufficient", "beyond", "existing_share"} <= set(followed["part"])
    converse = followed[followed["part"].isin(["sufficient", "sufficient_share"])]
    assert set(converse["sets"]) == {"own", "matched"} and set(converse["q"]) == {0.5}
    likely = converse[(converse["outcome"] == "log_likelihood") & (converse["part"] == "sufficient")]
    values = likely[likely["seed"] == "all"].set_index("sets")["estimate"]
    assert values["own"] != values["matched"]
    pooled = followed[(followed["seed"] == "all") & (followed["sets"] == "own") & (followed["q"] == 0.5)]
    values = pooled[pooled["outcome"] == "accuracy"].set_index("part")["estimate"]
    assert values["existing"] + values["recruited"] == pytest.approx(values["gain"])
    keys = collect({"concepts": table}, MainHook("small", BLOCK))
    assert all(key.startswith("remapping.moved.noise.") for key in keys)


def test_associations_are_tabled_with_pictures() -> None:
    again = {seed: dictionary(TOKENS, k=3, seed=seed + 5) for seed in SEEDS}
    spec = SPEC | {"shown": "moved"}
    adapters = ADAPTERS | {"relabelled": {seed: adapter(seed=seed + 9) for seed in SEEDS}}
    tables, pictures = measure_association(
        "noise", BACKBONE, DATASET, adapters, DICTIONARIES, {"moved": again}, spec  # type: ignore[arg-type]
    )  # fmt: skip
    whole = tables["remapping"]
    assert set(map(tuple, whole[["method", "dictionary"]].to_numpy())) == {
        *(("moved", "followed"), ("moved", "adapted"), ("relabelled", "followed"))
    }
    remapping = whole[whole["dictionary"] == "followed"]
    assert set(remapping["label"]) == {-1, 0, 1, 2, 3} and set(remapping["seed"]) == {"0", "1", "all"}
    agreement = tables["association_agreement"]
    assert (agreement["between_classes"].dropna().abs() <= 1 + 1e-9).all()
    assert set(agreement["model"]) == {"zero-shot", "moved"}, "the text side alone has the tower of zero-shot"
    assert (agreement["low"] < agreement["high"]).all() and (agreement["high"] <= 1 + 1e-9).all()
    assert set(tables["association"]["change"]) <= {"rose", "fell", "kept"}
    assert set(tables["association"]["method"]) == {"moved", "relabelled"}
    shown = tables["association_shown"]
    assert set(shown["method"]) == {"moved"} and set(shown["seed"]) == {"0"} and shown["label"].nunique() == 1
    assert set(shown["latent"]) == set(pictures["latent"])
    assert set(map(tuple, shown[["model", "effect"]].to_numpy())) == {
        (model, effect) for model in ("zero-shot", "adapted") for effect in ("first order", "exact")
    }
    assert len({len(array) for array in pictures.values()}) == 1
    assert set(pictures["change"]) == {"rose", "fell"} and pictures["images"].shape[1:] == (4, 16, 16, 3)
    keys = collect({"remapping": whole}, MainHook("small", BLOCK))
    pooled = whole[(whole["seed"] == "all") & (whole["label"] == -1)].set_index(["method", "dictionary"])["estimate"]
    assert keys["remapping.moved.noise.association"] == pooled["moved", "followed"]
    assert keys["remapping.moved.noise.association_relearnt"] == pooled["moved", "adapted"]
    assert "remapping.relabelled.noise.association" in keys


def test_validity_compares_dictionaries_on_the_adapted_model() -> None:
    adapters = ADAPTERS | {"other": {seed: adapter(seed=seed + 7, depth=2) for seed in SEEDS}}
    adapters |= {"relabelled": {seed: adapter(seed=seed + 9) for seed in SEEDS}}
    whole = measure_validity("noise", BACKBONE, DATASET, adapters, DICTIONARIES, {"moved": DICTIONARIES}, SPEC)  # type: ignore[arg-type]
    assert set(whole["method"]) == {"moved", "other"}, "who shares the activations of zero-shot has no rows"
    other = whole[whole["method"] == "other"]
    assert set(other["dictionary"]) == {"followed", "followed-on-zero-shot"}
    pooled = other[(other["seed"] == "all") & (other["dictionary"] == "followed")].set_index("statistic")
    of_zero = other[(other["seed"] == "all") & (other["dictionary"] != "followed")].set_index("statistic")
    rise = pooled.loc["fvu_rise"]
    assert rise["estimate"] == pytest.approx(pooled.loc["fvu", "estimate"] - of_zero.loc["fvu", "estimate"])
    assert rise["low"] < rise["estimate"] < rise["high"] and rise["exceeds"] == (rise["estimate"] > rise["margin"])
    assert rise["valid"] == (not rise["exceeds"]) and of_zero["valid"].all() and "fvu_excess" not in pooled.index
    table = whole[whole["method"] == "moved"]
    excess = table[(table["statistic"] == "fvu_excess") & (table["seed"] == "all")].iloc[0]
    assert excess["estimate"] == pytest.approx(0) and not excess["exceeds"]
    assert set(table["dictionary"]) == {"followed", "adapted", "followed-on-zero-shot"}
    fvu = table[(table["statistic"] == "fvu") & (table["seed"] == "all")].set_index("dictionary")["estimate"]
    assert fvu["followed"] == pytest.approx(fvu["adapted"]) and table["valid"].all()
    values = activations_of(BACKBONE, ADAPTERS["moved"][0], DATASET, DATASET.rows("test")[:24], range(4), BLOCK)  # type: ignore[arg-type]
    x = values.numpy().reshape(-1, WIDTH).astype(float)
    error = ((x - DICTIONARIES[0].reconstruct(values.numpy()).reshape(-1, WIDTH)) ** 2).sum()
    whole = ((x - x.mean(axis=0)) ** 2).sum()
    seed = table[(table["statistic"] == "fvu") & (table["seed"] == "0")].set_index("dictionary")["estimate"]
    assert seed["followed"] == pytest.approx(error / whole, rel=0.2)


def test_plants_are_validated_from_end_to_end() -> None:
    silent = dictionary(TOKENS, k=3, seed=0)
    silent.encoder_bias[:6] = -5.0
    tables = measure_plants(BACKBONE, DATASET, ADAPTERS["zero-shot"][0], silent, SPEC)  # type: ignore[arg-type]
    assert set(tables["plants"]["plant"]) == {"relabel", "recruit", "recruit-any", "amplify", "mixed", "null"}
    perception = tables["plant_repetitions"].query("plant == 'relabel' and part == 'perception'")
    alone = perception[perception["models"] == 1]
    assert (perception["estimate"] == 0).all() and len(alone) == 3 * 3 * 2 and len(perception) == len(alone) + 9 * 2
    keys = collect({"plants": tables["plants"]}, MainHook("small", BLOCK))
    assert "plants.null.false_positive_rate" in keys and "plants.relabel.coverage" in keys
    assert "plants.relabel.remapping.power" in keys and "plants.relabel.pooled.coverage" in keys
    assert set(tables["plant_claims"]["plant"]) == {"relabel", "null"}


def test_a_class_without_images_and_too_few_images_are_said() -> None:
    rng = np.random.default_rng(0)
    empty = Pictures()
    empty.labels = lambda rows: np.zeros(len(rows), dtype=int)  # type: ignore[method-assign]
    with pytest.raises(ConceptBenchError, match="Class 'b' of data set 'noise' has no images in its val split"):
        balanced_rows(empty, "val", [0, 1], 8, rng)  # type: ignore[arg-type]
    with pytest.raises(ConceptBenchError, match="may take 3 images of 4 classes"):
        balanced_rows(DATASET, "val", range(4), 3, rng)  # type: ignore[arg-type]


def test_images_are_spread_evenly_over_classes() -> None:
    rows = balanced_rows(DATASET, "val", range(4), 22, np.random.default_rng(0))  # type: ignore[arg-type]
    assert np.bincount(DATASET.labels(rows)).tolist() == [5, 5, 5, 5]
    assert set(rows) <= set(DATASET.rows("val")) and isinstance(rows, np.ndarray)
    assert isinstance(pd.Series(rows).is_monotonic_increasing, bool) and (np.diff(rows) > 0).all()
