"""The work folder of a recording: shards in any state, a journal of the finished ones, and the move into place.

A recording that was killed at any moment leaves a work folder from which it goes on; the final folder holds a
verified store or none.
"""

import errno
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import zarr
from zarr.codecs import Crc32cCodec

from conceptbench.activations.layout import MANIFEST, STORE, StoreSpec, array_name, shard_path
from conceptbench.activations.shards import ShardWriter, Values, find_damage, sync_folder
from conceptbench.errors import ConceptBenchError
from conceptbench.provenance import library_versions
from conceptbench.tables import read_json, write_json

_JOURNAL: Final = "journal.json"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})

logger = logging.getLogger(__name__)


class WorkFolder:
    """Shards under construction. One recording at a time may use a work folder."""

    def __init__(self, folder: Path, spec: StoreSpec, assigned: Sequence[int] | None = None) -> None:
        """Open the folder, keeping finished shards of an equal specification and discarding everything else.

        `assigned` are the shards that are to be recorded here; all of them by default.
        """
        self.folder = folder
        self.spec = spec
        self.assigned = range(spec.n_shards) if assigned is None else assigned
        self.store = folder / STORE
        self.shards: dict[int, dict[str, Any]] = {}
        """Finished shards: for each, sha256 and bytes of its files by block."""
        self._writers: dict[int, ShardWriter] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._resume()

    def _resume(self) -> None:
        journal = self._read_journal()
        if journal.get("spec_digest") != self.spec.digest:
            if journal:
                logger.warning("discarding %s: it holds a recording of another specification", self.folder)
            shutil.rmtree(self.store, ignore_errors=True)
            (self.folder / MANIFEST).unlink(missing_ok=True)
            create_group(self.store, self.spec)
            self._write_journal()
            return
        for name, entry in journal["shards"].items():
            if self._is_whole(int(name), entry["files"]):
                self.shards[int(name)] = entry
        if not (self.store / "zarr.json").is_file() and not (self.folder / MANIFEST).is_file():
            create_group(self.store, self.spec)

    def _read_journal(self) -> dict[str, Any]:
        try:
            journal = read_json(self.folder / _JOURNAL)
        except ConceptBenchError:
            return {}
        return journal if isinstance(journal, dict) and "shards" in journal else {}

    def _write_journal(self) -> None:
        shards = {str(shard): entry for shard, entry in self.shards.items()}
        write_json({"spec_digest": self.spec.digest, "shards": shards}, self.folder / _JOURNAL)
        sync_folder(self.folder)

    def _is_whole(self, shard: int, files: Mapping[str, Any]) -> bool:
        for block in self.spec.blocks:
            expected = files.get(array_name(block), {}).get("sha256", "")
            damage = find_damage(self.store, self.spec, block, shard, sha256=expected)
            if damage:
                logger.warning("recording again: %s", damage)
                return False
        return True

    def missing(self) -> list[int]:
        """Shards that are still to be recorded here, in order."""
        return [shard for shard in self.assigned if shard not in self.shards]

    @property
    def images(self) -> int:
        """Images of the shards that are to be recorded here."""
        bounds = [self.spec.bounds(shard) for shard in self.assigned]
        return sum(stop - start for start, stop in bounds)

    def require_space(self) -> None:
        """Refuse to start when the missing shards cannot fit.

        Raises:
            ConceptBenchError: with the space needed and the space free.
        """
        needed = len(self.missing()) * len(self.spec.blocks) * self.spec.shard_bytes
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise ConceptBenchError(
                f"The disk of {self.folder} has {free / 1e9:.2f} GB free and the recording needs {needed / 1e9:.2f} GB"
                "; free space or record fewer images or blocks."
            )

    def append(self, shard: int, values: Mapping[int, Values]) -> None:
        """Append the same images of every block to a shard.

        Raises:
            ConceptBenchError: when the disk is full or refuses.
        """
        try:
            for block, array in values.items():
                if block not in self._writers:
                    self._writers[block] = ShardWriter(self.store, self.spec, block, shard)
                self._writers[block].append(array)
        except OSError as error:
            raise self._refused(error) from error

    def finish(self, shard: int) -> None:
        """Complete a shard of every block and enter it in the journal.

        Raises:
            ConceptBenchError: when the disk is full or refuses.
        """
        try:
            files = {array_name(block): writer.finish() for block, writer in self._writers.items()}
        except OSError as error:
            raise self._refused(error) from error
        self._writers = {}
        self.shards[shard] = {"files": files}
        self._write_journal()

    def adopt(self, shard: int, entry: Mapping[str, Any], places: Sequence[Path]) -> str | None:
        """Move a shard that was recorded elsewhere here and enter it in the journal; return what hinders it, or None.

        Args:
            shard: the shard.
            entry: sha256 and bytes of its files by block, as a journal has them.
            places: stores in which its files may lie, on this file system; after a kill some lie here already.
        """
        for block in self.spec.blocks:
            expected, target = entry["files"].get(array_name(block), {}).get("sha256", ""), self.store
            found = [find_damage(place, self.spec, block, shard, sha256=expected) for place in (*places, target)]
            if all(found):
                return found[0]
            source = (*places, target)[found.index(None)]
            if source != target:
                path = shard_path(target, block, shard)
                path.parent.mkdir(parents=True, exist_ok=True)
                shard_path(source, block, shard).rename(path)
                sync_folder(path.parent)
        self.shards[shard] = dict(entry)
        self._write_journal()
        return None

    def discard_open(self) -> None:
        """Remove the files of an unfinished shard, so that they do not hold space."""
        for writer in self._writers.values():
            writer.discard()
        self._writers = {}

    def _refused(self, error: OSError) -> ConceptBenchError:
        done, total = len(self.shards), len(self.assigned)
        reason = "is full" if error.errno in _FULL else f"refused to write ({error.strerror or error})"
        needed = (total - done) * len(self.spec.blocks) * self.spec.shard_bytes / 1e9
        return ConceptBenchError(
            f"The disk of {self.folder} {reason} after {done} of {total} shards; free {needed:.2f} GB and run again: "
            "recording goes on at the first missing shard."
        )


