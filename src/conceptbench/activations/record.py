"""Record activations: images pass the backbone once, all blocks are kept, finished shards survive a kill.

Batches never cross a shard, so that a resumed recording repeats the same batches and writes the same bytes.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from conceptbench.activations.finishing import was_moved_before, write_store_manifest
from conceptbench.activations.layout import MANIFEST, Dtype, StoreSpec, array_name
from conceptbench.activations.pipeline import Clock, run
from conceptbench.activations.request import ImageSource, Precision, RecordingContext, RowIds, TokenModel, make_spec
from conceptbench.activations.shards import find_damage
from conceptbench.activations.write import WorkFolder, publish, require_one_disk
from conceptbench.errors import ConceptBenchError
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
    precision: Precision = "float32",
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
        precision: number format of the products of the forward pass on a GPU; a CPU always computes in float32.
        progress: show a bar with images/s and the closing figures on standard error.
        shard_images: upper bound of the images in one shard.
        workers: threads that decode and resize photographs; they change no byte.

    Returns:
        The manifest, with `seconds` by activity and `forward_share`.

    Raises:
        ConceptBenchError: for a block out of range, repeated or unknown rows, a value that is not finite or overflows
            the dtype (image and block are named), a full disk, or a written shard that does not verify.
    """
    out, work = Path(out), Path(work)
    spec = make_spec(backbone, dataset, blocks, rows, batch_size, dtype, context, shard_images, precision)
    clock = Clock()
    with clock.measure("total"):
        require_one_disk(work, out)
        if was_moved_before(work, out, spec):
            publish(work, out)
            return dict(read_json(out / MANIFEST))
        folder = WorkFolder(work, spec)
        folder.require_space()
        resumed = len(folder.shards)
        run(backbone, dataset, folder, batch_size, context, clock, progress, workers)
        _verify_shards(folder)
    manifest = write_store_manifest(folder, clock.seconds, resumed)
    publish(work, out)
    if progress:
        print(_closing_line(spec, manifest), file=sys.stderr)
    return manifest


def _verify_shards(folder: WorkFolder) -> None:
    """Read every shard back before it is published."""
    spec = folder.spec
    for shard in range(spec.n_shards):
        for block in spec.blocks:
            expected = folder.shards[shard]["files"][array_name(block)]["sha256"]
            damage = find_damage(folder.store, spec, block, shard, sha256=expected)
            if damage:
                raise ConceptBenchError(f"Just written, {damage}; check the disk of {folder.folder} and run again.")


def _closing_line(spec: StoreSpec, manifest: Mapping[str, Any]) -> str:
    seconds = manifest["seconds"]
    return (
        f"recorded {spec.n_images} images at {len(spec.blocks)} block(s) in {seconds['total']:.1f} s; model forward "
        f"{seconds['forward']:.1f} s ({seconds['forward'] / max(seconds['total'], 1e-9):.0%}), waiting for images "
        f"{seconds['waiting_for_images']:.1f} s, for the writer {seconds['waiting_for_writer']:.1f} s"
    )
