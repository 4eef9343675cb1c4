"""Read a store: in order, by image, or as shuffled tokens; every shard is checked when it is first touched."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import zarr
from jaxtyping import Float32, Int64

from conceptbench.activations.layout import (
    MANIFEST,
    STORE,
    StoreSpec,
    array_name,
    shard_path,
)
from conceptbench.activations.shards import Values, find_damage, map_shard, to_float32
from conceptbench.activations.shuffle import by_shard, shuffled
from conceptbench.errors import ConceptBenchError
from conceptbench.seeds import rng
from conceptbench.tables import read_json

TokenChoice = Literal["all", "patch", "prefix"]
Rows = Sequence[int] | np.ndarray[Any, np.dtype[np.int64]]

_REMEDY: Final = "delete the folder and record it again"


class ActivationStore:
    """A recorded store, open for reading. Images are named by their rows in the dataset's manifest.

    `open` reads metadata only. The first touch of a shard compares its size and checksum with the manifest and looks
    for values that were never written; later touches read mapped memory.
    """

    def __init__(self, folder: Path, spec: StoreSpec, manifest: Mapping[str, Any]) -> None:
        """Use `open`, which checks what it finds."""
        self.folder = folder
        self.spec = spec
        self.manifest = manifest
        self.rows: Int64[np.ndarray, " image"] = spec.row_ids()
        self._maps: dict[tuple[int, int], Values] = {}
        self._order = np.argsort(self.rows, kind="stable")

    @classmethod
    def open(cls, folder: Path | str, expect: Mapping[str, Any] | None = None) -> "ActivationStore":
        """Open the store in `folder`, which holds `store.zarr` and `manifest.json`.

        Args:
            folder: the result folder of `record`.
            expect: fields of the specification that must have these values, such as `backbone_digest`,
                `dataset_digest` or `context_digest`; the key `block` asks for one block.

        Raises:
            ConceptBenchError: when manifest and store disagree, or an expectation is not met; both sides are named.
        """
        folder = Path(folder)
        manifest = _read_manifest(folder)
        spec = StoreSpec.from_json(manifest["spec"], folder / MANIFEST)
        problems = _compare_metadata(folder, spec, manifest)
        if problems:
            raise ConceptBenchError(f"{problems[0]}; {_REMEDY}.")
        _check_expectations(folder, spec, expect or {})
        return cls(folder, spec, manifest)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle as the folder, so that a worker process maps the files itself."""
        return ActivationStore.open, (self.folder,)

    @property
    def blocks(self) -> tuple[int, ...]:
        """Recorded blocks."""
        return self.spec.blocks

    @property
    def shape(self) -> tuple[int, int, int]:
        """(images, tokens, features) of every block."""
        return self.spec.shape

    @property
    def spec_digest(self) -> str:
        """Digest of the specification; equal digests mean equal activations."""
        return self.spec.digest

    def read(
        self, block: int, rows: Rows, *, tokens: TokenChoice = "all"
    ) -> Float32[np.ndarray, "image token feature"]:
        """Return the activations of some dataset rows, in the order asked for; rows may repeat.

        Raises:
            ConceptBenchError: when the block or a row is not in the store, or a shard is damaged.
        """
        self._require_block(block)
        return to_float32(self._gather(block, self._positions(rows), self._tokens(tokens)))

    def iterate(
        self, block: int, rows: Rows | None = None, batch_images: int = 256, *, tokens: TokenChoice = "all"
    ) -> Iterator[tuple[Int64[np.ndarray, " image"], Float32[np.ndarray, "image token feature"]]]:
        """Yield (rows, activations) in stored order, or in the order of `rows`; the last batch may be smaller.

        Raises:
            ConceptBenchError: as `read`.
        """
        self._require_block(block)
        positions = np.arange(self.shape[0]) if rows is None else self._positions(rows)
        for start in range(0, len(positions), batch_images):
            batch = positions[start : start + batch_images]
            yield self.rows[batch], to_float32(self._gather(block, batch, self._tokens(tokens)))

    def shuffled_tokens(
        self,
        block: int,
        batch_tokens: int,
        seed: int,
        epoch: int,
        buffer_tokens: int,
        rows: Rows | None = None,
        *,
        tokens: TokenChoice = "all",
    ) -> Iterator[Float32[np.ndarray, "token feature"]]:
        """Yield every token of the chosen rows exactly once in a random order fixed by (seed, epoch).

        Args:
            block: the block.
            batch_tokens: tokens in a batch; the last batch may be smaller.
            seed: base of the random stream.
            epoch: pass number; every pass has its own order.
            buffer_tokens: tokens kept in memory; when all fit, the order is a uniform permutation.
            rows: dataset rows, each at most once; all stored ones by default.
            tokens: all tokens of an image, its patch tokens or its prefix tokens.

        Raises:
            ConceptBenchError: as `read`, and when the buffer is smaller than a batch or a row is named twice.
        """
        self._require_block(block)
        positions = np.arange(self.shape[0]) if rows is None else self._positions(rows)
        shards = self.spec.n_shards, self.spec.shard_images
        groups = by_shard(positions, *shards, batch_tokens, buffer_tokens, str(self.folder))
        chosen = self._tokens(tokens)
        return shuffled(
            groups,
            partial(self._gather, block, tokens=chosen),
            tokens_per_image=len(range(*chosen.indices(self.shape[1]))),
            width=self.shape[2],
            dtype=self.spec.numpy_dtype,
            batch_tokens=batch_tokens,
            buffer_tokens=buffer_tokens,
            generator=rng(seed, "shuffled_tokens", epoch),
        )

    def _tokens(self, choice: TokenChoice) -> slice:
        prefix = self.spec.n_prefix
        slices = {"all": slice(None), "patch": slice(prefix, None), "prefix": slice(0, prefix)}
        if choice not in slices:
            raise ConceptBenchError(f"Tokens '{choice}' of {self.folder}: choose one of {', '.join(slices)}.")
        return slices[choice]

    def _require_block(self, block: int) -> None:
        if block not in self.blocks:
            recorded = ", ".join(map(str, self.blocks))
            raise ConceptBenchError(f"{self.folder} holds blocks {recorded}, not block {block}; add it to the hooks.")

    def _positions(self, rows: Rows) -> Int64[np.ndarray, " image"]:
        """Positions in the store of dataset rows."""
        wanted = np.asarray(rows, dtype=np.int64).reshape(-1)
        found = np.searchsorted(self.rows, wanted, sorter=self._order)
        positions = self._order[np.minimum(found, len(self.rows) - 1)]
        absent = self.rows[positions] != wanted
        if absent.any():
            row = int(wanted[np.argmax(absent)])
            raise ConceptBenchError(f"{self.folder} holds no activations of dataset row {row}; record it too.")
        return positions

    def _gather(self, block: int, positions: Int64[np.ndarray, " image"], tokens: slice) -> Values:
        """Stored values of some positions; a contiguous run inside one shard is a view of the mapped file."""
        shards = positions // self.spec.shard_images
        offsets = positions - shards * self.spec.shard_images
        if len(positions) and (shards == shards[0]).all():
            shard = self._shard(block, int(shards[0]))
            if (np.diff(positions) == 1).all():
                return shard[offsets[0] : offsets[-1] + 1, tokens]
            return shard[offsets, tokens]
        n_tokens = len(range(*tokens.indices(self.shape[1])))
        out = np.empty((len(positions), n_tokens, self.shape[2]), self.spec.numpy_dtype)
        for number in np.unique(shards):
            chosen = np.flatnonzero(shards == number)
            out[chosen] = self._shard(block, int(number))[offsets[chosen], tokens]
        return out

    def _shard(self, block: int, shard: int) -> Values:
        if (block, shard) not in self._maps:
            damage = find_damage(self.folder / STORE, self.spec, block, shard)
            if damage:
                raise ConceptBenchError(f"{damage[0].upper()}{damage[1:]}; {_REMEDY}.")
            self._maps[block, shard] = map_shard(self.folder / STORE, self.spec, block, shard)
        return self._maps[block, shard]


