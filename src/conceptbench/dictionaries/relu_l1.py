"""ReLU autoencoder with an L1 penalty, with the losses of PatchSAE (arXiv 2412.05276 and its published code)."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from conceptbench.dictionaries.checkpoint import optimiser_state, restore_optimiser
from conceptbench.dictionaries.dictionary import Dictionary
from conceptbench.dictionaries.learner import (
    TINY,
    FiringClock,
    Parameters,
    Setting,
    StepReport,
    learning_rate,
    remove_radial_,
    squared_norm,
    total_variation,
    unit_rows,
)
from conceptbench.dictionaries.rules import KeepAbove
from conceptbench.dictionaries.specs import ReluL1

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


class ReluL1Learner:
    """Trains by automatic differentiation with Adam; atoms keep unit norm and their gradients are tangential."""

    def __init__(self, spec: ReluL1, setting: Setting) -> None:
        """Start from random atoms."""
        self._spec, self._setting = spec, setting
        self.parameters = Parameters.start(spec.width, None, setting)
        if spec.init == "kaiming":
            self.parameters.encoder = _kaiming_encoder(spec.width, setting)
        for tensor in self.parameters.all():
            tensor.requires_grad_()
        self._optimiser = torch.optim.Adam(self.parameters.all())
        self._clock = FiringClock(spec.width, spec.dead_tokens, setting.device)
        self._steps = 0

    def step(self, x: Float[Tensor, "token feature"]) -> StepReport:
        """Learn from one batch."""
        pre, codes, residual = self._forward(x)
        loss = self._loss(x, pre, codes, residual, self._clock.dead() if self._spec.ghost_gradients else None)
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._apply()
        fires = codes.detach() > 0
        self._clock.update(fires.any(0), len(x))
        fvu = squared_norm(residual) / max(total_variation(x), TINY)
        return StepReport(float(loss.detach()), fvu, float(fires.sum()) / len(x), self._clock.dead_share())

    def state(self) -> dict[str, np.ndarray]:
        """Return all that steps have changed; see `checkpoint.Resumable`."""
        kept = optimiser_state(self._optimiser)
        return {**kept, "clock": self._clock.state(), "steps": np.array(self._steps)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over such a state."""
        restore_optimiser(self._optimiser, state)
        self._clock.restore(state["clock"])
        self._steps = int(state["steps"])

    def finish(self) -> Dictionary:
        """Return the dictionary, which fires where a pre-activation is positive."""
        rule = KeepAbove(np.zeros(self._spec.width, np.float32))
        return self.parameters.dictionary(self._setting.normaliser, rule)

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        p = self.parameters
        # (x - decoder_bias) encoder' with no gradient of the size of x: the bias passes through a matrix-vector product
        pre = torch.addmm(p.encoder_bias - p.encoder @ p.decoder_bias, x, p.encoder.T)
        codes = pre.relu()
        return pre, codes, x - torch.addmm(p.decoder_bias, codes, p.atoms)

    def _loss(
        self, x: Tensor, pre: Tensor, codes: Tensor, residual: Tensor, dead: Int64[Tensor, "dead"] | None
    ) -> Tensor:
        spec = self._spec
        elements = squared_errors(residual, x, spec.norm_divided)
        rise = min(1.0, (self._steps + 1) / spec.l1_warmup_steps) if spec.l1_warmup_steps else 1.0
        loss = elements.sum() / len(x) + spec.l1 * rise * codes.sum() / len(x)
        if dead is None:
            return loss
        return loss + ghost_loss(elements, residual, pre[:, dead], self.parameters.atoms[dead], spec.norm_divided)

    @torch.no_grad()
    def _apply(self) -> None:
        atoms = self.parameters.atoms
        if atoms.grad is not None:
            remove_radial_(atoms.grad, atoms)
        self._optimiser.param_groups[0]["lr"] = learning_rate(self._spec, self._steps, self._setting.total_steps)
        self._optimiser.step()
        atoms.copy_(unit_rows(atoms))
        self._steps += 1


def _kaiming_encoder(width: int, setting: Setting) -> Tensor:
    """Return an independent uniform draw; its fan-in is what torch takes from a [feature, latent] matrix, the width."""
    bound = (6 / width) ** 0.5
    draw = torch.rand(width, setting.sample.shape[1], generator=setting.generator)
    return torch.mul(2 * draw - 1, bound).to(setting.device)
