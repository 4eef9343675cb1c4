"""What the steps by automatic differentiation share: Adam on parameters whose atoms keep unit length."""

from collections.abc import Mapping

import numpy as np
import torch

from conceptbench.dictionaries.checkpoint import optimiser_state, restore_optimiser
from conceptbench.dictionaries.learner import Parameters, remove_radial_, unit_rows


class AutogradStep:
    """Parameters with Adam's memory of them, on any device."""

    def __init__(self, parameters: Parameters) -> None:
        """Start Adam at zero moments."""
        self.parameters = parameters
        for tensor in parameters.all():
            tensor.requires_grad_()
        self._optimiser = torch.optim.Adam(parameters.all())

    def state(self) -> dict[str, np.ndarray]:
        """Return all that steps have changed; see `checkpoint.Resumable`."""
        return optimiser_state(self._optimiser)

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over such a state."""
        restore_optimiser(self._optimiser, state)

    @torch.no_grad()
    def _apply(self, lr: float) -> None:
        """Step down the gradients, those of the atoms without their radial part; the atoms keep length 1."""
        atoms = self.parameters.atoms
        if atoms.grad is not None:
            remove_radial_(atoms.grad, atoms)
        self._optimiser.param_groups[0]["lr"] = lr
        self._optimiser.step()
        atoms.copy_(unit_rows(atoms))
