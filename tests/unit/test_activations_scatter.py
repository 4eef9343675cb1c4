"""Recording shared by several jobs: the bytes of one job, one clear sentence when a part is absent, and resuming."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from activations_standins import StandInBackbone, StandInDataset, record_small
from hypothesis import given
from hypothesis import strategies as st

from conceptbench.activations import ActivationStore, Part, gather, record, record_part, verify
from conceptbench.activations.layout import MANIFEST, STORE, shard_path
from conceptbench.activations.request import make_spec
from conceptbench.activations.scatter import PART
from conceptbench.backbones import load_backbone
from conceptbench.backbones.shipped import SHIPPED
from conceptbench.data import open_dataset, prepare_dataset
from conceptbench.data.spec import DatasetSpec
from conceptbench.errors import ConceptBenchError

OPTIONS: dict[str, Any] = {"batch_size": 3, "shard_images": 4, "progress": False}
BLOCKS = [1, 4]


def arrays(out: Path) -> dict[str, bytes]:
    store = out / STORE
    return {str(path.relative_to(store)): path.read_bytes() for path in store.glob("block*/c/*/0/0")}


def record_parts(folder: Path, of: int, backbone: StandInBackbone | None = None) -> list[Path]:
    for number in range(1, of + 1):
        part = Part(number, of)
        place = folder / "work" / str(part)
        record_part(part, backbone or StandInBackbone(), StandInDataset(), BLOCKS, place, **OPTIONS)
    return [folder / "work" / str(Part(number, of)) / PART for number in range(1, of + 1)]


def gathered(folder: Path, parts: list[Path]) -> Path:
    gather(parts, folder / "out", work=folder / "work")
    return folder / "out"


@given(n_shards=st.integers(0, 200), of=st.integers(1, 40))
def test_every_shard_belongs_to_one_part_and_parts_are_even(n_shards: int, of: int) -> None:
    shares = [Part(number, of).shards(n_shards) for number in range(1, of + 1)]
    assert [shard for share in shares for shard in share] == list(range(n_shards))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize("name", ["0of3", "4of3", "3", "aof8", "3of", "-1of2"])
def test_a_name_that_is_no_part_is_refused(name: str) -> None:
    with pytest.raises(ConceptBenchError, match="part"):
        Part.parse(name)


@pytest.mark.parametrize("of", [8, 10, 13])
def test_parts_together_have_the_bytes_of_one_job(tmp_path: Path, of: int) -> None:
    plain = record_small(tmp_path / "plain", **OPTIONS)
    out = gathered(tmp_path / "parts", record_parts(tmp_path / "parts", of))
    assert len(arrays(plain)) == 20  # ten shards of two blocks
    assert arrays(out) == arrays(plain)
    verify(out)
    left, right = (json.loads((folder / MANIFEST).read_text()) for folder in (out, plain))
    assert {key: left[key] for key in ("spec", "spec_digest", "shards", "shape")} == {
        key: right[key] for key in ("spec", "spec_digest", "shards", "shape")
    }
    assert sorted(left["parts"]) == sorted(f"{number}of{of}" for number in range(1, of + 1))
    assert not (tmp_path / "parts" / "work").exists()


def test_a_real_backbone_recorded_by_eight_jobs_has_the_bytes_of_one(tmp_path: Path) -> None:
    prepare_dataset(DatasetSpec("scenes", "scenes", sizes={"train": 64}), tmp_path / "data", None, 0)
    dataset = open_dataset(tmp_path / "data")
    backbone = load_backbone(SHIPPED / "clip-tiny", "cpu")
    options = {"batch_size": 3, "shard_images": 4, "progress": False}
    record(backbone, dataset, [2, 4], tmp_path / "plain", work=tmp_path / "work", **options)
    parts = []
    for number in range(8, 0, -1):
        part = Part(number, 8)
        record_part(part, backbone, dataset, [2, 4], tmp_path / "parts" / str(part), **options)
        parts.append(tmp_path / "parts" / str(part) / PART)
    gather(parts, tmp_path / "out", work=tmp_path / "parts")
    assert len(arrays(tmp_path / "plain")) == 32
    assert arrays(tmp_path / "out") == arrays(tmp_path / "plain")


def test_a_missing_shard_is_named_and_only_it_is_recorded_again(tmp_path: Path) -> None:
    parts = record_parts(tmp_path, 4)
    shard_path(parts[1].parent / STORE, 4, 3).unlink()
    with pytest.raises(ConceptBenchError, match=r"Part 2of4 .*shard 3 of block 4 .* is missing; delete this file and"):
        gathered(tmp_path, parts)
    assert not (tmp_path / "out" / MANIFEST).exists()
    parts[1].unlink()
    backbone = StandInBackbone()
    again = record_part(Part(2, 4), backbone, StandInDataset(), BLOCKS, parts[1].parent, **OPTIONS)
    assert backbone.passes == 2  # four images in batches of at most three
    assert again["resumed_shards"] == 2
    assert arrays(gathered(tmp_path, parts)) == arrays(record_small(tmp_path / "plain", **OPTIONS))


def test_a_damaged_shard_is_refused(tmp_path: Path) -> None:
    parts = record_parts(tmp_path, 2)
    path = shard_path(parts[0].parent / STORE, 1, 2)
    content = bytearray(path.read_bytes())
    content[5] ^= 1
    path.write_bytes(content)
    with pytest.raises(ConceptBenchError, match=r"Part 1of2 .* cannot be used: shard 2 of block 1 .* is damaged"):
        gathered(tmp_path, parts)
    assert not (tmp_path / "out" / MANIFEST).exists()


def test_an_absent_part_is_refused(tmp_path: Path) -> None:
    parts = record_parts(tmp_path, 3)
    with pytest.raises(ConceptBenchError, match="is one of 3 parts and 2 were given"):
        gathered(tmp_path, parts[:2])
    with pytest.raises(ConceptBenchError, match="is one of 3 parts and 2 were given"):
        gathered(tmp_path, [parts[0], parts[2], parts[0]])


def test_parts_of_different_recordings_are_refused(tmp_path: Path) -> None:
    other = StandInBackbone()
    other.digest = "other weights"  # type: ignore[misc]
    parts = record_parts(tmp_path, 2)
    shutil.rmtree(parts[1].parent)
    record_part(Part(2, 2), other, StandInDataset(), BLOCKS, parts[1].parent, **OPTIONS)
    with pytest.raises(ConceptBenchError, match="parts of different recordings"):
        gathered(tmp_path, parts)


def test_a_gather_that_was_killed_while_moving_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    parts, moved = record_parts(tmp_path, 3), []
    rename = Path.rename

    def kill_at_the_seventh(self: Path, target: Path) -> Path:
        if self.name == "0":
            moved.append(self)
        if len(moved) == 7:
            raise Killed
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", kill_at_the_seventh)
    with pytest.raises(Killed):
        gathered(tmp_path, parts)
    monkeypatch.undo()
    assert arrays(gathered(tmp_path, parts)) == arrays(record_small(tmp_path / "plain", **OPTIONS))


def test_seconds_are_summed_over_parts(tmp_path: Path) -> None:
    parts = record_parts(tmp_path, 3, StandInBackbone(delay=0.01))
    seconds = [json.loads(path.read_text())["seconds"]["forward"] for path in parts]
    gathered(tmp_path, parts)
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_text())
    np.testing.assert_allclose(manifest["seconds"]["forward"], sum(seconds), atol=2e-3)
    assert manifest["seconds"]["forward"] >= 0.2  # twenty passes of a hundredth


def test_mixed_precision_is_a_matter_of_gpus_and_is_stated(tmp_path: Path) -> None:
    out = record_small(tmp_path, precision="bfloat16")
    assert "precision" not in dict(ActivationStore.open(out).spec.execution)

    class OnGpu(StandInBackbone):
        device = "cuda"

    spec = make_spec(OnGpu(), StandInDataset(), [1], None, 5, "float16", None, 16, "bfloat16")
    assert dict(spec.execution)["precision"] == "bfloat16"
    plain = make_spec(OnGpu(), StandInDataset(), [1], None, 5, "float16", None, 16)
    assert spec.digest != plain.digest
