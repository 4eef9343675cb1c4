"""CoOp's few-shot draw against its published lists, split files, and the rule for base and novel classes.

The published lists are looked for in the folder CONCEPTBENCH_DATA or in ../shared/data beside the checkout. What can be
checked without them is checked everywhere: which item of a class is drawn depends only on the order and sizes of the
classes, so the golden file holds these and a checksum of the (label, number in its class) pairs of each published list.
"""

import hashlib
import json
import random
from pathlib import Path

import pandas as pd
import pytest
from real_data import REAL_DATA

from conceptbench.data.coop import base_novel, few_shot, read_split
from conceptbench.errors import ConceptBenchError

GOLDEN = json.loads((Path(__file__).parent / "test_data_coop_golden.json").read_text())
DRAWS = [(name, shots, seed) for name in GOLDEN for shots in (1, 4, 16) for seed in (1, 2, 3)]
SPLIT_FILES = {"eurosat": "split_zhou_EuroSAT.json", "oxford_flowers": "split_zhou_OxfordFlowers.json"}


def published() -> Path:
    root = REAL_DATA / "coop_splits"
    if not root.is_dir():
        pytest.skip(f"CoOp's lists are not in {root}; set CONCEPTBENCH_DATA to the folder that holds coop_splits")
    return root


def manifest_of(items: pd.DataFrame) -> pd.DataFrame:
    return items.assign(image=range(len(items)))


@pytest.mark.parametrize(("name", "shots", "seed"), DRAWS)
def test_published_lists_item_by_item(name: str, shots: int, seed: int) -> None:
    root = published()
    items, _ = read_split(root / SPLIT_FILES[name])
    drawn = few_shot(manifest_of(items), shots, seed)
    reference = json.loads((root / "fewshot_indices" / name / f"shot_{shots}-seed_{seed}.json").read_text())
    for split in ("train", "val"):
        expected = [(item["impath"], item["label"], item["classname"]) for item in reference[split]["data"]]
        rows = items.iloc[drawn[split]]
        found = list(zip(rows["path"], rows["label"], rows["class_name"], strict=True))
        assert len(found) == len(expected)
        for (path, label, class_name), (impath, ref_label, ref_name) in zip(found, expected, strict=True):
            assert impath.endswith("/" + path)
            assert (label, class_name) == (ref_label, ref_name)


@pytest.mark.parametrize(("name", "shots", "seed"), DRAWS)
def test_golden_draws(name: str, shots: int, seed: int) -> None:
    rows = [
        {"split": split, "label": label, "number": number, "class_name": str(label)}
        for split, groups in GOLDEN[name]["groups"].items()
        for label, size in groups
        for number in range(size)
    ]
    manifest = manifest_of(pd.DataFrame(rows))
    drawn = few_shot(manifest, shots, seed)
    for split, checksum in GOLDEN[name]["draws"][f"{shots} shots, seed {seed}"].items():
        pairs = manifest.loc[drawn[split], ["label", "number"]].to_numpy().tolist()
        assert hashlib.sha256(json.dumps(pairs).encode()).hexdigest() == checksum


def independent_draw(items: list[tuple[str, int]], shots: int, stream: random.Random) -> list[int]:
    """CoOp's rule once more, in the plainest words."""
    order: list[int] = []
    for _, label in items:
        if label not in order:
            order.append(label)
    drawn = []
    for label in order:
        members = [number for number, (_, other) in enumerate(items) if other == label]
        drawn += stream.sample(members, min(shots, len(members)))
    return drawn


def test_tiny_split_against_an_independent_implementation() -> None:
    train = [(f"t{i}", (2, 0, 1)[i % 3]) for i in range(30)]
    val = [(f"v{i}", (1, 1, 0, 2, 2, 2, 2, 2, 2, 2)[i % 10]) for i in range(12)]
    rows = [("train", *item) for item in train] + [("val", *item) for item in val]
    manifest = manifest_of(pd.DataFrame(rows, columns=["split", "path", "label"]).assign(class_name="c"))
    for shots in (1, 3, 8):
        stream = random.Random(5)
        expected = independent_draw(train, shots, stream)
        expected_val = [30 + row for row in independent_draw(val, min(shots, 4), stream)]
        assert few_shot(manifest, shots, 5) == {"train": expected, "val": expected_val}


def test_hand_derived_draw() -> None:
    """One image a class leaves no choice: the order of first appearance is the draw."""
    rows = [("train", 7, "seven"), ("train", 3, "three"), ("train", 5, "five"), ("val", 5, "five"), ("val", 7, "seven")]
    manifest = manifest_of(pd.DataFrame(rows, columns=["split", "label", "class_name"]))
    assert few_shot(manifest, 1, 1) == {"train": [0, 1, 2], "val": [3, 4]}


def test_unlabelled_rows_are_never_drawn() -> None:
    rows = [("train", -1, ""), ("train", 0, "a"), ("train", -1, ""), ("train", 1, "b")]
    manifest = manifest_of(pd.DataFrame(rows, columns=["split", "label", "class_name"]))
    assert few_shot(manifest, 1, 3)["train"] == [1, 3]


def test_more_shots_than_images_names_the_class() -> None:
    manifest = manifest_of(pd.DataFrame({"split": "train", "label": [0, 0, 1], "class_name": ["rose", "rose", "lily"]}))
    with pytest.raises(ConceptBenchError, match="'lily' has 1 training images, fewer than 2 shots"):
        few_shot(manifest, 2, 1)
    with pytest.raises(ConceptBenchError, match="0 shots"):
        few_shot(manifest, 0, 1)


def test_base_novel_rule() -> None:
    assert base_novel(["a", "b", "c", "d", "e"]) == ([0, 1, 2], [3, 4])
    base, novel = base_novel([str(i) for i in range(102)])
    assert (len(base), len(novel), novel[0]) == (51, 51, 51)


def test_published_halves() -> None:
    items, classes = read_split(published() / SPLIT_FILES["oxford_flowers"])
    base, novel = base_novel(classes)
    test = items[items["split"] == "test"]["label"]
    assert (int(test.isin(base).sum()), int(test.isin(novel).sum())) == (1053, 1410)


BAD_SPLITS = {
    "lacks one of the lists": {"train": [], "val": []},
    "names no image": {"train": [], "val": [], "test": []},
    "not \\[path, label, name\\]": {"train": [["a.jpg", "0", "rose"]], "val": [], "test": []},
    "more than once": {"train": [["a.jpg", 0, "rose"]], "val": [], "test": [["a.jpg", 0, "rose"]]},
    "exactly one class name": {"train": [["a.jpg", 0, "rose"], ["b.jpg", 0, "lily"]], "val": [], "test": []},
    "two labels": {"train": [["a.jpg", 0, "rose"], ["b.jpg", 1, "rose"]], "val": [], "test": []},
}


@pytest.mark.parametrize("message", BAD_SPLITS)
def test_bad_split_files(tmp_path: Path, message: str) -> None:
    path = tmp_path / "split.json"
    path.write_text(json.dumps(BAD_SPLITS[message]))
    with pytest.raises(ConceptBenchError, match=message) as caught:
        read_split(path)
    assert str(path) in str(caught.value)
