"""The stage of named kinds: a planted latent of one backbone unites a kind, noise of the other does not."""

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from conceptbench.data import Dataset, DatasetSpec, object_table, prepare_dataset
from conceptbench.dictionaries import Codes
from conceptbench.measures.kinds import composition_presence
from conceptbench.measures.kinds_text import kind_compositions
from conceptbench.measures.stages.kinds import measure_kinds

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
    found = tables["kinds"].set_index(["backbone", "kind"])
    united = found.loc[("planted", "wug")]
    assert united["latent"] == 3 and united["estimate"] == 1 and united["q"] <= 0.2
    others = found.drop(index=("planted", "wug"))
    assert (others["estimate"] < 0.7).all() and (others["p"] > united["p"]).all()
    assert set(tables["kinds_null"]["backbone"]) == set(sources)
