"""Measures as the rules call them: codes on disk and a small rendered data set with planted latents."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

from conceptbench.data import Dataset, DatasetSpec, factor_table, patch_masks, prepare_dataset
from conceptbench.data.captions import (
    BACKGROUND_WORDS,
    COLOUR_WORDS,
    FILL_WORDS,
    PLACE_WORDS,
    SHAPE_WORDS,
    SIZE_WORDS,
)
from conceptbench.dictionaries import Codes
from conceptbench.errors import ConceptBenchError
from conceptbench.measures.backbones import FACTORS, measure_backbone
from conceptbench.measures.dictionaries import count_densities, measure_dictionaries
from conceptbench.measures.stages.encoded import Encoded, read_encoded
from conceptbench.measures.stages.latents import choose_latents, measure_latents, picture_exemplars
from conceptbench.measures.stages.overlap import join_tables
from conceptbench.measures.stages.truth import _null_kind, measure_truth
from conceptbench.tables import write_json

PLANTED = {0: "colour=red", 1: "shape=star", 2: "background=sand"}
WIDTH, NOISE = 16, 0.02
GRID, PREFIX = (8, 8), 3
WORDS = {
    "shape": SHAPE_WORDS,
    "colour": COLOUR_WORDS,
    "fill": FILL_WORDS,
    "size": SIZE_WORDS,
    "place": PLACE_WORDS,
    "background": BACKGROUND_WORDS,
}


def codes_of(dense: np.ndarray) -> Codes:
    matrix = sparse.csr_matrix(dense.reshape(-1, dense.shape[2]).astype(np.float32))
    indptr, indices = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32)
    return Codes(indptr, indices, matrix.data, dense.shape, "d" * 8)


def write_codes(folder: Path, backbone: str, rows: np.ndarray, dictionaries: dict[str, np.ndarray]) -> Path:
    """Codes of some dictionaries at block 1 for one seed, as the rule encode_codes leaves them."""
    for name, dense in dictionaries.items():
        path = folder / "block1" / name / "seed0" / "codes.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        codes_of(dense).save(path)
    spec = {"backbone": backbone, "blocks": [1], "seeds_of": {name: [0] for name in dictionaries}}
    write_json({"rows": rows.tolist(), "spec": spec}, folder / "manifest.json")
    return folder


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    spec = DatasetSpec("scenes", "scenes", sizes={"val": 160, "test": 270, "held-out": 40}, pairs=30)
    return prepare_dataset(spec, tmp_path_factory.mktemp("scenes"), None, seed=4)


# --- codes on disk ---------------------------------------------------------------------------------------------------


def test_codes_of_chosen_images_come_in_the_order_asked_for() -> None:
    dense = np.zeros((4, 2, 3))
    dense[np.arange(4), 1, 0] = [1, 2, 3, 4]
    encoded = Encoded("b", 1, "topk", "0", codes_of(dense), np.array([30, 10, 40, 20]))
    assert encoded.of([20, 30, 20]).csr().toarray()[1::2, 0].tolist() == [4, 1, 4]
    assert encoded.of(np.array([], dtype=np.int64)).shape == (0, 2, 3)
    for missing in ([10, 15], [50], [5]):
        with pytest.raises(ConceptBenchError, match="dictionary topk on b lack images of the split"):
            encoded.of(missing)


def test_codes_are_read_one_dictionary_at_a_time(tmp_path: Path) -> None:
    dense = np.ones((2, 2, 3))
    write_codes(tmp_path, "b", np.array([5, 6]), {"random": dense, "topk": 2 * dense})
    found = list(read_encoded(tmp_path))
    assert [encoded.ids["dictionary"] for encoded in found] == ["random", "topk"]
    assert found[1].ids == {"backbone": "b", "block": 1, "dictionary": "topk", "seed": "0"}
    assert [encoded.dictionary for encoded in read_encoded(tmp_path, [1], ["random"])] == ["random"]
    assert not list(read_encoded(tmp_path, [0]))


def test_tables_of_several_tasks_are_joined_by_name() -> None:
    parts = [{"a": pd.DataFrame({"x": [1]})}, {"a": pd.DataFrame({"x": [2]}), "b": pd.DataFrame({"y": [3]})}]
    joined = join_tables(parts)
    assert joined["a"]["x"].tolist() == [1, 2] and joined["b"]["y"].tolist() == [3]


# --- latents and their exemplars -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def latents(scenes: Dataset, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """On split B latent 0 fires most on image 7 at patch 9, latent 1 on one image, latent 2 never, latent 3 always."""
    rows, other = scenes.rows("test"), scenes.rows("val")
    dense = np.zeros((len(other) + len(rows), 67, 4))
    dense[: len(other)] = 9.0
    of_test = dense[len(other) :]
    of_test[:, PREFIX + 9, 0] = 1.0
    of_test[7, PREFIX + 9, 0] = 5.0
    of_test[4, PREFIX, 1] = 2.0
    of_test[:, :, 3] = 1.0
    order = np.concatenate([other, rows])
    folder = write_codes(tmp_path_factory.mktemp("codes"), "clip-tiny", order, {"topk": dense})
    spec = {"exemplars": 3, "firing_threshold": 0.2, "block": 1, "dictionary": "topk"}
    spec |= {"latents_on": ["scenes"], "seeds_of": {"topk": [0]}}
    statistics, exemplars = measure_latents({"scenes": (folder, scenes)}, {"scenes": GRID}, spec)
    return SimpleNamespace(folder=folder, rows=rows, spec=spec, statistics=statistics, exemplars=exemplars)


def test_statistics_of_latents_carry_their_names(latents: SimpleNamespace) -> None:
    table = latents.statistics
    ids = table[["backbone", "block", "dictionary", "seed", "dataset"]].drop_duplicates()
    assert ids.values.tolist() == [["clip-tiny", 1, "topk", "0", "scenes"]]
    assert table["n_reference"].tolist() == [3, 1, 0, 3]
    assert table["dead"].tolist() == [False, False, True, False]
    assert table["dense"].tolist() == [False, False, False, True]
    first = latents.exemplars[(latents.exemplars["latent"] == 0) & (latents.exemplars["rank"] == 0)].iloc[0]
    assert (first["image"], first["patch"]) == (latents.rows[7], 9)


def test_codes_of_another_grid_are_refused(scenes: Dataset, latents: SimpleNamespace) -> None:
    with pytest.raises(ConceptBenchError, match="67 tokens an image, fewer than the 9 x 9 patches"):
        measure_latents({"scenes": (latents.folder, scenes)}, {"scenes": (9, 9)}, latents.spec)


def test_latents_with_enough_images_are_chosen_and_pictured(scenes: Dataset, latents: SimpleNamespace) -> None:
    shown = choose_latents(latents.statistics, latents.spec)
    assert shown.latents == (0,)
    shown = replace(shown, latents=(0, 1))
    arrays = picture_exemplars(latents.folder, scenes, GRID, latents.exemplars, shown, n_images=3)
    assert arrays["images"].shape == (2, 3, 64, 64, 3) and arrays["maps"].shape == (2, 3, 8, 8)
    assert np.array_equal(arrays["images"][0, 0], scenes.images([latents.rows[7]])[0])
    expected = np.zeros((8, 8))
    expected[1, 1] = 5.0
    assert np.array_equal(arrays["maps"][0, 0], expected)
    assert np.isnan(arrays["maps"][1, 1:]).all() and not np.isnan(arrays["maps"][1, 0]).any()
    assert arrays["score"][0, 0] == pytest.approx(5.0 / 67) and "not picked by hand" in str(arrays["note"])


def test_the_choice_is_spread_over_the_ranking() -> None:
    n = 200
    table = pd.DataFrame({"latent": range(n), "mean_activation": np.arange(n)[::-1], "dead": False, "dense": False})
    table = table.assign(n_reference=9, dataset="scenes", block=1, dictionary="topk", seed="0")
    spec = {"latents_on": ["scenes"], "block": 1, "dictionary": "topk", "seeds_of": {"topk": [0]}}
    spec["exemplars"] = 9
    chosen = choose_latents(table, spec).latents
    assert len(chosen) == 20 and chosen[0] == 0 and chosen[-1] == n - 1
    assert max(np.diff(chosen)) - min(np.diff(chosen)) <= 1
    assert choose_latents(table.assign(dead=True), spec).latents == ()


# --- truth -----------------------------------------------------------------------------------------------------------


def planted_codes(scenes: Dataset, rows: np.ndarray, seed: int, planted: bool) -> np.ndarray:
    """Noise everywhere and, when planted, latents 0 to 2 firing on the patches that show their factor value."""
    generator = np.random.default_rng(seed)
    shape = (len(rows), PREFIX + 64, WIDTH)
    dense = generator.random(shape) * (generator.random(shape) < NOISE)
    if planted:
        masks = patch_masks(scenes, rows, 8)
        for latent, name in PLANTED.items():
            dense[:, :, latent] = 0.0
            dense[:, PREFIX:, latent] = np.where(masks[name] > 0.3, 1.0 + masks[name], 0.0)
    return dense


@pytest.fixture(scope="module")
def truth(scenes: Dataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, pd.DataFrame]:
    rows = np.concatenate([scenes.rows(split) for split in ("val", "test", "pairs")])
    dictionaries = {"topk": planted_codes(scenes, rows, 0, True), "random": planted_codes(scenes, rows, 1, False)}
    folder = write_codes(tmp_path_factory.mktemp("truth"), "clip-tiny", rows, dictionaries)
    spec = {
        "resamples": 50,
        "permutations": 50,
        "seed": 0,
        "seeds": [0],
        "dictionaries": {"topk": "topk", "random": "random"},
        "backbones": {"clip-tiny": "clip"},
    }
    return measure_truth({"clip-tiny": folder}, {"clip-tiny": GRID}, scenes, spec)


def test_planted_latents_are_recovered_from_images(scenes: Dataset, truth: dict[str, pd.DataFrame]) -> None:
    table = truth["truth_factors"]
    mine = table[(table["dictionary"] == "topk") & (table["metric"] == "auroc")].set_index(["factor", "value"])
    for latent, name in PLANTED.items():
        row = mine.loc[tuple(name.split("="))]
        assert row["latent"] == latent and row["estimate"] > 0.95
    known = factor_table(scenes)
    known = known[known["factor"] != "kind"]
    assert len(mine) == len(known[known["image"].isin(scenes.rows("val"))][["factor", "value"]].drop_duplicates())


def test_planted_latents_are_recovered_from_patches(truth: dict[str, pd.DataFrame]) -> None:
    table = truth["truth_patches"]
    precision = table[(table["dictionary"] == "topk") & (table["metric"] == "average_precision")]
    precision = precision.set_index(["factor", "value"])
    for latent, name in PLANTED.items():
        row = precision.loc[tuple(name.split("="))]
        assert row["latent"] == latent and row["estimate"] > 0.8 * row["ceiling"]


def test_the_planted_dictionary_beats_its_null(truth: dict[str, pd.DataFrame]) -> None:
    summary = truth["truth_summary"]
    assert set(summary["level"]) == {"image", "patch"} and set(summary["dictionary"]) == {"topk", "random"}
    means = summary[(summary["statistic"] == "mean_auroc") & (summary["seed"] == "all")].set_index("dictionary")
    assert means.loc["topk", "estimate"] > means.loc["random", "estimate"]
    assert not truth["truth_comparison"].empty


def test_nulls_are_not_matched_and_every_table_has_its_names(truth: dict[str, pd.DataFrame]) -> None:
    for name in ("truth_permutation", "truth_matching", "truth_counterfactual"):
        assert set(truth[name]["dictionary"]) == {"topk"}
    for name in ("truth_factors", "truth_patches"):
        assert set(truth[name]["dictionary"]) == {"topk", "random"}
    for name, table in truth.items():
        if name != "truth_comparison":
            assert {"backbone", "block", "dictionary"} <= set(table.columns), name


def test_kinds_are_no_factor_values(truth: dict[str, pd.DataFrame]) -> None:
    for name in ("truth_factors", "truth_patches", "truth_permutation", "truth_matching", "truth_counterfactual"):
        assert "kind" not in set(truth[name]["factor"]), name


def test_control_backbones_are_nulls_whatever_is_learnt_on_them() -> None:
    methods = {"topk": "topk", "pca": "pca"}
    spec = {"backbones": {"a": "clip", "b": "image", "c": "random", "d": "open_clip"}, "dictionaries": methods}
    found = {backbone: [_null_kind(backbone, name, spec) for name in methods] for backbone in spec["backbones"]}
    assert found["a"] == found["d"] == ["learned", "pca"]
    assert found["b"] == ["image-only backbone"] * 2 and found["c"] == ["random backbone"] * 2


# --- backbones -------------------------------------------------------------------------------------------------------


class Oracle:
    """Embeds a scene as what is known about it and a text as what it tells; `blind` sees nothing but noise."""

    name = "oracle"

    def __init__(self, scenes: Dataset, blind: bool = False, has_text: bool = True) -> None:
        self.scenes, self.blind, self.has_text = scenes, blind, has_text
        self.values = [(factor, value) for factor, table in WORDS.items() for value in table]
        self.row_of = {image.tobytes(): row for row, image in enumerate(scenes.images(range(len(scenes))))}
        self.captions = {text: row for row, text in enumerate(scenes.manifest["full_caption"])}
        self.noise = torch.Generator().manual_seed(0)

    def preprocess(self, images: np.ndarray) -> list[int]:
        return [self.row_of[image.tobytes()] for image in images]

    def embed_images(self, rows: list[int]) -> torch.Tensor:
        return torch.stack([self._vector(row, self._seen(row)) for row in rows])

    def embed_text(self, texts: list[str]) -> torch.Tensor:
        told = [[any(f" {w} " in f" {text} " for w in WORDS[f][v]) for f, v in self.values] for text in texts]
        return torch.stack([self._vector(self.captions.get(t), row) for t, row in zip(texts, told, strict=True)])

    def _seen(self, row: int) -> list[bool]:
        known = self.scenes.manifest.iloc[row]
        return [
            value == known["background" if factor == "background" else f"object0_{factor}"]
            for factor, value in self.values
        ]

    def _vector(self, row: int | None, told: list[bool]) -> torch.Tensor:
        if self.blind:
            return torch.nn.functional.normalize(torch.randn(64, generator=self.noise), dim=0)
        vector = torch.zeros(len(self.values) + len(self.scenes))
        vector[: len(told)] = torch.tensor(told, dtype=torch.float32)
        if row is not None:
            vector[len(told) + row] = 10.0
        return torch.nn.functional.normalize(vector, dim=0)


def measured(backbone: Any, scenes: Dataset) -> pd.DataFrame:
    return measure_backbone(backbone, scenes, np.random.default_rng(0), n_resamples=50).set_index("statistic")


def test_a_backbone_that_knows_everything_scores_one(scenes: Dataset) -> None:
    table = measured(Oracle(scenes), scenes)
    expected = [f"{prefix}.{factor}" for prefix in ("zero_shot", "zero_shot_held_out") for factor in FACTORS]
    assert list(table.index) == [*expected, "recall_at_1"]
    assert (table["estimate"] == 1.0).all()
    assert table.loc["zero_shot.shape", "chance"] == 1 / 8 and table.loc["recall_at_1", "n"] == 256
    single = scenes.manifest.query("split == 'test' and n_objects == 1")
    assert (table.loc["zero_shot.shape", "n"], table.loc["zero_shot.fill", "n"]) == (len(single), len(single))


def test_a_blind_backbone_scores_about_chance(scenes: Dataset) -> None:
    table = measured(Oracle(scenes, blind=True), scenes)
    spread = np.sqrt(table["chance"] * (1 - table["chance"]) / table["n"])
    assert (abs(table["estimate"] - table["chance"]) < 4 * spread + 0.02).all()
    assert (table["low"] <= table["estimate"]).all() and (table["estimate"] <= table["high"]).all()


def test_backbones_without_text_and_galleries_too_small_are_refused(scenes: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConceptBenchError, match="oracle has no text tower"):
        measured(Oracle(scenes, has_text=False), scenes)
    small = prepare_dataset(DatasetSpec("few", "scenes", sizes={"test": 40}), tmp_path, None, seed=4)
    with pytest.raises(ConceptBenchError, match="few has 40 test images but recall@1 needs 256"):
        measured(Oracle(small), small)


# --- dictionaries ----------------------------------------------------------------------------------------------------


def test_metrics_of_all_dictionaries_are_collected(tmp_path: Path) -> None:
    metrics = {"fvu": 0.2, "l0": 8.0, "dead_share": 0.1, "dense_share": 0.0, "cosine": 0.9, "tokens": 5, "other": 1}
    metrics |= {"bias": 1.1, "hoyer": None}
    spec = {"blocks": [1, 2], "methods": {"topk": {"method": "topk"}}, "seeds_of": {"topk": [0, 1]}}
    write_json({"spec": spec}, tmp_path / "manifest.json")
    for block in (1, 2):
        for seed in (0, 1):
            card = {"width": 64, "metrics": metrics}
            write_json(card, tmp_path / f"block{block}" / "topk" / f"seed{seed}" / "card.json")
    table = measure_dictionaries({"clip-tiny": tmp_path})
    assert len(table) == 4 and set(table["seed"]) == {"0", "1"} and set(table["method"]) == {"topk"}
    shown = ["recovered_norm", "bias", "hoyer", "coherence", "nearest_atom", "tokens"]
    assert list(table.columns[-11:]) == ["fvu", "l0", "dead_share", "dense_share", "cosine", *shown]
    assert (table["bias"] == 1.1).all() and table["hoyer"].isna().all()
    assert count_densities({"clip-tiny": tmp_path}).empty
    with pytest.raises(ConceptBenchError, match=r"configure dictionaries\.methods"):
        measure_dictionaries({})


def test_latents_are_counted_by_how_often_they_fire(tmp_path: Path) -> None:
    spec = {"blocks": [3], "methods": {"topk": {"method": "topk"}}, "seeds_of": {"topk": [0]}}
    write_json({"spec": spec}, tmp_path / "manifest.json")
    histogram = {"edges": [-6.0, -3.0, 0.0], "latents": [2, 6]}
    card = {"width": 8, "metrics": {"log10_density_histogram": histogram}}
    write_json(card, tmp_path / "block3" / "topk" / "seed0" / "card.json")
    table = count_densities({"clip-tiny": tmp_path})
    assert table["share"].tolist() == [0.25, 0.75] and table["latents"].tolist() == [2, 6]
    assert table[["log10_from", "log10_to"]].to_numpy().tolist() == [[-6.0, -3.0], [-3.0, 0.0]]
