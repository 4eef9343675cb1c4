"""Codes: the compressed matrix, its aggregates against dense arithmetic, and the file."""

import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conceptbench.dictionaries import codes as module
from conceptbench.dictionaries.code_writer import CodesWriter
from conceptbench.dictionaries.codes import Codes
from conceptbench.errors import ConceptBenchError


def from_dense(dense, name="digest"):
    flat = dense.reshape(-1, dense.shape[2])
    rows, latents = flat.nonzero()
    indptr = np.concatenate([[0], np.cumsum((flat != 0).sum(1))]).astype(np.int64)
    return Codes(indptr, latents.astype(np.int32), flat[rows, latents].astype(np.float32), dense.shape, name)


def random_dense(seed, shape=(4, 3, 7), share=0.3):
    rng = np.random.default_rng(seed)
    return (rng.uniform(0.01, 1, shape) * (rng.random(shape) < share)).astype(np.float32)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 0.9), st.floats(0, 1))
def test_aggregates_equal_dense(seed, share, threshold):
    dense = random_dense(seed, share=share)
    codes = from_dense(dense)
    np.testing.assert_array_equal(codes.csr().toarray(), dense.reshape(12, 7))
    np.testing.assert_array_equal(codes.image_max().toarray(), dense.max(1))
    np.testing.assert_array_equal(codes.image_count(threshold).toarray(), (dense > np.float32(threshold)).sum(1))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 0.9), st.integers(1, 12))
