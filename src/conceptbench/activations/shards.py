"""One shard file: append to it, map it, and say what is wrong with it."""

import hashlib
import os
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import torch

from conceptbench.activations.layout import CRC_BYTES, StoreSpec, shard_path

Values = np.ndarray[Any, np.dtype[Any]]

_SCAN_BYTES = 1 << 20
"""Finite values are looked for in pieces that stay in the cache."""


class ShardWriter:
    """Append images to one shard; the file takes its name only when it is complete and on the disk."""

    def __init__(self, store: Path, spec: StoreSpec, block: int, shard: int) -> None:
        """Open the temporary file of a shard, replacing a leftover one."""
        self._path = shard_path(store, block, shard)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._temporary = self._path.with_name("0.partial")
        self._file = self._temporary.open("wb")
        self._crc = 0
        self._sha = hashlib.sha256()
        self._missing = spec.shard_images
        self._spec = spec

    def append(self, values: Values) -> None:
        """Write images [n, token, feature] of the stored dtype."""
        data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        self._crc = google_crc32c.extend(self._crc, data)
        self._sha.update(data.data)
        self._file.write(data.data)
        self._missing -= len(values)

    def finish(self) -> dict[str, Any]:
        """Pad, add the checksum, flush to the disk, give the file its name; return its sha256 and bytes."""
        if self._missing:
            self.append(np.full((self._missing, *self._spec.shape[1:]), np.nan, self._spec.numpy_dtype))
        trailer = int(self._crc).to_bytes(CRC_BYTES, "little")
        self._sha.update(trailer)
        self._file.write(trailer)
        self._file.flush()
        os.fsync(self._file.fileno())
        size = self._file.tell()
        self._file.close()
        self._temporary.rename(self._path)
        sync_folder(self._path.parent)
        return {"sha256": self._sha.hexdigest(), "bytes": size}

    def discard(self) -> None:
        """Close and remove the temporary file."""
        self._file.close()
        self._temporary.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames inside a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def map_shard(store: Path, spec: StoreSpec, block: int, shard: int) -> Values:
    """Map the images of one shard, padding excluded, without reading them."""
    start, stop = spec.bounds(shard)
    path = shard_path(store, block, shard)
    return np.memmap(path, spec.numpy_dtype, "r", shape=(stop - start, *spec.shape[1:]))


def to_float32(values: Values) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Copy to float32; torch converts float16 up to ten times faster than NumPy."""
    if values.dtype == np.float32:
        return np.array(values)
    return torch.from_numpy(np.array(values)).float().numpy()


def first_non_finite(values: Values) -> int | None:
    """Return the first image with a NaN or an infinity, or None.

    The exponent bits are compared instead of calling `isfinite`, which is ten times slower on float16.
    """
    words: Values = values.view(f"u{values.dtype.itemsize}").reshape(len(values), -1)
    exponent = words.dtype.type(0x7C00 if values.dtype.itemsize == 2 else 0x7F800000)
    step = max(1, _SCAN_BYTES // max(1, words[0].nbytes)) if len(words) else 1
    for start in range(0, len(words), step):
        piece = words[start : start + step] & exponent
        if piece.max(initial=0) >= exponent:
            return start + int(np.argmax((piece >= exponent).any(axis=1)))
    return None


def find_damage(store: Path, spec: StoreSpec, block: int, shard: int, *, sha256: str | None = None) -> str | None:
    """Return what is wrong with a shard, in words that name the file and its images, or None.

    Args:
        store: the Zarr group.
        spec: its specification.
        block: the block.
        shard: the shard.
        sha256: when given, the whole file must have this digest too.
    """
    path = shard_path(store, block, shard)
    start, stop = spec.bounds(shard)
    where = f"shard {shard} of block {block} (images {start}..{stop - 1}, {path})"
    if not path.is_file():
        return f"{where} is missing"
    size = path.stat().st_size
    if size != spec.shard_bytes:
        return f"{where} has {size} bytes instead of {spec.shard_bytes}"
    content = np.memmap(path, np.uint8, "r")
    stored = int.from_bytes(bytes(content[-CRC_BYTES:]), "little")
    if google_crc32c.value(content[:-CRC_BYTES]) != stored:
        return f"{where} is damaged: its crc32c does not match"
    if sha256 is not None and hashlib.sha256(content.data).hexdigest() != sha256:
        return f"{where} is not the file of the manifest: its sha256 does not match"
    return _describe_non_finite(map_shard(store, spec, block, shard), start, where)


def _describe_non_finite(values: Values, start: int, where: str) -> str | None:
    bad = first_non_finite(values)
    if bad is None:
        return None
    if np.isnan(values[bad]).all():
        return f"image {start + bad} in {where} was never written"
    return f"image {start + bad} in {where} contains NaN or infinity"
