"""The end of a recording, whoever recorded the shards: its manifest, and whether a kill came during the last move."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from conceptbench.activations.layout import MANIFEST, STORE, StoreSpec, array_name
from conceptbench.activations.shards import find_damage
from conceptbench.activations.write import WorkFolder
from conceptbench.provenance import write_manifest
from conceptbench.tables import read_json


def was_moved_before(work: Path, out: Path, spec: StoreSpec) -> bool:
    """Whether a kill came between the two renames of `publish`: the store in place, its manifest still at work."""
    if (work / STORE).exists() or not (work / MANIFEST).is_file() or (out / MANIFEST).exists():
        return False
    manifest = read_json(work / MANIFEST)
    if manifest.get("spec_digest") != spec.digest:
        return False
    return not any(
        find_damage(out / STORE, spec, block, entry["shard"], sha256=entry["sha256"])
        for block in spec.blocks
        for entry in manifest["shards"][array_name(block)]
    )


def write_store_manifest(
    folder: WorkFolder, seconds: Mapping[str, float], resumed: int, extra: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Write the manifest of a store whose shards are all in the work folder, and return it.

    Args:
        folder: the complete recording.
        seconds: by activity; `total` and `forward` are among them.
        resumed: shards taken over from a recording that was interrupted.
        extra: further facts of the recording.
    """
    spec, shards = folder.spec, folder.shards
    rounded = {name: round(value, 3) for name, value in seconds.items()}
    listed = {
        array_name(block): [
            {"shard": shard, "images": list(spec.bounds(shard)), **shards[shard]["files"][array_name(block)]}
            for shard in range(spec.n_shards)
        ]
        for block in spec.blocks
    }
    facts = {
        "shape": list(spec.shape),
        "shards": listed,
        "resumed_shards": resumed,
        "seconds": rounded,
        "forward_share": round(rounded["forward"] / rounded["total"], 4) if rounded["forward"] else None,
    }
    path = folder.folder / MANIFEST
    return write_manifest(path, outputs={}, inputs={}, spec=spec.to_json(), extra={**facts, **(extra or {})})
