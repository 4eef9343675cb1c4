"""dictionary_learning: `trainSAE` with its `TopKTrainer`."""

import torch
from child import Tokens, finish, read_request
from dictionary_learning.trainers.top_k import AutoEncoderTopK, TopKTrainer
from dictionary_learning.training import trainSAE


class Keeping(TopKTrainer):
    """The trainer, findable after `trainSAE`, which returns nothing."""

    last: "Keeping"

    def __init__(self, **options):
        super().__init__(**options)
        Keeping.last = self


def main() -> None:
    request = read_request()
    torch.set_num_threads(request["threads"])
    tokens = Tokens(request)
    config = {
        "trainer": Keeping, "dict_class": AutoEncoderTopK, "activation_dim": request["d"],
        "dict_size": request["width"], "k": request["k"], "steps": request["steps"], "lr": request["lr"],
        "warmup_steps": 0, "seed": request["seed"], "layer": 0, "lm_name": "replay",
        "device": "cpu",
    }  # fmt: skip
    trainSAE((torch.from_numpy(batch) for batch in tokens), [config], request["steps"], device="cpu")
    autoencoder = Keeping.last.ae

    @torch.no_grad()
    def reconstruct(x):
        return autoencoder(torch.from_numpy(x)).numpy()

    measured = {"step_seconds": tokens.step_seconds}
    finish(request, packages=("dictionary-learning", "torch"), measured=measured, reconstruct=reconstruct)


if __name__ == "__main__":
    main()
