import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from torch import nn

from conceptbench.backbones.folder import save_backbone_folder
from conceptbench.dictionaries import Codes
from conceptbench.errors import ConceptBenchError
from conceptbench.tables import (
    ESTIMATE_COLUMNS,
    atomic_write,
    digest,
    natural_order,
    read_json,
    read_table,
    sha256_file,
    write_json,
    write_table,
)

FLOATS = st.floats(allow_nan=False, allow_infinity=False)
PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=12,
)


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {"name": ["a", "b"], "estimate": [0.5, math.nan], "n": [3, 4], "captions": [["x"], ["y", "z"]]}, index=[7, 9]
    )


def test_table_round_trip(tmp_path: Path) -> None:
    write_table(frame(), tmp_path / "deep" / "accuracy.v1")
    folder = tmp_path / "deep"
    assert sorted(path.name for path in folder.iterdir()) == ["accuracy.v1.csv", "accuracy.v1.parquet"]
    back = read_table(folder / "accuracy.v1.parquet")
    assert back["n"].tolist() == [3, 4] and math.isnan(back["estimate"][1]) and list(back["captions"][1]) == ["y", "z"]
    assert read_table(folder / "accuracy.v1.csv")["name"].tolist() == ["a", "b"]


def test_same_table_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        write_table(frame(), tmp_path / name)
    assert sha256_file(tmp_path / "first.csv") == sha256_file(tmp_path / "second.csv")
    assert sha256_file(tmp_path / "first.parquet") == sha256_file(tmp_path / "second.parquet")


def test_tables_refuse_bad_columns_and_say_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConceptBenchError, match="unique column names"):
        write_table(pd.DataFrame([[1, 2]], columns=["a", "a"]), tmp_path / "t")
    with pytest.raises(ConceptBenchError, match="does not exist"):
        read_table(tmp_path / "t")
    write_table(pd.DataFrame({"a": [1]}), tmp_path / "t")
    with pytest.raises(ConceptBenchError, match=r"t\.parquet lacks the column\(s\) estimate"):
        read_table(tmp_path / "t", columns=["a", "estimate"])
    (tmp_path / "t.parquet").write_bytes(b"no parquet")
    with pytest.raises(ConceptBenchError, match="unreadable"):
        read_table(tmp_path / "t")
    assert "note" in ESTIMATE_COLUMNS


def test_failure_leaves_the_old_file_and_no_rest(tmp_path: Path) -> None:
    target = tmp_path / "x.txt"
    target.write_text("old")
    with pytest.raises(KeyError), atomic_write(target) as path:
        path.write_text("half")
        raise KeyError
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]


@pytest.mark.parametrize(
    "failure", [OSError(28, "No space left on device"), SafetensorError("I/O error: No space left")]
)
def test_full_disk_is_one_sentence_and_leaves_the_old_file(failure: Exception, tmp_path: Path) -> None:
    target = tmp_path / "codes.safetensors"
    target.write_bytes(b"old")
    with (
        pytest.raises(ConceptBenchError, match=r"Cannot write .*codes\.safetensors: .*No space left.*free or repair"),
        atomic_write(target) as partial,
    ):
        partial.write_bytes(b"half")
        raise failure
    assert [path.name for path in tmp_path.iterdir()] == ["codes.safetensors"] and target.read_bytes() == b"old"


@pytest.mark.parametrize("module", ["tensor_files", "backbones.folder"])
def test_tensors_on_a_full_disk(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors: object, path: Path, metadata: object = None) -> None:
        path.write_bytes(b"half")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(f"conceptbench.{module}.save_file", full)
    with pytest.raises(ConceptBenchError, match="No space left on device"):
        if module == "tensor_files":
            empty = Codes(np.zeros(3, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), (1, 2, 4), "d")
            empty.save(tmp_path / "codes.safetensors")
        else:
            save_backbone_folder(tmp_path, SmallModel(), {}, {}, {})
    assert not [path.name for path in tmp_path.iterdir() if "safetensors" in path.name]


class SmallModel(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.visual = nn.Linear(2, 2)


@given(PLAIN)
def test_json_round_trip(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.mktemp("json") / "x.json"
    write_json(value, path)
    assert read_json(path) == value
    assert path.read_text(encoding="utf-8").endswith("\n")
    assert digest(value) == digest(read_json(path))


def test_json_takes_numpy_and_sorts(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    write_json({"b": np.float64(1.5), "a": np.arange(2), "c": (1, Path("x") / "y"), "d": {"z", "q"}}, path)
    assert list(json.loads(path.read_text())) == ["a", "b", "c", "d"]
    assert read_json(path) == {"a": [0, 1], "b": 1.5, "c": [1, "x/y"], "d": ["q", "z"]}


@pytest.mark.parametrize("bad", [math.nan, math.inf, np.float64("nan"), np.array([1.0, math.nan])])
def test_json_names_the_key_that_is_not_finite(tmp_path: Path, bad: object) -> None:
    with pytest.raises(ConceptBenchError, match=r"metrics\.json: the value of 'a\.b.*' is (nan|inf)"):
        write_json({"a": {"b": bad}}, tmp_path / "metrics.json")
    assert not list(tmp_path.iterdir())


def test_unreadable_json_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ConceptBenchError, match="does not exist"):
        read_json(tmp_path / "x.json")
    (tmp_path / "x.json").write_text("{")
    with pytest.raises(ConceptBenchError, match="is not valid JSON"):
        read_json(tmp_path / "x.json")
    with pytest.raises(ConceptBenchError, match="cannot be read"):
        sha256_file(tmp_path / "y")


def test_digest_ignores_order_and_sees_values() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": (1, 2), "a": np.int64(1)})
    assert digest({"a": 1}) != digest({"a": 2}) != digest({"a": "2"})


def test_natural_order_counts_and_accepts_names_of_any_shape():
    names = ["k16", "k4", "", "7", "a-k4-lr0p003", "a-k4-lr0p001", "k"]
    assert sorted(names, key=natural_order) == ["", "7", "a-k4-lr0p001", "a-k4-lr0p003", "k", "k4", "k16"]
