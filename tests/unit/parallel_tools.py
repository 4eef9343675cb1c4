"""What each process of a data-parallel training does in the tests: `python parallel_tools.py <folder>`."""

import sys
from pathlib import Path

import numpy as np

from conceptbench.dictionaries import learn, specify
from conceptbench.dictionaries.dictionary import Dictionary
from conceptbench.dictionaries.distributed import group

WIDTH, D, TOKENS = 48, 12, 6000


def tokens() -> np.ndarray:
    """Sparse sums of known directions, the same in every process."""
    random = np.random.default_rng(0)
    directions = random.normal(size=(32, D))
    codes = random.random((TOKENS, 32)) * (random.random((TOKENS, 32)) < 0.1)
    return (codes @ directions + 0.01 * random.normal(size=(TOKENS, D))).astype(np.float32)


def train() -> Dictionary:
    """A small TopK dictionary, some of whose latents die and are revived."""
    options = {"width": WIDTH, "k": 3, "lr": 0.01, "batch_size": 250, "warmup_steps": 2, "dead_tokens": 300}
    spec = specify(name="topk", method="topk", start="random", **options)
    data = tokens()
    return learn(
        spec, lambda _: iter([data]), d=D, seed=0, held_out=data[:500], tokens_per_epoch=TOKENS, progress=False
    )


if __name__ == "__main__":
    with group("gloo"):
        import torch.distributed as dist

        train().save(Path(sys.argv[1]) / str(dist.get_rank()))
