"""Preparing and opening data sets of every kind, and each kind of bad input as one sentence with nothing written."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.io import savemat

from conceptbench.data import Dataset, DatasetSpec, few_shot, files, open_dataset, prepare_dataset
from conceptbench.data.dataset import COLUMNS
from conceptbench.data.eurosat import CLASS_NAMES
from conceptbench.data.splits import stratified_counts, stratified_split
from conceptbench.errors import ConceptBenchError

NAMES = tuple(CLASS_NAMES)


def write_image(path: Path, seed: int, size: tuple[int, int] = (8, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 255, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def folder_root(tmp_path: Path) -> Path:
    for c, name in enumerate(("ash", "birch", "cedar")):
        for i in range(10):
            write_image(tmp_path / "data" / "trees" / name / f"{i}.png", 10 * c + i)
    return tmp_path / "data"


@pytest.fixture
def eurosat_root(tmp_path: Path) -> Path:
    split: dict[str, list[list[object]]] = {"train": [], "val": [], "test": []}
    for label, folder in enumerate(NAMES):
        for i in range(1, 7):
            path = f"{folder}/{folder}_{i}.png"
            write_image(tmp_path / "data" / "eurosat" / "2750" / path, 10 * label + i)
            split[("train", "train", "train", "val", "test", "test")[i - 1]].append([path, label, CLASS_NAMES[folder]])
    for items in split.values():
        items.reverse()
    (tmp_path / "data" / "eurosat" / "split_zhou_EuroSAT.json").write_text(json.dumps(split))
    return tmp_path / "data"


@pytest.fixture
def flowers_root(tmp_path: Path) -> Path:
    base = tmp_path / "data" / "oxford_flowers"
    for i in range(1, 21):
        write_image(base / "jpg" / f"image_{i:05d}.jpg", i)
    savemat(base / "imagelabels.mat", {"labels": np.array([[1 + i % 2 for i in range(20)]])})
    (base / "cat_to_name.json").write_text(json.dumps({"1": "pink primrose", "2": "globe-flower"}))
    return tmp_path / "data"


def spec(kind: str, **options: object) -> DatasetSpec:
    return DatasetSpec.of("probe", {"kind": kind, **options})


def same(left: Dataset, right: Dataset) -> bool:
    pd.testing.assert_frame_equal(left.manifest, right.manifest, check_dtype=False)
    return left.card == right.card and left.digest == right.digest


RENDERED = [
    ("scenes", {"sizes": {"train": 40, "val": 8, "test": 16, "held-out": 8}, "pairs": 12}, 96),
    ("flora", {"images_per_class": 10}, 240),
    ("terra", {"images_per_class": 10}, 100),
]


@pytest.mark.parametrize(("kind", "options", "n"), RENDERED)
def test_rendered_kinds(tmp_path: Path, kind: str, options: dict[str, object], n: int) -> None:
    made = prepare_dataset(spec(kind, **options), tmp_path / "out", None, seed=3)
    opened = open_dataset(tmp_path / "out")
    again = prepare_dataset(spec(kind, **options), tmp_path / "again", None, seed=3)
    other = prepare_dataset(spec(kind, **options), tmp_path / "other", None, seed=4)
    assert len(made) == n and same(made, again) and made.digest == opened.digest != other.digest
    assert tuple(made.manifest.columns[: len(COLUMNS)]) == COLUMNS
    assert opened.manifest["image"].tolist() == list(range(n))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["card.json", "manifest.parquet"]
    images = opened.images(range(n))
    assert images.shape == (n, 64, 64, 3) and made.card["image_size"] == [64, 64]
    assert np.array_equal(opened.images([n - 1, 0]), images[[n - 1, 0]])
    assert np.array_equal(np.asarray(opened.pil(1)), images[1])
    import hashlib

    assert [hashlib.sha256(image.tobytes()).hexdigest() for image in images] == opened.manifest["sha256"].tolist()
    assert len(set(opened.manifest["sha256"])) == n


def test_scene_splits_and_captions(tmp_path: Path) -> None:
    made = prepare_dataset(spec("scenes", **RENDERED[0][1]), tmp_path / "out", None, seed=0)
    opened = open_dataset(tmp_path / "out")
    assert opened.card["splits"] == {"train": 40, "val": 8, "test": 16, "held-out": 8, "pairs": 24}
    assert opened.manifest["held_out"][opened.rows("held-out")].all()
    assert not opened.manifest["held_out"][opened.rows("train")].any()
    assert [len(texts) for texts in opened.manifest["captions"]] == [2] * 96
    row = made.manifest.iloc[0]
    assert row["full_caption"] and row["object0_shape"] and (opened.labels([0, 1]) == -1).all()
    with pytest.raises(ConceptBenchError, match="no split 'validation'; it has train, val"):
        opened.rows("validation")
    with pytest.raises(ConceptBenchError, match="row 96 was asked for"):
        opened.images([96])


def test_task_splits_are_stratified(tmp_path: Path) -> None:
    made = prepare_dataset(spec("flora", images_per_class=20), tmp_path / "out", None, seed=0)
    counts = made.manifest.groupby(["class_name", "split"]).size().unstack()
    assert (counts["train"] == 10).all() and (counts["val"] == 4).all() and (counts["test"] == 6).all()
    drawn = few_shot(made.manifest, 4, 1)
    assert len(drawn["train"]) == 96 and set(made.labels(drawn["train"])) == set(range(24))


def test_folder(folder_root: Path, tmp_path: Path) -> None:
    made = prepare_dataset(spec("folder", path="trees"), tmp_path / "out", folder_root, seed=0)
    opened = open_dataset(tmp_path / "out", folder_root)
    assert made.classes == ("ash", "birch", "cedar") and "not CoOp's" in made.card["split_rule"]
    assert made.card["splits"] == {"train": 15, "val": 6, "test": 9}
    assert opened.images([3]).shape == (1, 8, 8, 3)
    assert opened.images([]).shape[0] == 0
    first = opened.manifest.iloc[0]
    with Image.open(folder_root / "trees" / first["path"]) as image:
        assert np.array_equal(np.asarray(image), opened.images([0])[0])
    assert str(folder_root) not in (tmp_path / "out" / "card.json").read_text()


def test_digest_depends_on_content_not_on_place(folder_root: Path, tmp_path: Path) -> None:
    made = prepare_dataset(spec("folder", path="trees"), tmp_path / "a", folder_root, seed=0)
    moved = tmp_path / "elsewhere"
    shutil.copytree(folder_root, moved)
    assert prepare_dataset(spec("folder", path="trees"), tmp_path / "b", moved, seed=0).card == made.card
    write_image(moved / "trees" / "ash" / "3.png", 999)
    assert prepare_dataset(spec("folder", path="trees"), tmp_path / "c", moved, seed=0).digest != made.digest


def test_limit_per_class(folder_root: Path, tmp_path: Path) -> None:
    full = prepare_dataset(spec("folder", path="trees"), tmp_path / "full", folder_root, seed=0)
    limited = prepare_dataset(spec("folder", path="trees", limit_per_class=2), tmp_path / "out", folder_root, seed=0)
    assert (limited.manifest.groupby(["split", "label"]).size() == 2).all()
    assert limited.card["spec"]["limit_per_class"] == 2
    where = {path: split for path, split in zip(full.manifest["path"], full.manifest["split"], strict=True)}
    order = [list(full.manifest["path"]).index(path) for path in limited.manifest["path"]]
    assert order == sorted(order)
    assert [where[path] for path in limited.manifest["path"]] == limited.manifest["split"].tolist()


def test_images_of_different_size(folder_root: Path, tmp_path: Path) -> None:
    write_image(folder_root / "trees" / "ash" / "3.png", 0, (9, 12))
    made = prepare_dataset(spec("folder", path="trees"), tmp_path / "out", folder_root, seed=0)
    assert made.card["image_size"] is None
    odd = int(made.manifest.index[made.manifest["path"] == "ash/3.png"][0])
    assert made.pil(odd).size == (12, 9)
    with pytest.raises(ConceptBenchError, match="differ in size"):
        made.images(range(len(made)))


def test_eurosat_with_split_file(eurosat_root: Path, tmp_path: Path) -> None:
    made = prepare_dataset(spec("eurosat"), tmp_path / "out", eurosat_root, seed=0)
    split = json.loads((eurosat_root / "eurosat" / "split_zhou_EuroSAT.json").read_text())
    assert made.manifest["path"].tolist() == [item[0] for part in ("train", "val", "test") for item in split[part]]
    assert made.classes == tuple(CLASS_NAMES.values()) and made.card["split_rule"].startswith("CoOp split file")
    assert made.card["image_root"] == "eurosat/2750" and len(made.card["split_file"]["sha256"]) == 64


def test_eurosat_without_split_file(eurosat_root: Path, tmp_path: Path) -> None:
    (eurosat_root / "eurosat" / "split_zhou_EuroSAT.json").unlink()
    made = prepare_dataset(spec("eurosat"), tmp_path / "out", eurosat_root, seed=0)
    assert "not CoOp's" in made.card["split_rule"] and "split_file" not in made.card
    assert made.card["images"] == 60 and made.classes[0] == "Annual Crop Land"


def test_split_file_is_found_in_coop_splits(eurosat_root: Path, tmp_path: Path) -> None:
    (eurosat_root / "coop_splits").mkdir()
    shutil.move(eurosat_root / "eurosat" / "split_zhou_EuroSAT.json", eurosat_root / "coop_splits")
    made = prepare_dataset(spec("eurosat"), tmp_path / "out", eurosat_root, seed=0)
    assert made.card["split_rule"].startswith("CoOp split file")


def test_flowers_with_and_without_split_file(flowers_root: Path, tmp_path: Path) -> None:
    free = prepare_dataset(spec("flowers"), tmp_path / "free", flowers_root, seed=0)
    assert free.classes == ("pink primrose", "globe-flower") and "not CoOp's" in free.card["split_rule"]
    assert free.manifest["label"].tolist() == [i % 2 for i in range(20)]
    items = [[f"image_{i:05d}.jpg", (i - 1) % 2, free.classes[(i - 1) % 2]] for i in range(20, 0, -1)]
    content = {"train": items[:10], "val": items[10:14], "test": items[14:]}
    path = flowers_root / "oxford_flowers" / "split_zhou_OxfordFlowers.json"
    path.write_text(json.dumps(content))
    coop = prepare_dataset(spec("flowers"), tmp_path / "coop", flowers_root, seed=0)
    assert coop.manifest["path"].tolist() == [item[0] for item in items]
    content["test"][0][1], content["test"][0][2] = 1 - content["test"][0][1], "globe-flower"
    content["test"][0][2] = free.classes[content["test"][0][1]]
    path.write_text(json.dumps(content))
    refused("disagree on the class", "flowers", {}, flowers_root, tmp_path / "bad")


def refused(message: str, kind: str, options: dict[str, object], root: Path | None, out: Path) -> str:
    with pytest.raises(ConceptBenchError, match=message) as caught:
        prepare_dataset(spec(kind, **options), out, root, seed=0)
    assert not out.exists()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_roots(tmp_path: Path) -> None:
    out = tmp_path / "out"
    refused("set data_root", "eurosat", {}, None, out)
    refused("data_root = .*nowhere does not exist", "flowers", {}, tmp_path / "nowhere", out)
    refused("No EuroSAT images in", "eurosat", {}, tmp_path, out)
    refused("No Flowers-102 images in", "flowers", {}, tmp_path, out)
    refused("Folder .*trees does not exist", "folder", {"path": "trees"}, tmp_path, out)
    (tmp_path / "trees").mkdir()
    refused("has no sub-folder with images", "folder", {"path": "trees"}, tmp_path, out)
    (tmp_path / "trees" / "ash").mkdir()
    refused("ash holds no image", "folder", {"path": "trees"}, tmp_path, out)


def test_damaged_images(folder_root: Path, tmp_path: Path) -> None:
    victim = folder_root / "trees" / "birch" / "4.png"
    whole = victim.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"no image at all"):
        victim.write_bytes(content)
        assert str(victim) in refused("birch/4.png is", "folder", {"path": "trees"}, folder_root, tmp_path / "out")


def test_checks_of_images_wait_in_small_numbers(
    folder_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = prepare_dataset(spec("folder", path="trees"), tmp_path / "whole", folder_root, seed=0, workers=1)
    monkeypatch.setattr(files, "_AT_ONCE", 3)
    bounded = prepare_dataset(spec("folder", path="trees"), tmp_path / "bounded", folder_root, seed=0, workers=2)
    assert bounded.card == whole.card and bounded.manifest.equals(whole.manifest)
    opened = []

    def fails(root: Path, path: str) -> None:
        opened.append(path)
        raise ConceptBenchError("damaged")

    monkeypatch.setattr(files, "_inspect", fails)
    refused("damaged", "folder", {"path": "trees"}, folder_root, tmp_path / "out")
    assert len(opened) <= 3 < len(whole)


def edit_split(root: Path, change: str) -> None:
    path = root / "eurosat" / "split_zhou_EuroSAT.json"
    split = json.loads(path.read_text())
    if change == "image":
        split["test"][0][0] = "SeaLake/SeaLake_99.png"
    elif change == "unknown":
        split["train"] = [[p.replace("River", "Canal"), label, name] for p, label, name in split["train"]]
    elif change == "mixed":
        split["train"][0][0], split["train"][4][0] = split["train"][4][0], split["train"][0][0]
    elif change == "dropped":
        last = NAMES[-1]
        split = {part: [item for item in items if last not in item[0]] for part, items in split.items()}
    path.write_text(json.dumps(split))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("image", "names 1 images that are not in .*SeaLake_99.png"),
        ("unknown", "'River' in folder Canal, unknown in"),
        ("mixed", "mixes folders and classes"),
        ("dropped", "SeaLake is no class of"),
    ],
)
def test_split_file_and_folder_differ(eurosat_root: Path, tmp_path: Path, change: str, message: str) -> None:
    edit_split(eurosat_root, change)
    refused(message, "eurosat", {}, eurosat_root, tmp_path / "out")


def test_flowers_without_labels(flowers_root: Path, tmp_path: Path) -> None:
    labels = flowers_root / "oxford_flowers" / "imagelabels.mat"
    labels.write_bytes(b"damaged")
    refused("is not the label file of Flowers-102", "flowers", {}, flowers_root, tmp_path / "out")
    labels.unlink()
    refused("nor imagelabels.mat", "flowers", {}, flowers_root, tmp_path / "out")


def test_bad_specifications() -> None:
    for options, message in (
        ({"kind": "movies"}, "unknown kind 'movies'"),
        ({"kind": "flora", "petals": 3}, "unknown option\\(s\\) petals"),
        ({"kind": "folder"}, "needs a path"),
        ({"kind": "scenes", "pairs": -1}, "pairs = -1"),
        ({"kind": "flora", "images_per_class": 2}, "images_per_class >= 4"),
        ({"kind": "eurosat", "limit_per_class": 0}, "limit_per_class < 1"),
    ):
        with pytest.raises(ConceptBenchError, match=message):
            DatasetSpec.of("probe", options)


def test_options_that_are_null_keep_their_defaults() -> None:
    made = spec("scenes", sizes={"train": 3, "held-out": None}, pairs=None, limit_per_class=None)
    assert dict(made.sizes) == {"train": 3} and made.pairs == 0 and made.limit_per_class is None


def test_bad_scene_sizes(tmp_path: Path) -> None:
    refused("split 'dev' in sizes; use train", "scenes", {"sizes": {"dev": 3}}, None, tmp_path / "out")
    refused("has no images", "scenes", {}, None, tmp_path / "out")


def test_a_changed_file_is_found_when_it_is_read(folder_root: Path, tmp_path: Path) -> None:
    made = prepare_dataset(spec("folder", path="trees"), tmp_path / "out", folder_root, seed=0)
    write_image(folder_root / "trees" / "ash" / "0.png", 77)
    with pytest.raises(ConceptBenchError, match=r"ash/0.png is not the file of the manifest \(checksum\)"):
        made.images([0])
    (folder_root / "trees" / "ash" / "0.png").unlink()
    with pytest.raises(ConceptBenchError, match="cannot be read"):
        made.images([0])


def test_a_changed_manifest_is_found_when_it_is_opened(folder_root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    made = prepare_dataset(spec("folder", path="trees"), out, folder_root, seed=0)
    made.manifest.assign(label=0).to_parquet(out / "manifest.parquet", index=False)
    with pytest.raises(ConceptBenchError, match=r"does not match its card.json"):
        open_dataset(out, folder_root)
    (out / "manifest.parquet").write_bytes(b"PAR1")
    with pytest.raises(ConceptBenchError, match="unreadable"):
        open_dataset(out, folder_root)
    with pytest.raises(ConceptBenchError, match="does not exist"):
        open_dataset(tmp_path / "nothing")


def test_files_without_data_root(eurosat_root: Path, tmp_path: Path) -> None:
    prepare_dataset(spec("eurosat"), tmp_path / "out", eurosat_root, seed=0)
    opened = open_dataset(tmp_path / "out")
    assert len(opened) == 60
    with pytest.raises(ConceptBenchError, match="opened without its images"):
        opened.images([0])
    with pytest.raises(ConceptBenchError, match="set data_root to their folder"):
        open_dataset(tmp_path / "out", tmp_path / "nowhere")


@pytest.mark.parametrize("n", [1, 2, 3, 7, 10, 33, 100])
def test_stratified_split_counts(n: int) -> None:
    split = stratified_split(np.repeat([0, 5], n), 0, "probe")
    for half in (split[:n], split[n:]):
        assert tuple(int((half == name).sum()) for name in ("train", "val", "test")) == stratified_counts(n)
    assert np.array_equal(split, stratified_split(np.repeat([0, 5], n), 0, "probe"))
