"""Images through the model into shards: loading and writing in the background, the model in the caller's thread."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from conceptbench.activations.layout import StoreSpec
from conceptbench.activations.request import ImageSource, RecordingContext, RowIds, TokenModel
from conceptbench.activations.shards import Values, first_non_finite
from conceptbench.activations.write import WorkFolder
from conceptbench.errors import ConceptBenchError

_READ_AHEAD: Final = 1
"""Prepared batches that may wait for the model, beyond the one being prepared."""
_WRITE_BEHIND: Final = 2
"""Batches of tokens, in the model's own dtype, that may wait for the writer."""


@dataclass
class Clock:
    """Seconds by activity of the caller's thread."""

    seconds: dict[str, float] = field(
        default_factory=lambda: {"forward": 0.0, "waiting_for_images": 0.0, "waiting_for_writer": 0.0, "total": 0.0}
    )

    @contextmanager
    def measure(self, activity: str) -> Iterator[None]:
        """Add the time spent inside to an activity."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[activity] += time.perf_counter() - start


@dataclass(frozen=True)
class Batch:
    """Positions [start, stop) of one shard."""

    shard: int
    start: int
    stop: int
    last: bool


def _plan(spec: StoreSpec, shards: Sequence[int], batch_size: int) -> list[Batch]:
    """Batches of the missing shards, none of which crosses a shard."""
    plan = []
    for shard in shards:
        first, end = spec.bounds(shard)
        for start in range(first, end, batch_size):
            stop = min(start + batch_size, end)
            plan.append(Batch(shard, start, stop, stop == end))
    return plan


def run(
    backbone: TokenModel,
    dataset: ImageSource,
    folder: WorkFolder,
    batch_size: int,
    context: RecordingContext | None,
    clock: Clock,
    progress: bool,
    workers: int,
) -> None:
    """Pass the images of the missing shards through the model and write them.

    Raises:
        ConceptBenchError: when an activation is not finite or the disk refuses.
    """
    spec, ids = folder.spec, folder.spec.row_ids()
    plan = _plan(spec, folder.missing(), batch_size)
    todo = sum(batch.stop - batch.start for batch in plan)
    writes: deque[Future[None]] = deque()
    installed = context.install() if context else nullcontext()
    bar = tqdm(total=folder.images, initial=folder.images - todo, unit=" images", disable=not progress, desc="record")
    with bar, Loader(backbone, dataset, workers) as loader, ThreadPoolExecutor(1) as writer, installed, torch.no_grad():
        try:
            for batch, coming in zip(plan, loader.batches(ids[one.start : one.stop] for one in plan), strict=True):
                with clock.measure("waiting_for_images"):
                    pixels = coming.result()
                with clock.measure("forward"):
                    tokens = one_pass(backbone, pixels, spec, spec.blocks)
                with clock.measure("waiting_for_writer"):
                    while len(writes) >= _WRITE_BEHIND or (writes and writes[0].done()):
                        writes.popleft().result()
                writes.append(writer.submit(_write, folder, batch, tokens, ids))
                bar.update(batch.stop - batch.start)
            with clock.measure("waiting_for_writer"):
                for write in writes:
                    write.result()
        finally:
            loader.cancel()
            writer.shutdown(cancel_futures=True)
            folder.discard_open()


class Loader:
    """Pixels of batch after batch, prepared in the background while the caller uses those before."""

    def __init__(self, backbone: TokenModel, dataset: ImageSource, workers: int) -> None:
        """Prepare to load; `workers` threads decode and resize photographs, image by image."""
        self._backbone, self._dataset = backbone, dataset
        self._ahead, self._decoders = ThreadPoolExecutor(1), ThreadPoolExecutor(workers)

    def __enter__(self) -> "Loader":
        """Begin."""
        return self

    def __exit__(self, *failure: object) -> None:
        """Wait for what is being prepared."""
        self.cancel()

    def cancel(self) -> None:
        """Prepare nothing more."""
        self._ahead.shutdown(cancel_futures=True)
        self._decoders.shutdown(cancel_futures=True)

    def batches(self, rows: Iterable[RowIds]) -> Iterator[Future[Tensor]]:
        """Yield the pixels to come of each batch of dataset rows, in order; few batches are in memory at a time."""
        waiting: deque[Future[Tensor]] = deque()
        for batch in rows:
            waiting.append(self._ahead.submit(self.load, batch))
            if len(waiting) > _READ_AHEAD:
                yield waiting.popleft()
        yield from waiting

    def load(self, rows: RowIds) -> Tensor:
        """Rendered images come as one array; files have sizes of their own and come one by one, side by side."""
        paths = self._dataset.manifest["path"].iloc[rows]
        if (paths == "").all():
            return self._backbone.preprocess(self._dataset.images(rows))
        return torch.cat(list(self._decoders.map(self._one, rows)))

    def _one(self, row: int) -> Tensor:
        return self._backbone.preprocess([self._dataset.pil(int(row))])


def one_pass(backbone: TokenModel, pixels: Tensor, spec: StoreSpec, blocks: Sequence[int]) -> dict[int, Tensor]:
    """Tokens behind some blocks, without those an adaptation appended; waits for a GPU to finish."""
    device = torch.device(backbone.device)
    precision = dict(spec.execution).get("precision")
    mixed = torch.autocast(device.type, getattr(torch, precision)) if precision else nullcontext()
    with mixed:
        found = backbone.tokens(pixels.to(device), blocks)
    for block in blocks:
        shape = tuple(found[block].shape)
        if shape[0] != len(pixels) or shape[1] < spec.n_tokens or shape[2] != spec.width:
            raise ConceptBenchError(
                f"Block {block} of backbone {spec.backbone} gave tokens of shape {shape}, expected "
                f"({len(pixels)}, {spec.n_tokens} or more, {spec.width}); check its prefix, grid and width."
            )
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return {block: found[block][:, : spec.n_tokens] for block in blocks}


def _write(
    folder: WorkFolder,
    batch: Batch,
    tokens: Mapping[int, Tensor],
    ids: RowIds,
) -> None:
    rows = ids[batch.start : batch.stop]
    folder.append(
        batch.shard, {block: stored_values(folder.spec, block, values, rows) for block, values in tokens.items()}
    )
    if batch.last:
        folder.finish(batch.shard)


def stored_values(spec: StoreSpec, block: int, values: Tensor, rows: RowIds) -> Values:
    """Tokens in the stored dtype.

    Raises:
        ConceptBenchError: when a value is not finite, or becomes so; dataset row and block are named.
    """
    stored = values.to("cpu", getattr(torch, spec.dtype)).contiguous().numpy()
    bad = first_non_finite(stored)
    if bad is None:
        return stored
    where = f"image {rows[bad]} of dataset {spec.dataset} at block {block} of backbone {spec.backbone}"
    largest = float(values[bad].abs().max())
    if np.isfinite(largest):
        raise ConceptBenchError(
            f"An activation of {where} has magnitude {largest:.6g}, beyond {spec.dtype}; record with dtype float32."
        )
    raise ConceptBenchError(f"An activation of {where} is NaN or infinite; check the image and the backbone's weights.")
