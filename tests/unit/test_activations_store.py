"""Reading: what a reader returns, and that damage of every kind is found and named."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import numpy as np
import pytest
from activations_standins import a_shard, expected, record_small

from conceptbench.activations import ActivationStore, find_problems, verify
from conceptbench.errors import ConceptBenchError


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return record_small(tmp_path)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[100] ^= 4
    path.write_bytes(content)


def rewrite(path: Path, change: Callable[[np.ndarray], None]) -> None:
    """Change values and make the checksum right again, as a faulty writer would."""
    values = np.frombuffer(path.read_bytes()[:-4], "<f2").reshape(14, 5, 3).copy()
    change(values)
    path.write_bytes(values.tobytes() + int(google_crc32c.value(values.tobytes())).to_bytes(4, "little"))


def never_write(values: np.ndarray) -> None:
    values[6] = np.nan


def plant_nan(values: np.ndarray) -> None:
    values[6, 2, 1] = np.nan


DAMAGE = {
    "flipped byte": (flip, r"crc32c does not match"),
    "flipped checksum": (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"\0"), r"crc32c does not match"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:50]), r"has 50 bytes instead of 424"),
    "empty": (lambda path: path.write_bytes(b""), r"has 0 bytes"),
    "missing": (lambda path: path.unlink(), r"is missing"),
    "row never written": (lambda path: rewrite(path, never_write), r"mage 20 in .* was never written"),
    "NaN": (lambda path: rewrite(path, plant_nan), r"mage 20 in .* contains NaN"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_found_by_the_reader_and_by_verify(out: Path, name: str) -> None:
    hurt, message = DAMAGE[name]
    hurt(a_shard(out, block=4, shard=1))
    store = ActivationStore.open(out)
    np.testing.assert_array_equal(store.read(4, [0, 39]), expected([0, 39], 4))
    np.testing.assert_array_equal(store.read(1, range(40)), expected(range(40), 1))
    where = r"hard 1 of block 4 \(images 14\.\.27, .*c/1/0/0\)"
    for read in (
        lambda: store.read(4, [15]),
        lambda: list(store.iterate(4)),
        lambda: list(store.shuffled_tokens(4, 10, 0, 0, 100)),
    ):
        with pytest.raises(ConceptBenchError, match=where) as caught:
            read()
        assert caught.match(message)
    problems = find_problems(out)
    assert len(problems) == 1
    with pytest.raises(ConceptBenchError, match=where) as caught:
        verify(out)


def test_verify_collects_every_problem(out: Path) -> None:
    flip(a_shard(out, 1, 0))
    a_shard(out, 4, 2).unlink()
    (out / "store.zarr" / "block4" / "c" / "9").write_bytes(b"x")
    with pytest.raises(ConceptBenchError, match=r"3 problem\(s\)") as caught:
        verify(out)
    assert caught.match("shard 0 of block 1")
    assert caught.match("shard 2 of block 4")
    assert caught.match("belongs to no shard")


def test_a_shard_of_another_recording_is_found_by_verify(out: Path) -> None:
    rewrite(a_shard(out), lambda values: np.add(values, 1, out=values))
    with pytest.raises(ConceptBenchError, match="not the file of the manifest"):
        verify(out)


@pytest.mark.parametrize(
    ("expect", "message"),
    [
        ({"backbone_digest": "other"}, "backbone_digest 'bbbbbbbb' but 'other' is needed"),
        ({"dataset_digest": "other"}, "dataset_digest 'dddddddd' but 'other' is needed"),
        ({"context_digest": "other"}, "context_digest '' but 'other' is needed"),
        ({"block": 2}, r"blocks \[1, 4\], not block 2"),
        ({"colour": "red"}, "no field 'colour'"),
    ],
)
def test_a_store_of_something_else_is_refused_and_both_are_named(out: Path, expect: dict, message: str) -> None:
    with pytest.raises(ConceptBenchError, match=message):
        ActivationStore.open(out, expect)


def test_met_expectations_open(out: Path) -> None:
    ActivationStore.open(out, {"backbone_digest": "b" * 8, "dataset_digest": "d" * 8, "block": 4})


def edit_json(path: Path, change: Callable[[dict], None]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("manifest.json", lambda m: m["spec"].update(backbone_digest="x"), "names spec digest"),
        ("manifest.json", lambda m: m["spec"].update(format="v0"), "format 'v0'"),
        ("manifest.json", lambda m: m["spec"].pop("rows"), "malformed specification"),
        ("manifest.json", lambda m: m.pop("spec"), "no specification"),
        ("manifest.json", lambda m: m.pop("shards"), "lists no shards"),
        ("store.zarr/zarr.json", lambda z: z["attributes"].update(spec_digest="x"), "holds spec digest x"),
        ("store.zarr/block4/zarr.json", lambda z: z.update(shape=[99, 5, 3]), "laid out as"),
        ("store.zarr/block4/zarr.json", lambda z: z["codecs"].pop(), "laid out as"),
        ("store.zarr/block4/zarr.json", lambda z: z.update(node_type="x"), "not a readable Zarr group"),
    ],
)
def test_a_manifest_that_does_not_fit_the_store_is_refused(
    out: Path, file: str, change: Callable[[dict], None], message: str
) -> None:
    edit_json(out / file, change)
    with pytest.raises(ConceptBenchError, match=message):
        ActivationStore.open(out)
    assert find_problems(out)


def test_no_manifest_means_no_store(out: Path) -> None:
    (out / "manifest.json").unlink()
    with pytest.raises(ConceptBenchError, match="no finished activation store"):
        ActivationStore.open(out)
    with pytest.raises(ConceptBenchError, match="no finished activation store"):
        verify(out)


def test_missing_zarr_metadata_is_found(out: Path) -> None:
    (out / "store.zarr" / "block4" / "zarr.json").unlink()
    with pytest.raises(ConceptBenchError, match="not a readable Zarr group"):
        ActivationStore.open(out)


def test_manifest_that_lists_too_few_shards_is_found(out: Path) -> None:
    edit_json(out / "manifest.json", lambda m: m["shards"]["block4"].pop())
    with pytest.raises(ConceptBenchError, match="does not list the 3 shards of block 4"):
        verify(out)


@pytest.mark.parametrize("batch_images", [1, 7, 14, 100])
def test_iterate_keeps_order(out: Path, batch_images: int) -> None:
    store = ActivationStore.open(out)
    rows, tokens = zip(*store.iterate(4, batch_images=batch_images), strict=True)
    np.testing.assert_array_equal(np.concatenate(rows), np.arange(40))
    np.testing.assert_array_equal(np.concatenate(tokens), expected(range(40), 4))
    chosen = [39, 3, 20, 3]
    rows, tokens = zip(*store.iterate(4, chosen, batch_images), strict=True)
    assert np.concatenate(rows).tolist() == chosen
    np.testing.assert_array_equal(np.concatenate(tokens), expected(chosen, 4))


def test_token_choice(out: Path) -> None:
    store = ActivationStore.open(out)
    assert store.read(4, [3], tokens="patch")[0, :, 1].tolist() == [1, 2, 3, 4]
    assert store.read(4, [3, 30], tokens="prefix")[:, :, 1].tolist() == [[0], [0]]
    assert next(store.iterate(4, tokens="patch"))[1].shape == (40, 4, 3)
    with pytest.raises(ConceptBenchError, match="choose one of all, patch, prefix"):
        store.read(4, [3], tokens="cls")


def test_block_that_was_not_recorded(out: Path) -> None:
    store = ActivationStore.open(out)
    for read in (
        lambda: store.read(2, [0]),
        lambda: next(store.iterate(2)),
        lambda: store.shuffled_tokens(2, 1, 0, 0, 1),
    ):
        with pytest.raises(ConceptBenchError, match="holds blocks 1, 4, not block 2"):
            read()


def test_pickling_reopens_the_files(out: Path) -> None:
    store = ActivationStore.open(out)
    store.read(4, [0])
    content = pickle.dumps(store)
    assert len(content) < 1000
    np.testing.assert_array_equal(pickle.loads(content).read(4, [1]), expected([1], 4))