def create_group(store: Path, spec: StoreSpec) -> None:
    """Write the metadata of the Zarr group and its arrays; no chunk is written."""
    attributes: dict[str, Any] = {"versions": library_versions(), "spec": spec.to_json(), "spec_digest": spec.digest}
    group = zarr.open_group(store, mode="w", zarr_format=3, attributes=attributes)
    for block in spec.blocks:
        group.create_array(
            array_name(block),
            shape=spec.shape,
            dtype=spec.dtype,
            chunks=(spec.shard_images, *spec.shape[1:]),
            compressors=[Crc32cCodec()],
            fill_value=float("nan"),
            config={"write_empty_chunks": True},
            attributes={"block": block, "hook_point": "output of the block"},
            dimension_names=("image", "token", "feature"),
        )


def require_one_disk(work: Path, out: Path) -> None:
    """Refuse folders between which a rename is impossible.

    Raises:
        ConceptBenchError: when they lie on different file systems.
    """
    work.mkdir(parents=True, exist_ok=True)
    out.mkdir(parents=True, exist_ok=True)
    if os.stat(work).st_dev != os.stat(out).st_dev:
        raise ConceptBenchError(
            f"The work folder {work} and the result folder {out} lie on different file systems; "
            "put the work folder on the one of the result."
        )


def publish(work: Path, out: Path) -> None:
    """Move a verified store and its manifest from the work folder into place.

    Every step may be the last one before a kill: `out` then has no manifest, and calling again ends the move.
    """
    (out / MANIFEST).unlink(missing_ok=True)
    if (work / STORE).is_dir():
        replaced = work / "replaced.zarr"
        shutil.rmtree(replaced, ignore_errors=True)
        if (out / STORE).exists():
            os.rename(out / STORE, replaced)
        os.rename(work / STORE, out / STORE)
        sync_folder(out)
    os.rename(work / MANIFEST, out / MANIFEST)
    sync_folder(out)
    shutil.rmtree(work)
