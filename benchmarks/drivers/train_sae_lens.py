"""SAELens: its `SAETrainer` on its `TopKTrainingSAE`."""

import torch
from child import Tokens, finish, read_request
from sae_lens import LoggingConfig, TopKTrainingSAE, TopKTrainingSAEConfig
from sae_lens.config import SAETrainerConfig
from sae_lens.training.sae_trainer import SAETrainer


def main() -> None:
    request = read_request()
    torch.set_num_threads(request["threads"])
    torch.manual_seed(request["seed"])
    tokens = Tokens(request)
    sae = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=request["d"], d_sae=request["width"], k=request["k"]))
    config = SAETrainerConfig(
        total_training_samples=request["steps"] * request["batch"], train_batch_size_samples=request["batch"],
        lr=request["lr"], lr_end=request["lr"] / 10,
        autocast=request["setting"] == "bf16", logger=LoggingConfig(log_to_wandb=False), device="cpu",
    )  # fmt: skip
    SAETrainer(config, sae, (torch.from_numpy(batch) for batch in tokens)).fit()

    @torch.no_grad()
    def reconstruct(x):
        return sae(torch.from_numpy(x)).numpy()

    measured = {"step_seconds": tokens.step_seconds}
    finish(request, packages=("sae-lens", "torch"), measured=measured, reconstruct=reconstruct)


if __name__ == "__main__":
    main()
