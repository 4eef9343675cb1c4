"""ConceptBench's `learn_many` on one pass, timed as a whole: reading, initial values, training."""

import time

import numpy as np
import torch
from child import Tokens, finish, read_request

from conceptbench.dictionaries import TopK, learn_many


def main() -> None:
    request = read_request()
    torch.set_num_threads(request["threads"])
    few = np.random.default_rng(0).standard_normal((8, request["d"])).astype(np.float32)
    total = request["steps"] * request["batch"]

    def learn(spec, batches, tokens):
        learn_many(
            [spec], lambda epoch: batches, d=request["d"], seeds=request["seeds"], held_out=few,
            tokens_per_epoch=tokens, progress=False,
        )  # fmt: skip

    compiling = TopK(name="compile", width=64, k=2, batch_size=64)
    learn(compiling, iter([np.random.default_rng(1).standard_normal((64, request["d"])).astype(np.float32)]), 64)
    spec = TopK(name="lockstep", width=request["width"], k=request["k"], batch_size=request["batch"])
    began = time.perf_counter()
    learn(spec, Tokens(request), total)
    finish(request, packages=("conceptbench", "torch"), measured={"seconds": time.perf_counter() - began})


if __name__ == "__main__":
    main()
