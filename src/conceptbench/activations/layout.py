"""What a store contains and where: the specification, the bounds of its shards, the names and sizes of its files.

A shard is one Zarr chunk in one file: a whole number of images, no compressor, a trailing crc32c. Such a file is raw
memory, so that readers map it instead of decoding it; docs/formats.md gives the measurements behind the choice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np

from conceptbench.errors import ConceptBenchError
from conceptbench.tables import digest

FORMAT: Final = "conceptbench-activations/1"
STORE: Final = "store.zarr"
MANIFEST: Final = "manifest.json"
CRC_BYTES: Final = 4
DTYPES: Final = {"float16": "<f2", "float32": "<f4"}

Dtype = Literal["float16", "float32"]


@dataclass(frozen=True)
class StoreSpec:
    """Everything that decides the content of a store. Two stores with equal digests hold the same activations."""

    backbone: str
    backbone_digest: str
    dataset: str
    dataset_digest: str
    context: str
    """Name of the adaptation installed while recording; empty for the backbone as it is."""
    context_digest: str
    blocks: tuple[int, ...]
    rows: tuple[tuple[int, int], ...]
    """Dataset rows in stored order, as runs [start, stop)."""
    n_prefix: int
    grid: tuple[int, int]
    width: int
    dtype: Dtype
    shard_images: int
    """Images in one shard; the last shard is padded with NaN to this size."""
    image_size: int
    preprocessing: tuple[tuple[str, str], ...]
    """The backbone's resizing and normalisation."""
    execution: tuple[tuple[str, str], ...]
    """Batch size, device and torch version: they change last bits, so a recording resumes only under the same ones."""

    @property
    def n_images(self) -> int:
        """Number of stored images."""
        return sum(stop - start for start, stop in self.rows)

    @property
    def n_tokens(self) -> int:
        """Tokens of one image: prefix tokens, then patch tokens row by row."""
        return self.n_prefix + self.grid[0] * self.grid[1]

    @property
    def shape(self) -> tuple[int, int, int]:
        """(images, tokens, features) of every block's array."""
        return self.n_images, self.n_tokens, self.width

    @property
    def n_shards(self) -> int:
        """Number of shards of every block."""
        return -(-self.n_images // self.shard_images)

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """Little-endian NumPy dtype of the stored values."""
        return np.dtype(DTYPES[self.dtype])

    @property
    def image_bytes(self) -> int:
        """Bytes of one stored image at one block."""
        return self.n_tokens * self.width * self.numpy_dtype.itemsize

    @property
    def shard_bytes(self) -> int:
        """Size of every shard file, its checksum included."""
        return self.shard_images * self.image_bytes + CRC_BYTES

    @property
    def digest(self) -> str:
        """SHA-256 of the specification."""
        return digest(self.to_json())

    def bounds(self, shard: int) -> tuple[int, int]:
        """Positions [start, stop) of the images of one shard."""
        start = shard * self.shard_images
        return start, min(start + self.shard_images, self.n_images)

    def row_ids(self) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Dataset row of every stored image, in stored order."""
        return np.concatenate([np.arange(start, stop, dtype=np.int64) for start, stop in self.rows])

    def to_json(self) -> dict[str, Any]:
        """The specification as plain JSON, with the format's name."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {
            "format": FORMAT,
            **plain,
            "blocks": list(self.blocks),
            "rows": [list(run) for run in self.rows],
            "grid": list(self.grid),
            "preprocessing": dict(self.preprocessing),
            "execution": dict(self.execution),
        }

    @classmethod
    def from_json(cls, plain: Mapping[str, Any], where: Path) -> "StoreSpec":
        """Read a specification.

        Raises:
            ConceptBenchError: when the format is another one or a field is missing or unknown.
        """
        fields = dict(plain)
        found = fields.pop("format", None)
        if found != FORMAT:
            raise ConceptBenchError(f"{where} has format '{found}', this version reads '{FORMAT}'; record it again.")
        try:
            fields["blocks"] = tuple(fields["blocks"])
            fields["rows"] = tuple((int(start), int(stop)) for start, stop in fields["rows"])
            fields["grid"] = (int(fields["grid"][0]), int(fields["grid"][1]))
            fields["preprocessing"] = tuple(sorted(fields["preprocessing"].items()))
            fields["execution"] = tuple(sorted(fields["execution"].items()))
            return cls(**fields)
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            raise ConceptBenchError(f"{where} has a malformed specification ({error}); record it again.") from error


def array_name(block: int) -> str:
    """Name of a block's array in the group."""
    return f"block{block}"


def shard_path(store: Path, block: int, shard: int) -> Path:
    """File of one shard: Zarr's default chunk key with the token and feature axes undivided."""
    return store / array_name(block) / "c" / str(shard) / "0" / "0"


def to_runs(rows: Sequence[int] | np.ndarray[Any, np.dtype[np.int64]]) -> tuple[tuple[int, int], ...]:
    """Write a sequence of row numbers as runs [start, stop), in order."""
    ids = np.asarray(rows, dtype=np.int64)
    breaks = np.flatnonzero(np.diff(ids) != 1) + 1
    return tuple((int(run[0]), int(run[-1]) + 1) for run in np.split(ids, breaks))


def balanced_shard(n_images: int, most: int) -> int:
    """Images per shard so that no shard exceeds `most` and padding stays below one image per shard."""
    return -(-n_images // -(-n_images // most))