def test_sums_by_blocks_of_images_are_those_of_all_of_them(seed, share, block):
    dense = random_dense(seed, (9, 3, 7), share)
    dense[seed % 9] = 0
    whole = from_dense(dense)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK_FIRINGS", block)
        parts = from_dense(dense)
        made = (parts.image_max(), parts.image_count(0.5))
    for one, other in zip(made, (whole.image_max(), whole.image_count(0.5)), strict=True):
        assert one.dtype == other.dtype
        for name in ("data", "indices", "indptr"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_faults_are_found_in_every_block(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_FIRINGS", 4)
    good = from_dense(random_dense(5, (6, 3, 7), 0.6))
    last = np.flatnonzero(np.diff(good.indptr) > 1)[-1]
    at = good.indptr[last]
    for name, value, message in (
        ("indices", 99, "a latent lies outside"),
        ("values", np.nan, "not finite and positive"),
        ("values", -1.0, "not finite and positive"),
    ):
        arrays = {name: getattr(good, name).copy() for name in ("indptr", "indices", "values")}
        arrays[name][at] = value
        with pytest.raises(ConceptBenchError, match=message):
            Codes(**arrays, shape=good.shape, dictionary="digest")
    swapped = good.indices.copy()
    swapped[at], swapped[at + 1] = swapped[at + 1], swapped[at]
    with pytest.raises(ConceptBenchError, match="do not ascend"):
        Codes(good.indptr, swapped, good.values, good.shape, "digest")


def test_sums_of_a_large_code_take_little_memory_beside_it(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_FIRINGS", 1 << 14)
    codes = from_dense(np.tile(random_dense(0, (1, 128, 64), 0.5), (64, 1, 1)))
    tracemalloc.start()
    codes.image_max()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.8 * (codes.values.nbytes + codes.indices.nbytes)


def test_selections_and_concatenation():
    dense = random_dense(1)
    codes = from_dense(dense)
    np.testing.assert_array_equal(codes.select_images([2, 0]).csr().toarray(), dense[[2, 0]].reshape(-1, 7))
    joined = Codes.concatenate([codes.select_images([0]), codes.select_images([1, 2, 3])])
    assert joined.shape == codes.shape
    np.testing.assert_array_equal(joined.csr().toarray(), codes.csr().toarray())


def test_codes_of_two_dictionaries_do_not_join():
    with pytest.raises(ConceptBenchError, match="cannot be joined"):
        Codes.concatenate([from_dense(random_dense(0), "a"), from_dense(random_dense(0), "b")])


def test_file_round_trip_is_exact(tmp_path):
    codes = from_dense(random_dense(3))
    codes.save(tmp_path / "codes.safetensors")
    loaded = Codes.load(tmp_path / "codes.safetensors", "digest")
    assert (loaded.shape, loaded.dictionary) == (codes.shape, codes.dictionary)
    for name in ("indptr", "indices", "values"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(codes, name))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 0.9), st.lists(st.integers(1, 3), min_size=1, max_size=4))
def test_file_written_in_batches_is_the_file_of_all_of_them(seed, share, batches):
    parts = [from_dense(random_dense(seed + at, (n, 3, 7), share)) for at, n in enumerate(batches)]
    with TemporaryDirectory() as folder:
        whole, written = Path(folder, "whole.safetensors"), Path(folder, "deeper", "codes.safetensors")
        Codes.concatenate(parts).save(whole)
        with CodesWriter(written) as codes:
            for part in parts:
                codes.append(part)
        assert written.read_bytes() == whole.read_bytes()
        assert sorted(path.name for path in written.parent.iterdir()) == ["codes.safetensors"]


def test_failed_or_foreign_batches_leave_the_older_file(tmp_path):
    path, first = tmp_path / "codes.safetensors", from_dense(random_dense(0))
    first.save(path)
    older = path.read_bytes()
    (tmp_path / ".codes.parts").mkdir()  # of a job that was killed
    (tmp_path / ".codes.parts" / "rest").touch()
    with pytest.raises(ZeroDivisionError), CodesWriter(path) as codes:
        codes.append(first)
        raise ZeroDivisionError
    with pytest.raises(ConceptBenchError, match="cannot be joined"), CodesWriter(path) as codes:
        codes.append(first)
        codes.append(from_dense(random_dense(0), "another"))
    with pytest.raises(ConceptBenchError, match="No codes to write"), CodesWriter(path):
        pass
    assert path.read_bytes() == older and [entry.name for entry in tmp_path.iterdir()] == [path.name]


def test_memory_of_a_writer_is_that_of_one_batch(tmp_path):
    def peak(batches):
        tracemalloc.start()
        with CodesWriter(tmp_path / "codes.safetensors") as codes:
            for at in range(batches):
                codes.append(from_dense(random_dense(at, (64, 16, 64), 0.5)))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(1)
    few, many = peak(2), peak(24)
    assert many < 1.5 * few + 3e5
    assert (tmp_path / "codes.safetensors").stat().st_size > 24 * 64 * 16 * 64 * 0.4 * 8


def test_other_dictionary_truncation_and_absence_are_named(tmp_path):
    path = tmp_path / "codes.safetensors"
    with pytest.raises(ConceptBenchError, match="do not exist"):
        Codes.load(path)
    from_dense(random_dense(3)).save(path)
    with pytest.raises(ConceptBenchError, match="another dictionary"):
        Codes.load(path, "other")
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ConceptBenchError, match=r"codes\.safetensors"):
        Codes.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indices": np.array([0, 9], np.int32)}, "outside"),
        ({"indices": np.array([1, 0], np.int32)}, "ascend"),
        ({"values": np.array([1, -1], np.float32)}, "positive"),
        ({"values": np.array([1, np.nan], np.float32)}, "positive"),
        ({"indptr": np.array([0, 2], np.int32)}, "int64"),
        ({"shape": (2, 1, 3)}, "2 rows"),
    ],
)
def test_malformed_arrays_are_refused(change, message):
    good = {
        "indptr": np.array([0, 2]), "indices": np.array([0, 1], np.int32), "values": np.ones(2, np.float32),
        "shape": (1, 1, 3), "dictionary": "x",
    }  # fmt: skip
    Codes(**good)
    with pytest.raises(ConceptBenchError, match=message):
        Codes(**(good | change))


def test_negative_count_threshold_is_refused():
    with pytest.raises(ConceptBenchError, match="negative"):
        from_dense(random_dense(0)).image_count(-0.1)
