"""A recording shared by several jobs: each writes shards of its own, one gather verifies them and puts them in place.

A part has a work folder of its own, so that jobs never write to the same file, and goes on at its first missing shard
after a kill like a whole recording. Shards hold whole batches, so their bytes do not depend on the number of parts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from conceptbench.activations.finishing import was_moved_before, write_store_manifest
from conceptbench.activations.layout import MANIFEST, STORE, Dtype, StoreSpec, shard_path
from conceptbench.activations.pipeline import Clock, run
from conceptbench.activations.record import SHARD_IMAGES
from conceptbench.activations.request import ImageSource, Precision, RowIds, TokenModel, make_spec
from conceptbench.activations.write import WorkFolder, publish, require_one_disk
from conceptbench.errors import ConceptBenchError
from conceptbench.provenance import describe_machine
from conceptbench.tables import read_json, write_json

PART: Final = "part.json"
"""What a part says of itself, written last; without it the part is not finished."""

_REMEDY: Final = "delete this file and run again: the part records what it lacks"


@dataclass(frozen=True)
class Part:
    """One of several parts of a recording."""

    number: int
    """From 1."""
    of: int
    """How many parts there are."""

    def __post_init__(self) -> None:
        """Refuse a number outside 1..of."""
        if not 1 <= self.number <= self.of:
            raise ConceptBenchError(f"There is no part {self.number} of {self.of}; number parts from 1.")

    @classmethod
    def parse(cls, name: str) -> "Part":
        """Read a name such as `3of8`.

        Raises:
            ConceptBenchError: when it is none.
        """
        number, of, count = name.partition("of")
        if not (of and number.isdecimal() and count.isdecimal()):
            raise ConceptBenchError(f"'{name}' names no part of a recording; write for example 3of8.")
        return cls(int(number), int(count))

    def __str__(self) -> str:
        """Its name, as `3of8`."""
        return f"{self.number}of{self.of}"

    def shards(self, n_shards: int) -> range:
        """Shards of this part: neighbours; the numbers of shards of two parts differ by one at most."""
        return range((self.number - 1) * n_shards // self.of, self.number * n_shards // self.of)


def record_part(
    part: Part,
    backbone: TokenModel,
    dataset: ImageSource,
    blocks: Sequence[int],
    folder: Path | str,
    *,
    rows: Sequence[int] | RowIds | None = None,
    batch_size: int = 256,
    dtype: Dtype = "float16",
    precision: Precision = "float32",
    progress: bool = True,
    shard_images: int = SHARD_IMAGES,
    workers: int = 1,
) -> dict[str, Any]:
    """Record the shards of one part into `folder`, which no other part may use, and describe them in `part.json`.

    The other arguments are those of `record` and must be the same for all parts.

    Returns:
        The content of `part.json`: specification, part, finished shards with sha256 and bytes, seconds, machine.

    Raises:
        ConceptBenchError: as `record`.
    """
    spec = make_spec(backbone, dataset, blocks, rows, batch_size, dtype, None, shard_images, precision)
    clock = Clock()
    with clock.measure("total"):
        work = WorkFolder(Path(folder), spec, part.shards(spec.n_shards))
        work.require_space()
        resumed = len(work.shards)
        run(backbone, dataset, work, batch_size, None, clock, progress, workers)
    described = {
        "spec": spec.to_json(),
        "spec_digest": spec.digest,
        "part": str(part),
        "shards": {str(shard): entry for shard, entry in work.shards.items()},
        "resumed_shards": resumed,
        "seconds": {name: round(value, 3) for name, value in clock.seconds.items()},
        "machine": describe_machine(),
    }
    write_json(described, work.folder / PART)
    return described


def gather(parts: Iterable[Path | str], out: Path | str, *, work: Path | str) -> dict[str, Any]:
    """Verify the shards of all parts, put them together in `out/store.zarr`, and write `out/manifest.json`.

    Every shard is read once: size, sha256, crc32c, finite values; files are moved, not copied. A kill at any moment
    leaves folders from which the next call goes on.

    Args:
        parts: the `part.json` of every part, in any order.
        out: the result folder.
        work: folder of the unfinished recording, on the file system of the parts and of the result.

    Returns:
        The manifest; `seconds` are summed over parts, and `parts` has the seconds and the machine of each.

    Raises:
        ConceptBenchError: when parts belong to different recordings, one of them is absent, or a shard is missing
            or damaged; shard, file and remedy are named.
    """
    out, work = Path(out), Path(work)
    described = _read_parts([Path(path) for path in parts])
    path, first = next(iter(described.items()))
    spec = StoreSpec.from_json(first["spec"], path)
    require_one_disk(work, out)
    if was_moved_before(work, out, spec):
        publish(work, out)
        return dict(read_json(out / MANIFEST))
    folder = WorkFolder(work, spec)
    for path, part in described.items():
        _require_shards(folder, path, part, out)
    for path, part in described.items():
        _adopt(folder, path, part, out)
    seconds = {name: sum(part["seconds"][name] for part in described.values()) for name in first["seconds"]}
    facts = {"parts": {part["part"]: {key: part[key] for key in ("seconds", "machine")} for part in described.values()}}
    resumed = sum(part["resumed_shards"] for part in described.values())
    manifest = write_store_manifest(folder, seconds, resumed, facts)
    publish(work, out)
    return manifest


def _read_parts(paths: Sequence[Path]) -> dict[Path, dict[str, Any]]:
    """Descriptions of the parts by file, in the order of the parts, after a check that they make one recording."""
    described = {}
    for path in paths:
        part = read_json(path)
        if not isinstance(part, Mapping) or not {"spec", "spec_digest", "part", "shards", "seconds"} <= set(part):
            raise ConceptBenchError(f"{path} does not describe a part of a recording; {_REMEDY}.")
        described[path] = dict(part)
    numbered = sorted((Part.parse(part["part"]).number, path) for path, part in described.items())
    if not numbered:
        raise ConceptBenchError("There are no parts to gather; name the part.json of every part.")
    ordered = {path: described[path] for _, path in numbered}
    path, first = next(iter(ordered.items()))
    of = Part.parse(first["part"]).of
    absent = sorted(set(range(1, of + 1)) - {number for number, _ in numbered})
    if absent or len(numbered) != of:
        raise ConceptBenchError(f"{path} is one of {of} parts and {len(numbered)} were given; gather each part once.")
    for other, part in ordered.items():
        if (part["spec_digest"], Part.parse(part["part"]).of) != (first["spec_digest"], of):
            raise ConceptBenchError(f"{other} and {path} are parts of different recordings; delete both and run again.")
    return ordered


def _lacking(folder: WorkFolder, part: Mapping[str, Any]) -> list[int]:
    """Shards of a part that are not in the work folder yet."""
    return [n for n in Part.parse(part["part"]).shards(folder.spec.n_shards) if n not in folder.shards]


def _require_shards(folder: WorkFolder, path: Path, part: Mapping[str, Any], out: Path) -> None:
    """Say which shard is not there before any file is moved, so that the part has to record this one only."""
    for shard in _lacking(folder, part):
        for block in folder.spec.blocks:
            places = [shard_path(store, block, shard) for store in (path.parent / STORE, folder.store, out / STORE)]
            if str(shard) not in part["shards"] or not any(place.is_file() for place in places):
                missing = f"shard {shard} of block {block} ({places[0]}) is missing"
                raise ConceptBenchError(f"Part {part['part']} ({path}) is not complete: {missing}; {_REMEDY}.")


def _adopt(folder: WorkFolder, path: Path, part: Mapping[str, Any], out: Path) -> None:
    """Move the shards of a part into the work folder."""
    for shard in _lacking(folder, part):
        damage = folder.adopt(shard, part["shards"][str(shard)], [path.parent / STORE, out / STORE])
        if damage:
            raise ConceptBenchError(f"Part {part['part']} ({path}) cannot be used: {damage}; {_REMEDY}.")
