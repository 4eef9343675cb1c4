"""ConceptBench: its own `learn`.

Except as shipped no latent counts as dead within the training, as in the peers. The setting `fp32` hides from it that
the processor multiplies bfloat16 as well.
"""

import torch
from child import Tokens, finish, read_request

from conceptbench.dictionaries import TopK, learn


def main() -> None:
    request = read_request()
    torch.set_num_threads(request["threads"])
    if request["setting"] == "fp32":
        torch.cpu.get_capabilities = lambda: {}
    tokens = Tokens(request)
    total = request["steps"] * request["batch"]
    window = {} if request["setting"] == "as shipped" else {"dead_tokens": total + 1}
    spec = TopK(
        name="benchmark", width=request["width"], k=request["k"], lr=request["lr"], batch_size=request["batch"],
        warmup_steps=0, decay_share=0, **window,
    )  # fmt: skip
    few = torch.randn(8, request["d"], generator=torch.Generator().manual_seed(0)).numpy()
    dictionary = learn(
        spec, lambda epoch: tokens, d=request["d"], seed=request["seed"], held_out=few, tokens_per_epoch=total,
        progress=False,
    )  # fmt: skip

    def reconstruct(x):
        return dictionary.decode(dictionary.encode(x))

    measured = {"step_seconds": tokens.step_seconds}
    finish(request, packages=("conceptbench", "torch"), measured=measured, reconstruct=reconstruct)


if __name__ == "__main__":
    main()
