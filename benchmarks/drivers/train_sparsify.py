"""sparsify: its `Trainer` on a stand-in model that replays the tokens at one hook point."""

import os

import torch
from child import Tokens, finish, read_request
from sparsify import SaeConfig, SparseCoder, TrainConfig, Trainer
from torch import nn


class Replay(nn.Module):
    """A hook point whose output is the next batch of tokens, as one sequence."""

    def __init__(self, tokens: Tokens, d: int) -> None:
        super().__init__()
        self._tokens, self._d = tokens, d

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        if input_ids.shape[1] == 1:
            return torch.zeros(1, 1, self._d)
        return torch.from_numpy(next(self._tokens)).unsqueeze(0)


class Model(nn.Module):
    """As much of a language model as the trainer asks for."""

    def __init__(self, tokens: Tokens, d: int) -> None:
        super().__init__()
        self.replay = Replay(tokens, d)
        self.device = torch.device("cpu")
        self.dummy_inputs = {"input_ids": torch.ones(1, 1, dtype=torch.long)}

    @property
    def base_model(self) -> nn.Module:
        return self

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.replay(input_ids)


class Sequences:
    """`steps` sequences of one batch of tokens each."""

    def __init__(self, steps: int, length: int) -> None:
        self._steps, self._length = steps, length

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        if index >= self._steps:
            raise IndexError(index)
        return {"input_ids": torch.arange(self._length)}


def main() -> None:
    request = read_request()
    torch.set_num_threads(request["threads"])
    tokens = Tokens(request)
    config = TrainConfig(
        SaeConfig(num_latents=request["width"], k=request["k"]),
        batch_size=1, lr=request["lr"], hookpoints=["replay"], init_seeds=[request["seed"]],
        log_to_wandb=False, save_every=10**9, save_dir=request["folder"], run_name="sparsify",
    )  # fmt: skip
    trainer = Trainer(config, Sequences(request["steps"], request["batch"]), Model(tokens, request["d"]))
    if request["setting"] == "bf16":
        SparseCoder.forward = torch.autocast("cpu", dtype=torch.bfloat16)(SparseCoder.forward)
    trainer.fit()
    sae = SparseCoder.load_from_disk(f"{request['folder']}/sparsify/replay")

    @torch.no_grad()
    def reconstruct(x):
        return sae(torch.from_numpy(x)).sae_out.float().numpy()

    measured = {"step_seconds": tokens.step_seconds}
    finish(request, packages=("eai-sparsify", "torch"), measured=measured, reconstruct=reconstruct)


if __name__ == "__main__":
    os.environ["SPARSIFY_DISABLE_TRITON"] = "1"
    main()