def verify(folder: Path | str) -> None:
    """Check a whole store: manifest against metadata, every file's size, sha256 and crc32c, every value finite.

    Raises:
        ConceptBenchError: one line for every problem.
    """
    problems = find_problems(folder)
    if problems:
        listed = "\n".join(f"- {problem}" for problem in problems)
        raise ConceptBenchError(f"{folder} has {len(problems)} problem(s); {_REMEDY}:\n{listed}")


def find_problems(folder: Path | str) -> list[str]:
    """Return everything that is wrong with the store in `folder`; empty when it is sound."""
    folder = Path(folder)
    try:
        manifest = _read_manifest(folder)
        spec = StoreSpec.from_json(manifest["spec"], folder / MANIFEST)
    except ConceptBenchError as error:
        return [str(error)]
    problems = _compare_metadata(folder, spec, manifest)
    for block in spec.blocks:
        entries = manifest["shards"].get(array_name(block), [])
        if [entry.get("shard") for entry in entries] != list(range(spec.n_shards)):
            problems.append(f"{folder / MANIFEST} does not list the {spec.n_shards} shards of block {block}")
            continue
        for entry in entries:
            damage = find_damage(folder / STORE, spec, block, entry["shard"], sha256=entry["sha256"])
            problems.extend([damage] if damage else [])
        problems.extend(_unexpected_files(folder / STORE, spec, block))
    return problems


