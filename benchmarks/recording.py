"""Recording against the bare forward pass, and reading shuffled tokens against a raw memory-mapped array.

    python -m benchmarks.recording            clip-tiny and a ViT-B/16 (about three minutes on two cores)
    python -m benchmarks.recording --quick    clip-tiny only

Recording and bare forward take turns on the same images, which are in memory: what recording adds is preprocessing,
conversion, checksums, files and their flush to the disk. Shuffled reading gives every token once, as float32, in random
order; beside it stand the same array as one raw file, read in order and gathered in random order, both as float32.
"""

import argparse
import io
import shutil
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import torch
from PIL import Image

from benchmarks.common import OURS, Row, cores, scratch, write_results
from benchmarks.towers import random_base
from conceptbench.activations import ActivationStore, record, verify
from conceptbench.activations.shards import to_float32
from conceptbench.backbones import Backbone, load_backbone
from conceptbench.backbones.shipped import SHIPPED
from conceptbench.planning.towers import Transformer

GIB: Final = 2**30
BATCH_TOKENS: Final = 8192
BUFFER_TOKENS: Final = 2**20
PHOTOGRAPH: Final = (500, 375)
"""Width and height of a photograph of ImageNet, nearly."""


class InMemory:
    """Images of one size that take no time to get."""

    name = "noise"

    def __init__(self, n: int, side: int) -> None:
        self.digest = f"{n}x{side}"
        self.manifest = pd.DataFrame({"image": range(n), "path": [""] * n})
        self._images = np.random.default_rng(0).integers(0, 256, (n, side, side, 3), np.uint8)

    def images(self, rows: Sequence[int]) -> np.ndarray:
        return self._images[np.asarray(rows)]

    def pil(self, row: int) -> Image.Image:
        return Image.fromarray(self._images[row])


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def forward(backbone: Backbone, pixels: torch.Tensor, batch: int, blocks: list[int]) -> None:
    """The bare forward pass over all images."""
    with torch.no_grad():
        for start in range(0, len(pixels), batch):
            backbone.tokens(pixels[start : start + batch], blocks)


def recording_rows(backbone: Backbone, n: int, batch: int, blocks: list[int], rounds: int, work: Path) -> Iterator[Row]:
    """Images a second of the bare forward and of recording, in turns; the store of the last round stays."""
    dataset = InMemory(n, backbone.image_size)
    pixels = backbone.preprocess(dataset.images(range(n)))
    forward(backbone, pixels[:batch], batch, blocks)
    bare, recorded = [], []
    for _ in range(rounds):
        bare.append(timed(lambda: forward(backbone, pixels, batch, blocks)))
        shutil.rmtree(work / "out", ignore_errors=True)
        options = {"work": work / "work", "batch_size": batch, "progress": False}
        recorded.append(timed(lambda options=options: record(backbone, dataset, blocks, work / "out", **options)))
    ours, floor = n / statistics.median(recorded), n / statistics.median(bare)
    tower = Transformer(backbone.n_blocks, backbone.width, backbone.n_tokens)
    shapes = {"images": n, "batch": batch, "tokens": backbone.n_tokens, "d": backbone.width, "blocks": len(blocks)}
    more = {"model": backbone.name, "gflop": round(tower.gflop(max(blocks) + 1), 4), "threads": torch.get_num_threads()}
    yield Row(toolkit=OURS, method="forward", shapes=shapes, rate="images_per_s", value=floor, more=more)
    yield Row(
        toolkit=OURS,
        method="record",
        shapes=shapes,
        rate="images_per_s",
        value=ours,
        share_of_floor=ours / floor,
        more=more,
    )


def shuffled(store: ActivationStore, block: int, epoch: int) -> int:
    """Read every token once in random order; return how many."""
    return sum(map(len, store.shuffled_tokens(block, BATCH_TOKENS, 0, epoch, BUFFER_TOKENS)))


def raw(path: Path, shape: tuple[int, int], order: np.ndarray | None) -> int:
    """Read a raw array of tokens in batches, in order or gathered, as float32."""
    tokens = np.memmap(path, np.float16, "r", shape=shape)
    read = 0
    for start in range(0, len(tokens), BATCH_TOKENS):
        stop = start + BATCH_TOKENS
        read += len(to_float32(tokens[start:stop] if order is None else tokens[order[start:stop]]))
    return read


