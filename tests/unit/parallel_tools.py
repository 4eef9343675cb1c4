"""What each process of a data-parallel training does in the tests: `python parallel_tools.py <folder> [<failure>]`."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from conceptbench.dictionaries import CheckpointPolicy, learn, specify
from conceptbench.dictionaries import train as train_module
from conceptbench.dictionaries.checkpoint import Progress
from conceptbench.dictionaries.dictionary import Dictionary
from conceptbench.dictionaries.distributed import group
from conceptbench.dictionaries.processes import member
from conceptbench.dictionaries.specs import DictionarySpec
from conceptbench.errors import ConceptBenchError

WIDTH, D, TOKENS, CHUNK = 48, 12, 6000, 500
_SHARED = {"width": WIDTH, "lr": 0.01, "batch_size": 250, "warmup_steps": 2}
_L1 = {"l1": 0.05, "ghost_gradients": True, "dead_tokens": 100}
SPECS: dict[str, DictionarySpec] = {
    "topk": specify(name="topk", method="topk", start="random", k=3, dead_tokens=300, **_SHARED),
    "relu-l1": specify(name="relu-l1", method="relu-l1", **_SHARED, **_L1),
    "norm-divided": specify(name="norm-divided", method="relu-l1", norm_divided=True, **_SHARED, **_L1),
}
"""Small dictionaries, some of whose latents die and are revived."""


class KilledError(Exception):
    """Stands for a job that is killed."""


def tokens() -> np.ndarray:
    """Sparse sums of known directions, the same in every process."""
    random = np.random.default_rng(0)
    directions = random.normal(size=(32, D))
    codes = random.random((TOKENS, 32)) * (random.random((TOKENS, 32)) < 0.1)
    return (codes @ directions + 0.01 * random.normal(size=(TOKENS, D))).astype(np.float32)


def train(name: str, checkpoint: CheckpointPolicy | None = None, killed_at: int = TOKENS) -> Dictionary:
    """One of the dictionaries, unless the stream of tokens breaks before."""
    data = tokens()

    def chunks(epoch: int) -> Iterator[np.ndarray]:
        for start in range(0, TOKENS, CHUNK):
            if start >= killed_at:
                raise KilledError
            yield data[start : start + CHUNK]

    return learn(
        SPECS[name], chunks, d=D, seed=0, held_out=data[:CHUNK], tokens_per_epoch=TOKENS, progress=False,
        checkpoint=checkpoint,
    )  # fmt: skip


def train_again(folder: Path, rank: int) -> Dictionary:
    """The ReLU-L1 dictionary after a kill; `checkpoints.txt` says which process wrote or read one, and its tokens."""
    save, load = train_module.save_checkpoint, train_module.load_checkpoint

    def note(what: str, progress: Progress) -> None:
        with (folder / "checkpoints.txt").open("a") as file:
            file.write(f"{rank} {what} {progress.tokens}\n")

    def noted_save(path: Path, identity: Any, progress: Progress, *others: Any) -> None:
        note("wrote", progress)
        save(path, identity, progress, *others)

    def noted_load(*arguments: Any) -> Progress | None:
        if found := load(*arguments):
            note("read", found)
        return found

    train_module.save_checkpoint, train_module.load_checkpoint = noted_save, noted_load
    policy = CheckpointPolicy(folder / "checkpoints", every_tokens=4 * CHUNK)
    try:
        train("relu-l1", policy, killed_at=9 * CHUNK)
    except KilledError:
        return train("relu-l1", policy)
    raise AssertionError("it was not killed")


def all_of(folder: Path) -> None:
    """Learn everything that the tests compare."""
    with group("cpu"):
        import torch.distributed as dist

        rank, train_module.SAMPLE_TOKENS = dist.get_rank(), CHUNK  # a stream may then break after its sample
        for name in SPECS:
            train(name).save(folder / name / str(rank))
        train_again(folder, rank).save(folder / "again" / str(rank))


def one_fails(folder: Path, how: str) -> None:
    """The second process fails in some way, while the first waits for it."""
    with member(folder, "cpu"):
        import torch.distributed as dist

        (folder / f"{os.getpid()}.pid").touch()
        if dist.get_rank() == 1 and how == "sentence":
            raise ConceptBenchError("The second process is out of tokens.")
        if dist.get_rank() == 1 and how == "crash":
            raise ZeroDivisionError("divided by none")
        if dist.get_rank() == 1 and how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if how == "status":
            os._exit(3 * dist.get_rank())
        dist.barrier()
        time.sleep(600)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        one_fails(Path(sys.argv[1]), sys.argv[2])
    else:
        all_of(Path(sys.argv[1]))
