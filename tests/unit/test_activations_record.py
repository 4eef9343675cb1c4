"""Recording: content, request checks, values that cannot be stored, disks that refuse."""

import errno
import json
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import zarr
from activations_standins import (
    StandInBackbone,
    StandInDataset,
    a_shard,
    expected,
    record_small,
)

from conceptbench.activations import ActivationStore, RecordingContext, record, verify
from conceptbench.activations.layout import STORE, balanced_shard, to_runs
from conceptbench.activations.shards import ShardWriter
from conceptbench.errors import ConceptBenchError


@pytest.fixture
def options(tmp_path: Path) -> dict:
    return {"work": tmp_path / "work", "batch_size": 5, "shard_images": 16, "progress": False}


def test_all_blocks_are_stored_in_one_pass(tmp_path: Path, options: dict) -> None:
    backbone = StandInBackbone()
    record(backbone, StandInDataset(), [4, 1], tmp_path / "out", **options)
    store = ActivationStore.open(tmp_path / "out")
    assert backbone.passes == 9  # three shards of 14, 14 and 12 images in batches of at most 5
    assert store.blocks == (1, 4)
    assert store.shape == (40, 5, 3)
    for block in store.blocks:
        np.testing.assert_array_equal(store.read(block, range(40)), expected(range(40), block))
    verify(tmp_path / "out")
    assert not (tmp_path / "work").exists()


def test_zarr_itself_reads_the_same_values(tmp_path: Path) -> None:
    out = record_small(tmp_path, n=37)
    array = zarr.open_group(out / "store.zarr", mode="r")["block4"]
    np.testing.assert_array_equal(array[:], expected(range(37), 4).astype(np.float16))
    assert np.isnan(array.fill_value)
    assert array.metadata.dimension_names == ("image", "token", "feature")


def test_zarr_itself_notices_a_flipped_byte(tmp_path: Path) -> None:
    out = record_small(tmp_path)
    content = bytearray(a_shard(out).read_bytes())
    content[7] ^= 1
    a_shard(out).write_bytes(content)
    with pytest.raises(ValueError, match="checksum"):
        zarr.open_group(out / "store.zarr", mode="r")["block4"][:]


def test_chosen_rows_keep_their_order_and_their_names(tmp_path: Path, options: dict) -> None:
    rows = [30, 31, 2, 39, 7]
    record(StandInBackbone(), StandInDataset(), [1], tmp_path / "out", rows=rows, **options)
    store = ActivationStore.open(tmp_path / "out")
    assert store.rows.tolist() == rows
    np.testing.assert_array_equal(store.read(1, [7, 30, 7]), expected([7, 30, 7], 1))
    with pytest.raises(ConceptBenchError, match="row 8"):
        store.read(1, [8])


def test_manifest_states_files_and_seconds(tmp_path: Path) -> None:
    out = record_small(tmp_path)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["shape"] == [40, 5, 3]
    assert [entry["images"] for entry in manifest["shards"]["block4"]] == [[0, 14], [14, 28], [28, 40]]
    assert {entry["bytes"] for entry in manifest["shards"]["block1"]} == {14 * 5 * 3 * 2 + 4}
    assert 0 < manifest["seconds"]["forward"] <= manifest["seconds"]["total"]
    assert manifest["spec"]["backbone_digest"] == "b" * 8
    assert manifest["spec"]["dataset_digest"] == "d" * 8


def test_images_are_prepared_while_the_model_runs(tmp_path: Path, options: dict) -> None:
    """One after the other, 0.1 s of loading and 0.1 s of model would give a share of one half."""

    class SlowDataset(StandInDataset):
        def images(self, rows: Sequence[int]) -> np.ndarray:
            time.sleep(0.1)
            return super().images(rows)

    manifest = record(StandInBackbone(delay=0.1), SlowDataset(), [1, 4], tmp_path / "out", **options)
    seconds = manifest["seconds"]
    assert seconds["forward"] >= 0.9
    assert seconds["waiting_for_images"] < 0.6
    assert manifest["forward_share"] == pytest.approx(seconds["forward"] / seconds["total"], abs=1e-3)


class Photographs(StandInDataset):
    """Files; the first ones wait until as many are being decoded as there are threads for it."""

    def __init__(self, workers: int) -> None:
        super().__init__()
        self.manifest["path"] = "photograph.jpg"
        self.workers, self.together = workers, 0
        self.decoding: set[int] = set()

    def pil(self, row: int) -> np.ndarray:
        self.decoding.add(row)
        deadline = time.monotonic() + 5
        while row < self.workers and self.together < self.workers and time.monotonic() < deadline:
            self.together = max(self.together, len(self.decoding))
            time.sleep(0.001)
        self.decoding.discard(row)
        image = np.zeros((4, 4, 3), np.uint8)
        image[0, 0, 0] = row
        return image


def test_photographs_are_decoded_side_by_side_into_the_same_bytes(tmp_path: Path, options: dict) -> None:
    stores = []
    for workers in (1, 4):
        photographs = Photographs(workers)
        record(StandInBackbone(), photographs, [1, 4], tmp_path / f"out{workers}", workers=workers, **options)
        assert photographs.together == workers
        stores.append(tmp_path / f"out{workers}" / STORE)
    files = [sorted(path.relative_to(store) for path in store.rglob("c/*/0/0")) for store in stores]
    assert files[0] == files[1] and len(files[0]) == 6
    assert all((stores[0] / path).read_bytes() == (stores[1] / path).read_bytes() for path in files[0])
    np.testing.assert_array_equal(ActivationStore.open(tmp_path / "out4").read(4, range(40)), expected(range(40), 4))