def reading_rows(out: Path, block: int, rounds: int, work: Path) -> Iterator[Row]:
    """Bandwidth in stored bytes: our shuffled tokens, and the same tokens in one raw file."""
    store = ActivationStore.open(out)
    images, tokens, width = store.shape
    shape, path = (images * tokens, width), work / "raw.bin"
    with path.open("wb") as file:
        for number in range(store.spec.n_shards):
            first, last = store.spec.bounds(number)
            file.write(store.read(block, store.rows[first:last]).astype(np.float16).tobytes())
    order = np.random.default_rng(0).permutation(shape[0])
    size = shape[0] * width * 2 / GIB
    ways: dict[str, Callable[[int], int]] = {
        "shuffled tokens": lambda epoch: shuffled(store, block, epoch),
        "raw file in order": lambda _: raw(path, shape, None),
        "raw file gathered": lambda _: raw(path, shape, order),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        way(0)  # the first touch of our shards verifies them
    for epoch in range(1, rounds + 1):
        for name, way in ways.items():
            seconds[name].append(timed(lambda way=way, epoch=epoch: way(epoch)))
    rates = {name: size / statistics.median(taken) for name, taken in seconds.items()}
    shapes = {"tokens": shape[0], "d": width, "batch": BATCH_TOKENS, "buffer": BUFFER_TOKENS}
    for name, rate in rates.items():
        share = rate / rates["raw file in order"] if name == "shuffled tokens" else None
        owner = OURS if name == "shuffled tokens" else "numpy"
        yield Row(
            toolkit=owner, method=name, shapes=shapes, rate="gib_per_s", value=rate, share_of_floor=share,
            ratio_to_fastest_peer=rate / rates["raw file gathered"] if share else None,
            more={"model": store.spec.backbone},
        )  # fmt: skip
    taken = statistics.median(timed(lambda: verify(out)) for _ in range(rounds))
    stored = size * len(store.blocks)
    yield Row(
        toolkit=OURS, method="verify", shapes=shapes, rate="gib_per_s", value=stored / taken,
        more={"model": store.spec.backbone},
    )  # fmt: skip


def decoding_row(backbone: Backbone, n: int, side: int) -> Row:
    """Photographs read, decoded and preprocessed by one thread, as a recording does it in the background."""
    noise = np.random.default_rng(0).integers(0, 256, (PHOTOGRAPH[1] // 8, PHOTOGRAPH[0] // 8, 3), np.uint8)
    content = io.BytesIO()
    Image.fromarray(noise).resize(PHOTOGRAPH, Image.Resampling.BICUBIC).save(content, "JPEG", quality=90)
    taken = timed(
        lambda: backbone.preprocess([Image.open(io.BytesIO(content.getvalue())).convert("RGB") for _ in range(n)])
    )
    shapes = {"images": n, "width": PHOTOGRAPH[0], "height": PHOTOGRAPH[1], "side": side}
    more = {"model": backbone.name}
    return Row(toolkit=OURS, method="decode", shapes=shapes, rate="images_per_s", value=n / taken, more=more)


def main() -> None:
    """Measure and write benchmarks/results/recording.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="clip-tiny only, few rounds")
    options = parser.parse_args()
    torch.set_num_threads(cores())
    rounds, work = (2 if options.quick else 5), scratch()
    tiny = load_backbone(SHIPPED / "clip-tiny", name="clip-tiny")
    images = 1024 if options.quick else 4096
    rows = [*recording_rows(tiny, images, 256, [2, 4], rounds, work), *reading_rows(work / "out", 4, rounds, work)]
    if not options.quick:
        shutil.rmtree(work / "out")
        large = random_base()
        rows += [*recording_rows(large, 64, 32, [10], 2, work), decoding_row(large, 128, 224)]
    shutil.rmtree(work)
    name = "recording_quick" if options.quick else "recording"
    for row in rows:
        print(f"{row.method:20} {row.more['model']:10} {row.value:10.2f} {row.rate}  {row.share_of_floor or ''}")
    print(write_results(name, rows, {"threads": cores(), "rounds": rounds}))


if __name__ == "__main__":
    main()
