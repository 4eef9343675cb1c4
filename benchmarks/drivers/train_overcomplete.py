"""overcomplete: `train_sae` on its `TopKSAE` with Adam and the squared error, as in its first example."""

import torch
from child import Tokens, finish, read_request
from overcomplete.sae import TopKSAE, train_sae


def squared_error(x, x_hat, pre_codes, codes, dictionary):
    return (x - x_hat).square().mean()


def main() -> None:
    request = read_request()
    torch.set_num_threads(request["threads"])
    torch.manual_seed(request["seed"])
    tokens = Tokens(request)
    sae = TopKSAE(request["d"], nb_concepts=request["width"], top_k=request["k"], device="cpu")
    optimizer = torch.optim.Adam(sae.parameters(), lr=request["lr"])
    batches = (torch.from_numpy(batch) for batch in tokens)
    train_sae(sae, batches, squared_error, optimizer, nb_epochs=1, monitoring=0, device="cpu")
    sae.eval()

    @torch.no_grad()
    def reconstruct(x):
        return sae(torch.from_numpy(x))[2].numpy()

    measured = {"step_seconds": tokens.step_seconds}
    finish(request, packages=("overcomplete", "torch"), measured=measured, reconstruct=reconstruct)


if __name__ == "__main__":
    main()
