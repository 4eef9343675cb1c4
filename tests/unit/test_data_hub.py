"""ImageNet from the hub: with a login only, shard by shard, and into its own folders; the hub is a folder here."""

import hashlib
import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub.errors import GatedRepoError
from PIL import Image

from conceptbench.data import DatasetSpec, places, prepare_dataset, provide_dataset
from conceptbench.data.catalogue import SOURCES
from conceptbench.errors import ConceptBenchError

SYNSETS = ("n01440764", "n01443537")
TOKEN = "hf_of_a_user"


def picture(seed: int) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def shard(rows: dict[str, bytes]) -> bytes:
    images = [{"bytes": content, "path": path} for path, content in rows.items()]
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": images, "label": list(range(len(images)))}), buffer)
    return buffer.getvalue()


class Hub:
    """The repository at one commit; `fail_at` breaks the download of a shard."""

    def __init__(self) -> None:
        train = {f"{synset}_{i}_{synset}.JPEG": picture(s * 10 + i) for s, synset in enumerate(SYNSETS) for i in (1, 2)}
        val = {
            f"ILSVRC2012_val_{s * 4 + i:08d}_{synset}.JPEG": picture(90 + s * 4 + i)
            for s, synset in enumerate(SYNSETS)
            for i in range(4)
        }
        self.rows = {**train, **val}
        pairs = list(train.items())
        self.files = {
            "data/train-00000-of-00002.parquet": shard(dict(pairs[::2])),
            "data/train-00001-of-00002.parquet": shard(dict(pairs[1::2])),
            "data/validation-00000-of-00001.parquet": shard(val),
            "data/test-00000-of-00001.parquet": b"not asked for",
            "README.md": b"terms",
        }
        self.fail_at: str | None = None
        self.gated = False
        self.masked = False
        self.asked: list[str] = []

    def dataset_info(self, repository: str, *, revision: str, files_metadata: bool, token: bool) -> Any:
        self.require(repository, revision, token)
        assert files_metadata
        siblings = [
            SimpleNamespace(
                rfilename=name,
                size=len(content),
                lfs=None if self.masked else SimpleNamespace(sha256=hashlib.sha256(content).hexdigest()),
            )
            for name, content in self.files.items()
        ]
        return SimpleNamespace(siblings=siblings)

    def download(
        self, repository: str, name: str, *, repo_type: str, revision: str, local_dir: Path, token: bool
    ) -> str:
        self.require(repository, revision, token)
        assert repo_type == "dataset"
        if name == self.fail_at:
            raise OSError("connection lost")
        self.asked.append(name)
        (local_dir / name).parent.mkdir(parents=True, exist_ok=True)
        (local_dir / ".cache").mkdir(exist_ok=True)
        (local_dir / name).write_bytes(self.files[name])
        return str(local_dir / name)

    def require(self, repository: str, revision: str, token: bool) -> None:
        shards = SOURCES["imagenet"].parts[0].shards
        assert shards is not None and (repository, revision) == (shards.repository, shards.revision) and token is True
        if self.gated:
            raise GatedRepoError.__new__(GatedRepoError)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub()
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: TOKEN)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", made.download)
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda: made)
    return made


@pytest.fixture
def root(tmp_path: Path) -> Path:
    names = tmp_path / "data" / "imagenet" / "classnames.txt"
    names.parent.mkdir(parents=True)
    names.write_text(f"{SYNSETS[0]} tench\n{SYNSETS[1]} goldfish\n")
    return tmp_path / "data"


def test_shards_become_the_folders_that_are_prepared(hub: Hub, root: Path, tmp_path: Path) -> None:
    found = provide_dataset(SOURCES["imagenet"], root, "missing")
    images = root / "imagenet" / "images"
    for name, content in hub.rows.items():
        stem, _, synset = name.removesuffix(".JPEG").rpartition("_")
        split = "train" if stem.startswith("n") else "val"
        assert (images / split / synset / f"{stem}.JPEG").read_bytes() == content
    assert sum(1 for _ in images.rglob("*.JPEG")) == len(hub.rows)
    assert [(part["name"], part.get("images")) for part in found["parts"]] == [
        ("imagenet/images/train", 4),
        ("imagenet/images/val", 8),
        ("classnames.txt", None),
    ]
    assert found["parts"][0]["revision"] == SOURCES["imagenet"].parts[0].shards.revision  # type: ignore[union-attr]
    left = {path.name for path in (root / "downloads").rglob("*") if path.is_file()}
    assert left == {".lock"} and not (root / "downloads/imagenet/.cache").exists()
    assert not any(TOKEN.encode() in path.read_bytes() for path in root.rglob("*") if path.is_file())
    dataset = prepare_dataset(DatasetSpec.of("probe", {"kind": "imagenet"}), tmp_path / "out", root, seed=0)
    assert dataset.card["splits"] == {"train": 4, "val": 4, "test": 4}
    assert dataset.classes == ("tench", "goldfish")
    hub.asked.clear()
    assert provide_dataset(SOURCES["imagenet"], root, "missing")["parts"][0]["found"] == "imagenet/images/train"
    assert hub.asked == []


