"""The stage of named kinds: a planted latent of one backbone unites a kind, noise of the other does not."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from conceptbench.data import Dataset, DatasetSpec, object_table, prepare_dataset
from conceptbench.dictionaries import Codes
from conceptbench.measures.kinds import composition_presence
from conceptbench.measures.kinds_text import kind_compositions
from conceptbench.measures.stages.kinds import _pooled, measure_kinds

SPEC = {"seed": 0, "resamples": 100, "permutations": 40}
WIDTH = 12


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    spec = DatasetSpec(name="kinds", kind="scenes", sizes={"train": 8, "val": 1500, "test": 1500})
    return prepare_dataset(spec, tmp_path_factory.mktemp("kinds"), None, 0)


def write_codes(folder: Path, dataset: Dataset, planted: bool) -> Path:
    """Random codes; with `planted`, latent 3 fires on every image with a wug."""
    rows = np.concatenate([dataset.rows("val"), dataset.rows("test")])
    dense = np.random.default_rng(0).random((len(rows), WIDTH)) + 0.1
    if planted:
        shown = composition_presence(object_table(dataset), rows.tolist(), kind_compositions()["wug"]).any(axis=1)
        dense[:, 3] = np.where(shown, 2, 0.5)
    matrix = sparse.csr_matrix(dense)
    codes = Codes(
        matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32), matrix.data.astype(np.float32),
        (len(rows), 1, WIDTH), "digest",
    )  # fmt: skip
    (folder / "topk" / "seed0").mkdir(parents=True)
    codes.save(folder / "topk" / "seed0" / "codes.safetensors")
    manifest = {"spec": {"seeds_of": {"topk": [0]}}, "rows": rows.tolist()}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_only_the_planted_kind_is_united(scenes: Dataset, tmp_path: Path) -> None:
    sources = {name: write_codes(tmp_path / name, scenes, name == "planted") for name in ("planted", "noise")}
    tables = measure_kinds(sources, scenes, SPEC)
    pooled = tables["kinds"][tables["kinds"]["seed"] == "all"]
    found = pooled.set_index(["backbone", "kind"])
    united = found.loc[("planted", "wug")]
    assert united["latent"] == 3 and united["estimate"] == 1 and united["q"] <= 0.2
    others = found.drop(index=("planted", "wug"))
    assert (others["estimate"] < 0.7).all() and (others["p"] > united["p"]).all()
    assert set(tables["kinds_null"]["backbone"]) == set(sources)


def test_seeds_are_pooled_and_groups_with_them() -> None:
    names = {"backbone": "a", "dictionary": "topk", "kind": "wug"}
    rows = pd.DataFrame(
        [{**names, "seed": str(s), "estimate": 0.6 + 0.1 * s, "low": 0.5, "high": 0.9, "selected": 0.7} for s in (0, 1)]
    )
    groups = [
        {"backbone": "a", "dictionary": "topk", "group": g, "seed": "all", "estimate": 0.5 + 0.1 * g} for g in range(3)
    ]
    other = [{"backbone": "b", "dictionary": "topk", "group": 0, "seed": "all", "estimate": 0.99}]
    found = _pooled(rows, pd.DataFrame(groups + other)).iloc[0]
    assert found["estimate"] == pytest.approx(0.65) and found["seed"] == "all"
    assert found["p"] == pytest.approx(2 / 4)  # one of three groups lies above
    assert found["low"] < 0.65 - 0.1 and found["high"] > 0.65 + 0.25
