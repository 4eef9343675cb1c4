"""Published data sets: brought by one path, whether from a server or a folder, and read in their own layouts."""

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from web_tools import Site, serving

from conceptbench.config.datasets import TEMPLATES
from conceptbench.config.named_backbones import NAMED
from conceptbench.data import DatasetSpec, few_shot, open_dataset, prepare_dataset, provide_dataset
from conceptbench.data import download as download_module
from conceptbench.data.catalogue import SOURCES, Part, Source
from conceptbench.data.eurosat import CLASS_NAMES
from conceptbench.data.provide import DOWNLOADS
from conceptbench.data.spec import KINDS, RENDERED
from conceptbench.errors import ConceptBenchError


def picture(seed: int, kind: str = "JPEG", size: int = 8) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in files.items():
            file.writestr(name, content)
    return buffer.getvalue()


def tarred(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as file:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def put(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def split_file(paths: dict[str, tuple[int, str]]) -> bytes:
    """Three images of each class: one of each split, in the order given."""
    split: dict[str, list[list[Any]]] = {"train": [], "val": [], "test": []}
    seen: dict[int, int] = {}
    for path, (label, name) in paths.items():
        part = ("train", "val", "test")[seen.get(label, 0) % 3]
        seen[label] = seen.get(label, 0) + 1
        split[part].append([path, label, name])
    return json.dumps(split).encode()


EUROSAT = {
    f"{folder}/{folder}_{i}.jpg": (label, CLASS_NAMES[folder])
    for label, folder in enumerate(CLASS_NAMES)
    for i in (1, 2, 3)
}
FLOWERS = {f"image_{i:05d}.jpg": (i % 2, ("pink primrose", "globe-flower")[i % 2]) for i in range(1, 7)}


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(download_module, "_PAUSE_SECONDS", 0.0)
    with serving() as server:
        server.files = {
            "EuroSAT.zip": zipped({f"2750/{path}": picture(n) for n, path in enumerate(EUROSAT)}),
            "split_zhou_EuroSAT.json": split_file(EUROSAT),
            "102flowers.tgz": tarred({f"jpg/{path}": picture(n) for n, path in enumerate(FLOWERS)}),
            "split_zhou_OxfordFlowers.json": split_file(FLOWERS),
        }
        yield server


def served(source: Source, site: Site) -> Source:
    """The source as it is, with the addresses and checksums of what the server has."""
    parts = [
        replace(part, url=site.url(part.name), checksum=f"md5:{hashlib.md5(site.files[part.name]).hexdigest()}")
        for part in source.parts
        if part.name in site.files
    ]
    return replace(source, parts=tuple(parts))


@pytest.mark.parametrize(("kind", "images"), [("eurosat", EUROSAT), ("flowers", FLOWERS)])
def test_download_with_an_interruption_and_a_corruption_equals_a_folder(
    site: Site, tmp_path: Path, kind: str, images: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    source, root = served(SOURCES[kind], site), tmp_path / "data"
    archive = source.parts[0]
    whole = site.files[archive.name]
    site.files[archive.name] = whole[:500] + bytes([whole[500] ^ 1]) + whole[501:]
    with pytest.raises(ConceptBenchError, match="has the md5"):
        provide_dataset(source, root, "missing")
    assert not (root / archive.found_at[0]).exists()
    site.files[archive.name], site.cut_after = whole, [len(whole) // 2]
    site.asked.clear()
    found = provide_dataset(source, root, "missing")
    assert site.asked[1] == (f"/{archive.name}", f"bytes={len(whole) // 2}-")
    assert source.licence in capsys.readouterr().out
    assert found["parts"][0] == {
        "name": archive.name,
        "url": archive.url,
        "sha256": hashlib.sha256(whole).hexdigest(),
    }
    downloaded = prepare_dataset(DatasetSpec.of("probe", {"kind": kind}), tmp_path / "a", root, seed=0)
    by_hand = put(tmp_path / "hand", {f"{archive.found_at[0]}/{path}": picture(n) for n, path in enumerate(images)})
    put(by_hand, {source.parts[1].found_at[2]: site.files[source.parts[1].name]})
    folder = prepare_dataset(DatasetSpec.of("probe", {"kind": kind}), tmp_path / "b", by_hand, seed=0)
    assert downloaded.card == folder.card and "CoOp split file" in folder.card["split_rule"]
    assert open_dataset(tmp_path / "a", root).images([0, 1]).shape == (2, 8, 8, 3)
    site.asked.clear()
    again = provide_dataset(source, root, "never")
    assert site.asked == [] and again["parts"][0] == {"name": archive.name, "found": archive.found_at[0]}


def test_what_is_missing_is_named_with_the_place_to_get_it(site: Site, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for kind, source in SOURCES.items():
        with pytest.raises(ConceptBenchError) as caught:
            provide_dataset(source, tmp_path / "data", "never")
        for part in (part for part in source.parts if not part.optional):
            assert f"{part.name} (as {tmp_path / 'data' / part.found_at[0]}) from " in str(caught.value), kind
            assert (part.by_hand or str(part.url)) in str(caught.value)
    with pytest.raises(
        ConceptBenchError, match=r"lacks cars_train\.tgz .* a copy that you trust.*cannot be downloaded unasked"
    ):
        provide_dataset(SOURCES["stanford-cars"], tmp_path / "data", "missing")
    with pytest.raises(ConceptBenchError, match="gone does not exist; set data_root"):
        provide_dataset(SOURCES["dtd"], tmp_path / "gone", "never")
    assert list((tmp_path / "data").iterdir()) == [] and site.asked == []


def test_split_file_alone_is_brought_to_images_that_are_there(site: Site, tmp_path: Path) -> None:
    root = put(tmp_path / "data", {f"2750/{path}": picture(n) for n, path in enumerate(EUROSAT)})
    source = served(SOURCES["eurosat"], site)
    found = provide_dataset(source, root, "missing")
    assert [path for path, _ in site.asked] == ["/split_zhou_EuroSAT.json"]
    assert found["parts"][0] == {"name": "EuroSAT.zip", "found": "2750"}
    assert provide_dataset(SOURCES["eurosat"], put(tmp_path / "bare", {"2750/a/b.jpg": b""}), "never")["parts"][1] == {
        "name": "split_zhou_EuroSAT.json",
        "found": None,
    }


def test_archive_that_holds_something_else_is_refused(site: Site, tmp_path: Path) -> None:
    site.files["EuroSAT.zip"] = zipped({"other/x.jpg": picture(0)})
    with pytest.raises(ConceptBenchError, match=r"does not hold eurosat/2750; get it from its source"):
        provide_dataset(served(SOURCES["eurosat"], site), tmp_path / "data", "missing")


def test_archives_inside_archives_are_unpacked(site: Site, tmp_path: Path) -> None:
    inner = tarred({"101_ObjectCategories/ant/image_0001.jpg": picture(0)})
    site.files["caltech-101.zip"] = zipped({"caltech-101/101_ObjectCategories.tar.gz": inner})
    source = served(SOURCES["caltech101"], site)
    provide_dataset(source, tmp_path / "data", "missing")
    assert (tmp_path / "data/caltech-101/101_ObjectCategories/ant/image_0001.jpg").read_bytes() == picture(0)
    assert (tmp_path / "data" / DOWNLOADS / "caltech101" / "caltech-101.zip").is_file()


PLAIN = {
    "a/1.jpg": (0, "ant"),
    "a/2.jpg": (0, "ant"),
    "a/3.jpg": (0, "ant"),
    "b/1.jpg": (1, "bee"),
    "b/2.jpg": (1, "bee"),
    "b/3.jpg": (1, "bee"),
}
WITH_SPLIT = {
    "caltech101": ("caltech-101/101_ObjectCategories", "caltech-101/split_zhou_Caltech101.json"),
    "oxford-pets": ("oxford_pets/images", "oxford_pets/split_zhou_OxfordPets.json"),
    "stanford-cars": ("stanford_cars", "coop_splits/split_zhou_StanfordCars.json"),
    "food101": ("food-101/images", "food-101/split_zhou_Food101.json"),
    "sun397": ("sun397/SUN397", "split_zhou_SUN397.json"),
    "dtd": ("dtd/images", "dtd/split_zhou_DescribableTextures.json"),
    "ucf101": ("ucf101/UCF-101-midframes", "ucf101/split_zhou_UCF101.json"),
}


def prepared(kind: str, root: Path, out: Path, **options: Any) -> Any:
    return prepare_dataset(DatasetSpec.of("probe", {"kind": kind, **options}), out, root, seed=0)


@pytest.mark.parametrize("kind", list(WITH_SPLIT))
def test_coop_suite_with_a_split_file(tmp_path: Path, kind: str) -> None:
    images, split = WITH_SPLIT[kind]
    root = put(tmp_path / "data", {f"{images}/{path}": picture(n) for n, path in enumerate(PLAIN)})
    with pytest.raises(ConceptBenchError, match=r"split_zhou_\w+\.json is missing; get it from https://drive\.google"):
        prepared(kind, root, tmp_path / "out")
    put(root, {split: split_file(PLAIN)})
    dataset = prepared(kind, root, tmp_path / "out")
    assert dataset.classes == ("ant", "bee") and dataset.card["splits"] == {"train": 2, "val": 2, "test": 2}
    assert dataset.manifest["path"].tolist() == ["a/1.jpg", "b/1.jpg", "a/2.jpg", "b/2.jpg", "a/3.jpg", "b/3.jpg"]
    assert set(few_shot(dataset.manifest, 1, 1)) == {"train", "val"}
    (root / images / "b" / "3.jpg").unlink()
    with pytest.raises(ConceptBenchError, match=r"names 1 images that are not in .* such as b/3\.jpg"):
        prepared(kind, root, tmp_path / "again")
    assert not (tmp_path / "again").exists()


@pytest.mark.parametrize("absolute", [False, True])
@pytest.mark.parametrize("kind", ["dtd", "eurosat", "flowers", "cub-200"])
def test_lists_that_name_files_outside_of_the_images_are_refused(tmp_path: Path, kind: str, absolute: bool) -> None:
    secret = put(tmp_path, {"secret.png": picture(0, "PNG")}) / "secret.png"
    root = put(tmp_path / "data", {"dtd/images/a/1.jpg": picture(1)})
    put(root, {f"2750/{path}": picture(n) for n, path in enumerate(EUROSAT)})
    put(root, {f"jpg/{path}": picture(n) for n, path in enumerate(FLOWERS)})
    folder = {"dtd": "dtd/images", "eurosat": "2750", "flowers": "jpg", "cub-200": "CUB_200_2011/images"}[kind]
    (root / folder).mkdir(parents=True, exist_ok=True)
    named = str(secret) if absolute else "../" * (folder.count("/") + 2) + "secret.png"
    assert (root / folder / named).is_file()
    split = split_file({"a/1.jpg": (0, "ant"), named: (1, "bee")})
    files = {f"split_zhou_{name}.json": split for name in ("DescribableTextures", "EuroSAT", "OxfordFlowers")}
    lists = {"images": f"1 {named}", "classes": "1 001.Tern", "image_class_labels": "1 1", "train_test_split": "1 1"}
    put(root, {**files, **{f"CUB_200_2011/{name}.txt": line.encode() for name, line in lists.items()}})
    message = "outside of" if kind in ("dtd", "cub-200") else "split_zhou_.* (names .* not in|unknown in)"
    with pytest.raises(ConceptBenchError, match=message):
        prepared(kind, root, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("home", ["fgvc_aircraft", "fgvc-aircraft-2013b/data"])
def test_aircraft(tmp_path: Path, home: str) -> None:
    files = {f"{home}/images/{n:07d}.jpg": picture(n) for n in range(4)}
    files[f"{home}/variants.txt"] = b"707-320\n747 100\n"
    for split, lines in {
        "train": "0000000 707-320\n0000001 747 100",
        "val": "0000002 707-320",
        "test": "0000003 747 100",
    }.items():
        files[f"{home}/images_variant_{split}.txt"] = f"{lines}\n".encode()
    dataset = prepared("fgvc-aircraft", put(tmp_path / "data", files), tmp_path / "out")
    assert dataset.classes == ("707-320", "747 100")
    assert list(zip(dataset.manifest["label"], dataset.manifest["split"], strict=True)) == [
        *((0, "train"), (1, "train"), (0, "val"), (1, "test"))
    ]
    put(tmp_path / "data", {f"{home}/images_variant_test.txt": b"0000003 Concorde\n"})
    with pytest.raises(ConceptBenchError, match="has the variant 'Concorde', unknown"):
        prepared("fgvc-aircraft", tmp_path / "data", tmp_path / "again")


def test_imagenet_from_a_folder(tmp_path: Path) -> None:
    files = {"imagenet/classnames.txt": b"n02 tench\nn01 great white shark\n"}
    for s, synset in enumerate(("n01", "n02")):
        files |= {f"imagenet/images/train/{synset}/{i}.JPEG": picture(s + i) for i in range(3)}
        files |= {f"imagenet/images/val/{synset}/{i}.JPEG": picture(9 + s + i) for i in range(4)}
    root = put(tmp_path / "data", files)
    dataset = prepared("imagenet", root, tmp_path / "out")
    assert dataset.classes == ("great white shark", "tench")
    assert dataset.card["splits"] == {"train": 6, "val": 4, "test": 4}
    assert dataset.manifest.groupby(["label", "split"]).size().to_dict() == {
        **{(label, "train"): 3 for label in (0, 1)},
        **{(label, split): 2 for label in (0, 1) for split in ("val", "test")},
    }
    assert set(dataset.manifest.loc[dataset.manifest["split"] != "train", "path"].str.split("/").str[0]) == {"val"}
    (root / "imagenet" / "classnames.txt").write_text("n01 great white shark\n")
    with pytest.raises(ConceptBenchError, match="differ in n02"):
        prepared("imagenet", root, tmp_path / "again")


def test_birds(tmp_path: Path) -> None:
    folders = ("001.Black_footed_Albatross", "002.Laysan_Albatross")
    names = [f"{folder}/{i}.jpg" for folder in folders for i in range(10)]
    numbered = [*enumerate(names, 1)]
    files = {f"CUB_200_2011/images/{name}": picture(n) for n, name in numbered}
    lists = {
        "images": [f"{n} {name}" for n, name in numbered],
        "classes": [f"{n} {folder}" for n, folder in enumerate(folders, 1)],
        "image_class_labels": [f"{n} {1 + (n > 10)}" for n, _ in numbered],
        "train_test_split": [f"{n} {int(n % 2)}" for n, _ in numbered],
    }
    files |= {f"CUB_200_2011/{name}.txt": "\n".join(lines).encode() for name, lines in lists.items()}
    dataset = prepared("cub-200", put(tmp_path / "data", files), tmp_path / "out")
    assert dataset.classes == ("Black footed Albatross", "Laysan Albatross")
    assert dataset.card["splits"] == {"train": 8, "val": 2, "test": 10}
    odd = dataset.manifest["split"] != "test"
    assert [int(path.split("/")[1][0]) % 2 for path in dataset.manifest.loc[odd, "path"]] == [0] * 10
    (tmp_path / "data/CUB_200_2011/train_test_split.txt").unlink()
    with pytest.raises(ConceptBenchError, match=r"train_test_split\.txt is missing; get it from https"):
        prepared("cub-200", tmp_path / "data", tmp_path / "again")


def test_ade20k_has_masks_and_scenes(tmp_path: Path) -> None:
    files, home = {}, "ADEChallengeData2016"
    for folder, count in (("training", 3), ("validation", 4)):
        for i in range(count):
            files[f"{home}/images/{folder}/{folder}_{i}.jpg"] = picture(i)
            files[f"{home}/annotations/{folder}/{folder}_{i}.png"] = picture(i + 50, "PNG")
    files[f"{home}/sceneCategories.txt"] = b"training_0 airport\ntraining_1 attic\nvalidation_0 attic\n"
    root = put(tmp_path / "data", files)
    dataset = prepared("ade20k", root, tmp_path / "out")
    assert dataset.card["splits"] == {"train": 3, "val": 2, "test": 2} and dataset.classes == ()
    row = dataset.manifest.iloc[0]
    assert (row["scene"], row["mask"], row["label"]) == ("airport", "annotations/training/training_0.png", -1)
    assert row["mask_sha256"] == hashlib.sha256(picture(50, "PNG")).hexdigest()
    (root / home / "annotations/validation/validation_3.png").unlink()
    with pytest.raises(ConceptBenchError, match=r"validation_3\.png, the mask of an image, is missing"):
        prepared("ade20k", root, tmp_path / "again")


def coco(names: list[str]) -> bytes:
    images = [{"id": 10 + n, "file_name": name} for n, name in enumerate(names)]
    texts = [
        {"image_id": 10 + n, "caption": f"{word} {name} "} for word in ("a", "the") for n, name in enumerate(names)
    ]
    return json.dumps({"images": images, "annotations": texts}).encode()


def test_coco_captions(tmp_path: Path) -> None:
    files = {f"coco/{split}2017/{i}.jpg": picture(i) for split in ("train", "val") for i in range(4)}
    for split in ("train", "val"):
        files[f"coco/annotations/captions_{split}2017.json"] = coco([f"{i}.jpg" for i in range(4)])
    dataset = prepared("coco", put(tmp_path / "data", files), tmp_path / "out")
    assert dataset.card["splits"] == {"train": 4, "val": 2, "test": 2}
    assert list(dataset.manifest["captions"].iloc[1]) == ["a 1.jpg", "the 1.jpg"]
    assert dataset.manifest["path"].iloc[5] == "val2017/1.jpg"


def caption_set(root: Path, name: str, content: str | bytes, count: int = 10) -> Path:
    put(root, {f"set/{i}.jpg": picture(i) for i in range(count)})
    return put(root, {name: content.encode() if isinstance(content, str) else content})


TABLE = "image,caption\n" + "".join(f'{i}.jpg,"{word}, {i}"\n' for i in range(10) for word in ("a", "b"))
MAPPING = json.dumps({f"{i}.jpg": [f"a, {i}", f"b, {i}"] for i in range(10)})
COCO_FORM = coco([f"{i}.jpg" for i in range(10)]).replace(b"a ", b"a, ").replace(b"the ", b"b, ").replace(b".jpg ", b"")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("c.csv", TABLE),
        ("c.txt", TABLE),
        ("c.tsv", TABLE.replace(".jpg,", ".jpg\t").replace("image,", "image\t")),
        ("c.json", MAPPING),
        ("coco.json", COCO_FORM),
    ],
)
def test_every_form_of_caption_file_gives_the_same_images(tmp_path: Path, name: str, content: str | bytes) -> None:
    root = caption_set(tmp_path / "data", name, content)
    dataset = prepared("captions", root, tmp_path / "out", path="set", captions=name)
    assert dataset.card["splits"] == {"train": 5, "val": 2, "test": 3}
    captions = dict(zip(dataset.manifest["path"], map(list, dataset.manifest["captions"]), strict=True))
    assert captions == {f"{i}.jpg": [f"a, {i}", f"b, {i}"] for i in range(10)}
    assert open_dataset(tmp_path / "out", root).pil(3).size == (8, 8)


def test_split_column_of_a_caption_table(tmp_path: Path) -> None:
    rows = "".join(f"{i}.jpg,text {i},{('train', 'val', 'test')[i % 3]}\n" for i in range(10))
    root = caption_set(tmp_path / "data", "c.csv", f"image,caption,split\n{rows}")
    dataset = prepared("captions", root, tmp_path / "out", path="set", captions="c.csv")
    assert dataset.manifest["split"].tolist() == [("train", "val", "test")[i % 3] for i in range(10)]
    assert dataset.card["split_rule"] == "column split of c.csv"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.csv", "image,text\n0.jpg,a\n", "lacks the column caption"),
        ("c.csv", "image,caption\n", "has no caption"),
        ("c.csv", "image,caption\n0.jpg,  \n", "has an empty caption of 0.jpg"),
        ("c.csv", "image,caption\n0.jpg,a\n77.jpg,b\n", r"names 1 images that are not in .*such as 77\.jpg"),
        ("c.csv", "image,caption\n../c.csv,a\n", "names ../c.csv, outside of"),
        ("c.csv", "image,caption,split\n0.jpg,a,train\n0.jpg,b,val\n", "puts 0.jpg into two splits"),
        ("c.csv", "image,caption,split\n0.jpg,a,dev\n", "has the split 'dev'; use train, val, test"),
        ("c.json", "[1, 2]", "is neither COCO's JSON nor a mapping"),
        ("c.json", '{"0.jpg": 3}', "is neither COCO's JSON nor a mapping"),
        ("c.json", '{"images": [{"id": 1}], "annotations": []}', "is neither COCO's JSON nor a mapping"),
    ],
)
def test_caption_files_that_are_wrong(tmp_path: Path, name: str, content: str, message: str) -> None:
    root = caption_set(tmp_path / "data", name, content)
    with pytest.raises(ConceptBenchError, match=message):
        prepared("captions", root, tmp_path / "out", path="set", captions=name)
    assert not (tmp_path / "out").exists()


def test_every_kind_has_a_source_a_place_and_a_prompt() -> None:
    published = set(KINDS) - RENDERED - {"folder", "captions"}
    assert set(SOURCES) == published
    assert published - set(TEMPLATES) == {"eurosat", "flowers", "coco", "ade20k"}
    for source in SOURCES.values():
        assert source.licence and source.homepage.startswith("http") and source.parts
        for part in source.parts:
            assert isinstance(part, Part) and part.found_at and bool(part.url) != bool(part.by_hand)
            assert part.downloads or part.by_hand
            if part.checksum:
                algorithm, _, digest = part.checksum.partition(":")
                assert len(digest) == {"md5": 32, "sha256": 64}[algorithm]


def test_page_names_every_kind_and_every_backbone() -> None:
    page = (Path(__file__).parents[2] / "docs" / "real-data.md").read_text(encoding="utf-8")
    lacking = [name for name in (*sorted(set(KINDS) - RENDERED), *NAMED) if f"`{name}`" not in page]
    assert lacking == []