def test_interrupted_download_loses_one_shard(hub: Hub, root: Path) -> None:
    hub.fail_at = "data/train-00001-of-00002.parquet"
    with pytest.raises(ConceptBenchError, match=r"cannot be fetched from the hub \(connection lost\); run again to go"):
        provide_dataset(SOURCES["imagenet"], root, "missing")
    images = root / "imagenet" / "images"
    assert not (images / "train").exists() and not list((root / "downloads").rglob("*.parquet"))
    assert hub.asked == ["data/train-00000-of-00002.parquet"]
    hub.fail_at = None
    provide_dataset(SOURCES["imagenet"], root, "missing")
    assert hub.asked[1:] == ["data/train-00001-of-00002.parquet", "data/validation-00000-of-00001.parquet"]
    assert sum(1 for _ in (images / "train").rglob("*.JPEG")) == 4
    assert [path.name for path in images.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("gated", [False, True])
def test_without_a_login_or_consent_one_sentence_says_what_to_do(
    hub: Hub, root: Path, gated: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.gated = gated
    if not gated:
        monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    why = "is not open to the account" if gated else "needs a login"
    with pytest.raises(
        ConceptBenchError,
        match=rf"imagenet-1k {why}.*terms at https://huggingface\.co/datasets/ILSVRC/imagenet-1k, .*HF_TOKEN.*or put",
    ):
        provide_dataset(SOURCES["imagenet"], root, "missing")
    assert hub.asked == [] and not (root / "imagenet" / "images").exists()


@pytest.mark.parametrize(
    "name",
    [
        "../n01440764_3_n01440764.JPEG",
        "/n01440764_3_n01440764.JPEG",
        "n01440764/n01440764_3.JPEG",
        "n01440764_3_n01443537.JPEG",
        "n01440764_3_n01440764.JPEG\n",
        "n01440764_3.JPEG",
        "",
    ],
)
def test_names_that_are_not_those_of_imagenet_are_refused(hub: Hub, root: Path, name: str) -> None:
    hub.files["data/train-00000-of-00002.parquet"] = shard({name: picture(0)})
    with pytest.raises(ConceptBenchError, match="whose name or content is not ImageNet's"):
        provide_dataset(SOURCES["imagenet"], root, "missing")
    assert not list(root.rglob("*.JPEG"))


@pytest.mark.parametrize("masked", [False, True])
def test_damaged_shard_is_refused(hub: Hub, root: Path, masked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.masked = masked
    listed = hub.dataset_info
    whole = hub.files["data/train-00000-of-00002.parquet"]

    def then_damaged(*given: Any, **options: Any) -> Any:
        info = listed(*given, **options)
        hub.files["data/train-00000-of-00002.parquet"] = whole[: len(whole) // 2]
        return info

    monkeypatch.setattr(hub, "dataset_info", then_damaged)
    with pytest.raises(
        ConceptBenchError, match="cannot be unpacked" if masked else r"has the sha256 .* it was removed"
    ):
        provide_dataset(SOURCES["imagenet"], root, "missing")
    assert not (root / "imagenet/images/train").exists()


def test_missing_shard_and_lost_images_are_noticed(hub: Hub, root: Path) -> None:
    last = hub.files.pop("data/train-00001-of-00002.parquet")
    with pytest.raises(ConceptBenchError, match="has 1 shards of train, which are not as many as their names say"):
        provide_dataset(SOURCES["imagenet"], root, "missing")
    hub.files["data/train-00001-of-00002.parquet"] = last
    hub.fail_at = "data/train-00001-of-00002.parquet"
    with pytest.raises(ConceptBenchError, match="connection lost"):
        provide_dataset(SOURCES["imagenet"], root, "missing")
    next((root / "imagenet/images/.train.partial").rglob("*.JPEG")).unlink()
    hub.fail_at = None
    with pytest.raises(ConceptBenchError, match="has 3 images of the 4 that were unpacked; remove it"):
        provide_dataset(SOURCES["imagenet"], root, "missing")


def test_another_commit_than_the_one_that_was_begun_is_refused(hub: Hub, root: Path) -> None:
    hub.fail_at = "data/train-00001-of-00002.parquet"
    with pytest.raises(ConceptBenchError, match="connection lost"):
        provide_dataset(SOURCES["imagenet"], root, "missing")
    note = root / "imagenet/images/.train.partial/shards.json"
    revision = SOURCES["imagenet"].parts[0].shards.revision  # type: ignore[union-attr]
    note.write_text(note.read_text().replace(revision, "f" * 40))
    with pytest.raises(ConceptBenchError, match=f"pins ILSVRC/imagenet-1k at {'f' * 40}, but this run asks for"):
        provide_dataset(SOURCES["imagenet"], root, "missing")


def test_full_disk_is_said_before_the_first_shard(hub: Hub, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = places.shutil.disk_usage(root)
    monkeypatch.setattr(places.shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(ConceptBenchError, match=r"What is left of imagenet/images/train takes .* free some room"):
        provide_dataset(SOURCES["imagenet"], root, "missing")
    assert hub.asked == []
