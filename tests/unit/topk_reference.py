"""TopK with AuxK, dense and in float64 where the tensors are: everything of size tokens x width, from the formulas."""

import torch

from conceptbench.dictionaries.learner import Parameters

D, WIDTH, TOKENS, K, AUX = 12, 40, 64, 5, 6


def start(seed=0, dtype=torch.float32, d=D):
    """Return an autoencoder and a batch of tokens, the same numbers in every precision."""
    g = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*shape, generator=g, dtype=torch.float64)  # noqa: E731
    atoms = draw(WIDTH, d)
    atoms /= atoms.norm(dim=1, keepdim=True)
    tensors = atoms, 0.5 * draw(WIDTH, d), 0.1 * draw(WIDTH), draw(d)
    return Parameters(*(t.to(dtype) for t in tensors)), draw(TOKENS, d).to(dtype)


def dense_loss(atoms, encoder, bias, centre, x, dead, alpha, k=K):
    """Return the loss; `dead` are the latents that AuxK revives."""
    pre = (x - centre) @ encoder.T + bias
    kept = torch.zeros_like(pre).scatter(1, pre.topk(k).indices, 1.0)
    codes = torch.relu(pre) * kept
    error = x - (codes @ atoms + centre)
    loss = (error**2).sum() / ((x - x.mean(0)) ** 2).sum()
    if len(dead):
        only = torch.full_like(pre, -torch.inf)
        only[:, dead] = pre[:, dead]
        chosen = torch.zeros_like(pre).scatter(1, only.topk(min(AUX, len(dead))).indices, 1.0)
        guess = (torch.relu(pre) * chosen) @ atoms
        target = error.detach()
        loss = loss + alpha * ((guess - target) ** 2).sum() / ((target - target.mean(0)) ** 2).sum()
    return loss


def dense_gradients(parameters, x, dead, alpha):
    """Return the gradients of the four tensors, those of the atoms without their radial part."""
    tensors = [t.clone().requires_grad_() for t in parameters.all()]
    dense_loss(*tensors, x, dead, alpha).backward()
    atoms = tensors[0]
    radial = (atoms.grad * atoms.detach()).sum(1, keepdim=True) * atoms.detach()
    return [atoms.grad - radial, *(t.grad for t in tensors[1:])]


def dense_training(parameters, batches, dead, alpha, lr, ks=()):
    """Return the losses and the tensors after a step of Adam on each batch, on which ks, or K, latents are kept."""
    tensors = [t.clone().requires_grad_() for t in parameters.all()]
    optimiser = torch.optim.Adam(tensors, lr=lr)
    losses = []
    for step, x in enumerate(batches):
        optimiser.zero_grad()
        loss = dense_loss(*tensors, x, dead, alpha, ks[step] if ks else K)
        loss.backward()
        losses.append(float(loss.detach()))
        with torch.no_grad():
            atoms = tensors[0]
            atoms.grad -= (atoms.grad * atoms).sum(1, keepdim=True) * atoms
            optimiser.step()
            atoms /= atoms.norm(dim=1, keepdim=True)
    return losses, [t.detach() for t in tensors]
