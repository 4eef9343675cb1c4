"""Null: random atoms that stay as they are drawn, with a trained TopK encoder (Korznikov et al., arXiv 2602.14111)."""

import torch
from jaxtyping import Float
from torch import Tensor

from conceptbench.dictionaries.autoencoder import AutoencoderLearner, LargestOfToken
from conceptbench.dictionaries.autoencoder_sparse import SparseTopKLearner
from conceptbench.dictionaries.learner import Setting, starting_atoms
from conceptbench.dictionaries.specs import Frozen


class FixedAtoms:
    """Atoms that are not learnt."""

    def __init__(self, atoms: Float[Tensor, "latent feature"], device: torch.device) -> None:
        """Keep the atoms."""
        self._atoms = atoms.to(device)

    def parameters(self) -> list[tuple[Tensor, float]]:
        """Return nothing."""
        return []

    def atoms(self) -> Float[Tensor, "latent feature"]:
        """Return the atoms."""
        return self._atoms

    def project(self) -> None:
        """Do nothing: there is no gradient."""

    def constrain(self) -> None:
        """Do nothing: nothing has moved."""


def frozen_learner(spec: Frozen, setting: Setting) -> AutoencoderLearner:
    """Return the learner of the null: the sparse step on a CPU, plain torch elsewhere."""
    decoder = FixedAtoms(starting_atoms(spec.width, setting, "random"), setting.device)
    if setting.device.type == "cpu":
        return SparseTopKLearner(spec, setting, decoder)
    return AutoencoderLearner(spec, setting, LargestOfToken(spec.k), decoder, spec.k)
