"""Record activations: images pass the backbone once, all blocks are kept, finished shards survive a kill.

Batches never cross a shard, so that a resumed recording repeats the same batches and writes the same bytes.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from conceptbench.activations.layout import MANIFEST, STORE, Dtype, StoreSpec, array_name
from conceptbench.activations.pipeline import Clock, run
from conceptbench.activations.request import ImageSource, RecordingContext, RowIds, TokenModel, make_spec
from conceptbench.activations.shards import find_damage
from conceptbench.activations.write import WorkFolder, publish, require_one_disk
from conceptbench.errors import ConceptBenchError
from conceptbench.provenance import write_manifest
from conceptbench.tables import read_json

SHARD_IMAGES: Final = 512
"""At most this many images in a shard: 50,000 images make 98 files for each block."""


def record(
    backbone: TokenModel,
    dataset: ImageSource,
    blocks: Sequence[int],
    out: Path | str,
    *,
    work: Path | str,
    rows: Sequence[int] | RowIds | None = None,
    batch_size: int = 256,
    dtype: Dtype = "float16",
    context: RecordingContext | None = None,
    progress: bool = True,
    shard_images: int = SHARD_IMAGES,
    workers: int = 1,
) -> dict[str, Any]:
    """Record the outputs of some blocks for a dataset into `out/store.zarr` and `out/manifest.json`.

    Args:
        backbone: the model.
        dataset: the images.
        blocks: 0-based blocks, all recorded in one pass.
        out: the result folder. It holds a verified store afterwards, or what it held before.
        work: folder of the unfinished recording, on the same file system. After a kill the next call with an equal
            specification goes on at the first missing shard; another specification discards what is there.
        rows: rows of the dataset's manifest, each once, in the order to store; all by default.
        batch_size: images in one forward pass.
        dtype: float16, or float32 for activations beyond 65,504.
        context: an adaptation to install while recording.
        progress: show a bar with images/s and the closing figures on standard error.
        shard_images: upper bound of the images in one shard.
        workers: threads that load and preprocess images.

    Returns:
        The manifest, with `seconds` by activity and `forward_share`.

    Raises:
        ConceptBenchError: for a block out of range, repeated or unknown rows, a value that is not finite or overflows
            the dtype (image and block are named), a full disk, or a written shard that does not verify.
    """
    out, work = Path(out), Path(work)
    spec = make_spec(backbone, dataset, blocks, rows, batch_size, dtype, context, shard_images)
    clock = Clock()
    with clock.measure("total"):
        require_one_disk(work, out)
        if _moved_before(work, out, spec):
            publish(work, out)
            return dict(read_json(out / MANIFEST))
        folder = WorkFolder(work, spec)
        folder.require_space()
        resumed = len(folder.shards)
        run(backbone, dataset, folder, batch_size, context, clock, progress, workers)
        _verify_shards(folder)
    manifest = _write_manifest(folder, clock, resumed)
    publish(work, out)
    if progress:
        print(_closing_line(spec, manifest), file=sys.stderr)
    return manifest


def _moved_before(work: Path, out: Path, spec: StoreSpec) -> bool:
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


def _verify_shards(folder: WorkFolder) -> None:
    """Read every shard back before it is published."""
    spec = folder.spec
    for shard in range(spec.n_shards):
        for block in spec.blocks:
            expected = folder.shards[shard]["files"][array_name(block)]["sha256"]
            damage = find_damage(folder.store, spec, block, shard, sha256=expected)
            if damage:
                raise ConceptBenchError(f"Just written, {damage}; check the disk of {folder.folder} and run again.")


def _write_manifest(folder: WorkFolder, clock: Clock, resumed: int) -> dict[str, Any]:
    spec, shards = folder.spec, folder.shards
    seconds = {name: round(value, 3) for name, value in clock.seconds.items()}
    listed = {
        array_name(block): [
            {"shard": shard, "images": list(spec.bounds(shard)), **shards[shard]["files"][array_name(block)]}
            for shard in range(spec.n_shards)
        ]
        for block in spec.blocks
    }
    return write_manifest(
        folder.folder / MANIFEST,
        outputs={},
        inputs={},
        spec=spec.to_json(),
        extra={
            "shape": list(spec.shape),
            "shards": listed,
            "resumed_shards": resumed,
            "seconds": seconds,
            "forward_share": round(seconds["forward"] / seconds["total"], 4) if seconds["forward"] else None,
        },
    )


def _closing_line(spec: StoreSpec, manifest: Mapping[str, Any]) -> str:
    seconds = manifest["seconds"]
    return (
        f"recorded {spec.n_images} images at {len(spec.blocks)} block(s) in {seconds['total']:.1f} s; model forward "
        f"{seconds['forward']:.1f} s ({seconds['forward'] / max(seconds['total'], 1e-9):.0%}), waiting for images "
        f"{seconds['waiting_for_images']:.1f} s, for the writer {seconds['waiting_for_writer']:.1f} s"
    )
