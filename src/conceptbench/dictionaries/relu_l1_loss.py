"""The losses of PatchSAE's ReLU autoencoder (arXiv 2412.05276 and its published code), in plain torch."""

import torch
from jaxtyping import Float
from torch import Tensor

GHOST_EPSILON = 1e-6


def squared_errors(
    error: Float[Tensor, "token feature"], reference: Float[Tensor, "token feature"], norm_divided: bool
) -> Float[Tensor, "token feature"]:
    """Return the elements of the reconstruction loss, which is their sum divided by the number of tokens.

    Norm-divided: error^2 / (d ||reference||), with the norm and not its square, as PatchSAE's code has it.
    """
    if not norm_divided:
        return error.square()
    norms = reference.norm(dim=1, keepdim=True).clamp_min(torch.finfo(reference.dtype).tiny)
    return torch.div(error.square(), norms * error.shape[1])


def ghost_loss(
    elements: Float[Tensor, "token feature"],
    residual: Float[Tensor, "token feature"],
    dead_pre: Float[Tensor, "token dead"],
    dead_atoms: Float[Tensor, "dead feature"],
    norm_divided: bool,
) -> Tensor:
    """Return the ghost gradient term: dead latents, by exp of their PRE-activations, predict half the residual.

    `elements` are those of the reconstruction loss. Each ghost error is rescaled by a constant to the size of the
    reconstruction error, so the value equals that loss and only the gradient matters. 0 when nothing is dead.
    """
    if not len(dead_atoms):
        return residual.new_zeros(())
    target = residual.detach()
    ghost = dead_pre.exp() @ dead_atoms
    size = target.norm(dim=1, keepdim=True) / (2 * ghost.norm(dim=1, keepdim=True) + GHOST_EPSILON)
    errors = squared_errors(size.detach() * ghost - target, target, norm_divided)
    # epsilon guards the elementwise form of the published code, whose elements are d times ours when norm-divided
    guard = GHOST_EPSILON / residual.shape[1] if norm_divided else GHOST_EPSILON
    return ((elements / (errors + guard)).detach() * errors).sum() / len(residual)
