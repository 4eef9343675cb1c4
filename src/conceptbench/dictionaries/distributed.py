"""A group of processes that learn together, and what they ask of each other.

Every process runs the same call of `learn_many` on the same stream of tokens inside a `group` (as `torchrun` starts
them, or `processes.run_group`; one process a GPU) and ends with the same dictionaries. TopK and ReLU-L1, which the
papers train at the largest widths, are divided (`divided`); every other method is computed by all processes alike.
The first process alone writes checkpoints, saves dictionaries and shows its progress.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final, TypeVar

import torch
import torch.distributed as dist

from conceptbench.errors import ConceptBenchError

T = TypeVar("T")
_LAUNCHED: Final = ("RANK", "WORLD_SIZE")
_ADDRESS: Final = ("MASTER_ADDR", "MASTER_PORT")
_PATIENCE: Final = timedelta(hours=4)
"""Processes that compute a method alike may be far apart; one that ends is noticed by who started it."""


def in_group() -> bool:
    """Whether this process trains together with others."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def is_first() -> bool:
    """Whether this process writes files and shows its progress: the first of a group does, and one by itself."""
    return not in_group() or dist.get_rank() == 0


def wait_for_all() -> None:
    """Return when every process of the group has come here."""
    if in_group():
        dist.barrier()


def of_first(value: T) -> T:
    """Return the value that the first process gave, in every process; other values are ignored."""
    if not in_group():
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0)
    return values[0]


@contextmanager
def group(device: str | None = None, meeting: Path | None = None) -> Iterator[torch.device]:
    """Join the processes that `torchrun` started; yields the device of this one.

    Args:
        device: `cuda` for a GPU each (NCCL), `cpu` (gloo); by default GPUs where there are some.
        meeting: a file that does not exist yet, by which the processes of one machine find each other; by default
            they do at the address that `torchrun` gives.

    Raises:
        ConceptBenchError: when the process was not started by `torchrun`, or there are fewer GPUs than processes.
    """
    absent = [name for name in (*_LAUNCHED, *(() if meeting else _ADDRESS)) if name not in os.environ]
    if absent:
        raise ConceptBenchError(f"{absent[0]} is not set; start the processes with torchrun --nproc-per-node <GPUs>.")
    place = _place(device, int(os.environ.get("LOCAL_RANK", os.environ["RANK"])))
    dist.init_process_group(
        "nccl" if place.type == "cuda" else "gloo",
        init_method=meeting.absolute().as_uri() if meeting else "env://",
        rank=int(os.environ["RANK"]),
        world_size=int(os.environ["WORLD_SIZE"]),
        timeout=_PATIENCE,
    )
    try:
        yield place
    finally:
        dist.destroy_process_group()


def _place(device: str | None, rank: int) -> torch.device:
    gpus = torch.cuda.device_count()
    if device == "cpu" or (device is None and not gpus):
        return torch.device("cpu")
    if rank >= gpus:
        raise ConceptBenchError(f"Process {rank} has no GPU, because this machine shows {gpus}; start fewer processes.")
    torch.cuda.set_device(rank)
    return torch.device("cuda", rank)