def test_both_figures_are_printed(tmp_path: Path, options: dict, capsys: pytest.CaptureFixture[str]) -> None:
    record(StandInBackbone(), StandInDataset(), [1], tmp_path / "out", **{**options, "progress": True})
    printed = capsys.readouterr().err
    assert "recorded 40 images at 1 block(s) in" in printed
    assert "model forward" in printed
    assert "images/s" in printed


def test_appended_prompts_are_sliced_off_and_uninstalled(tmp_path: Path, options: dict) -> None:
    backbone = StandInBackbone()
    context = RecordingContext("prompts", "c" * 8, backbone.with_prompts)
    record(backbone, StandInDataset(), [4], tmp_path / "out", context=context, **options)
    store = ActivationStore.open(tmp_path / "out", {"context_digest": "c" * 8})
    np.testing.assert_array_equal(store.read(4, range(40)), expected(range(40), 4))
    assert backbone.prompts == 0


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_float32_holds_what_float16_cannot(tmp_path: Path, options: dict, dtype: str) -> None:
    backbone = StandInBackbone()
    backbone.planted[17, 4] = 70_000.0
    if dtype == "float16":
        with pytest.raises(ConceptBenchError, match=r"image 17 .* block 4 .* magnitude 70000.*float32"):
            record(backbone, StandInDataset(), [1, 4], tmp_path / "out", dtype=dtype, **options)
        assert not any((tmp_path / "out").iterdir())
    else:
        record(backbone, StandInDataset(), [1, 4], tmp_path / "out", dtype=dtype, **options)
        assert ActivationStore.open(tmp_path / "out").read(4, [17])[0, 2, 2] == 70_000.0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_of_the_model_that_is_not_finite_is_named(tmp_path: Path, options: dict, value: float) -> None:
    backbone = StandInBackbone()
    backbone.planted[33, 1] = value
    with pytest.raises(ConceptBenchError, match=r"image 33 of dataset dots at block 1 .* NaN or infinite"):
        record(backbone, StandInDataset(), [1, 4], tmp_path / "out", **options)


@pytest.mark.parametrize(
    ("blocks", "changes", "message"),
    [
        ([6], {}, r"blocks 0\.\.5"),
        ([-1], {}, r"blocks 0\.\.5"),
        ([], {}, r"blocks 0\.\.5"),
        ([1, 1], {}, "once"),
        ([1], {"rows": [40]}, "not row 40"),
        ([1], {"rows": [3, 3]}, "Row 3 of dataset dots is named twice"),
        ([1], {"rows": []}, "at least one image"),
        ([1], {"dtype": "bfloat16"}, "'bfloat16'"),
        ([1], {"batch_size": 0}, "at least 1"),
    ],
)
def test_impossible_requests_are_refused(
    tmp_path: Path, options: dict, blocks: list[int], changes: dict, message: str
) -> None:
    with pytest.raises(ConceptBenchError, match=message):
        record(StandInBackbone(), StandInDataset(), blocks, tmp_path / "out", **{**options, **changes})
    assert not (tmp_path / "out").exists()


def test_tokens_of_a_wrong_shape_are_refused(tmp_path: Path, options: dict) -> None:
    backbone = StandInBackbone()
    backbone.grid = (3, 3)
    with pytest.raises(ConceptBenchError, match="gave tokens of shape"):
        record(backbone, StandInDataset(), [1], tmp_path / "out", **options)


def test_a_full_disk_leaves_a_work_folder_to_resume(
    tmp_path: Path, options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    append, calls = ShardWriter.append, []

    def full_after_seven(self: ShardWriter, values: np.ndarray) -> None:
        calls.append(len(values))
        if len(calls) > 7:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, values)

    monkeypatch.setattr(ShardWriter, "append", full_after_seven)
    with pytest.raises(ConceptBenchError, match=r"is full after 1 of 3 shards; free .* GB and run again"):
        record(StandInBackbone(), StandInDataset(), [1, 4], tmp_path / "out", **options)
    assert not any((tmp_path / "out").iterdir())
    assert not list((tmp_path / "work").rglob("*.partial"))
    monkeypatch.undo()
    manifest = record(StandInBackbone(), StandInDataset(), [1, 4], tmp_path / "out", **options)
    assert manifest["resumed_shards"] == 1
    verify(tmp_path / "out")


def test_too_little_space_is_said_before_the_first_image(
    tmp_path: Path, options: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100})())
    backbone = StandInBackbone()
    with pytest.raises(ConceptBenchError, match=r"0\.00 GB free and the recording needs"):
        record(backbone, StandInDataset(), [1], tmp_path / "out", **options)
    assert backbone.passes == 0


def test_an_older_store_stays_until_the_new_one_is_verified(tmp_path: Path, options: dict) -> None:
    out = record_small(tmp_path)
    backbone = StandInBackbone()
    backbone.planted[20, 4] = float("nan")
    with pytest.raises(ConceptBenchError):
        record(backbone, StandInDataset(), [4], out, **options)
    verify(out)
    record(StandInBackbone(), StandInDataset(), [4], out, **options)
    assert ActivationStore.open(out).blocks == (4,)
    assert sorted(path.name for path in out.iterdir()) == ["manifest.json", "store.zarr"]


@pytest.mark.parametrize(("n", "shards"), [(1, 1), (512, 1), (513, 2), (50_000, 98)])
def test_shards_are_balanced_and_few(n: int, shards: int) -> None:
    size = balanced_shard(n, 512)
    assert -(-n // size) == shards
    assert size * shards - n < shards


def test_runs_keep_order() -> None:
    assert to_runs([4, 5, 6, 1, 0, 9]) == ((4, 7), (1, 2), (0, 1), (9, 10))