def _unexpected_files(store: Path, spec: StoreSpec, block: int) -> list[str]:
    known = {shard_path(store, block, shard) for shard in range(spec.n_shards)}
    found = (path for path in (store / array_name(block) / "c").rglob("*") if path.is_file())
    return [f"{path} belongs to no shard" for path in sorted(set(found) - known)]


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise ConceptBenchError(f"{folder} is no finished activation store: it has no {MANIFEST}; record it first.")
    manifest = read_json(path)
    if not isinstance(manifest, dict) or not isinstance(manifest.get("spec"), dict):
        raise ConceptBenchError(f"{path} has no specification; {_REMEDY}.")
    if not isinstance(manifest.get("shards"), dict):
        raise ConceptBenchError(f"{path} lists no shards; {_REMEDY}.")
    return manifest


def _compare_metadata(folder: Path, spec: StoreSpec, manifest: Mapping[str, Any]) -> list[str]:
    """Compare the manifest with itself and with the Zarr metadata."""
    problems = []
    if manifest.get("spec_digest") != spec.digest:
        problems.append(
            f"{folder / MANIFEST} names spec digest {manifest.get('spec_digest')} "
            f"but its specification has {spec.digest}"
        )
    try:
        group = zarr.open_group(folder / STORE, mode="r", zarr_format=3)
        arrays = {block: group[array_name(block)] for block in spec.blocks}
    except (OSError, KeyError, ValueError, TypeError) as error:
        return [*problems, f"{folder / STORE} is not a readable Zarr group ({type(error).__name__}: {error})"]
    if group.attrs.get("spec_digest") != spec.digest:
        found = group.attrs.get("spec_digest")
        problems.append(f"{folder / STORE} holds spec digest {found} but {folder / MANIFEST} names {spec.digest}")
    for block, array in arrays.items():
        found_layout = (
            getattr(array, "shape", None),
            str(getattr(array, "dtype", None)),
            getattr(array, "chunks", None),
            getattr(array, "shards", None),
            [type(codec).__name__ for codec in getattr(array, "compressors", ())],
        )
        expected = (spec.shape, spec.dtype, (spec.shard_images, *spec.shape[1:]), None, ["Crc32cCodec"])
        if found_layout != expected:
            problems.append(f"block {block} of {folder / STORE} is laid out as {found_layout}, expected {expected}")
    return problems


def _check_expectations(folder: Path, spec: StoreSpec, expect: Mapping[str, Any]) -> None:
    found = {name: getattr(spec, name) for name in spec.__dataclass_fields__}
    for name, wanted in expect.items():
        if name == "block":
            if wanted not in spec.blocks:
                raise ConceptBenchError(f"{folder} holds blocks {list(spec.blocks)}, not block {wanted}; add the hook.")
        elif name not in found:
            raise ConceptBenchError(f"A store has no field '{name}'; expect one of block, {', '.join(found)}.")
        elif found[name] != wanted:
            raise ConceptBenchError(
                f"{folder} was recorded with {name} '{found[name]}' but '{wanted}' is needed; record it again."
            )
