"""A sparse autoencoder put together from three parts: which latents fire, where atoms come from, what is reconstructed.

Written in plain torch and differentiated automatically: clear rather than fast, and the same on every device.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, TypeAlias

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from conceptbench.dictionaries.checkpoint import optimiser_state, require_shapes, restore_optimiser
from conceptbench.dictionaries.dictionary import Dictionary
from conceptbench.dictionaries.learner import (
    SCALE_TOKENS,
    TINY,
    FiringClock,
    Parameters,
    Setting,
    StepReport,
    remove_radial_,
    squared_norm,
    tied_scale,
    total_variation,
    unit_rows,
)
from conceptbench.dictionaries.rules import CodeRule, KeepLargest
from conceptbench.dictionaries.schedules import learning_rate
from conceptbench.dictionaries.specs import Revived
from conceptbench.dictionaries.thresholds import CALIBRATION_TILE, CALIBRATION_TOKENS
from conceptbench.dictionaries.topk_torch import aux_loss

Reconstruction: TypeAlias = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""From (target [token, feature], codes, atoms) to (sum of squared errors, residual [token, feature])."""


class Selection(Protocol):
    """Which latents fire."""

    def parameters(self) -> list[tuple[Tensor, float]]:
        """Return what is learnt besides encoder and decoder, each with the factor on its learning rate."""

    def codes(self, pre: Float[Tensor, "token latent"]) -> Float[Tensor, "token latent"]:
        """Return codes >= 0, differentiable in the pre-activations."""

    def penalty(
        self, pre: Float[Tensor, "token latent"], codes: Float[Tensor, "token latent"], step: int
    ) -> Float[Tensor, ""]:
        """Return what is added to the loss for the sake of sparsity."""

    def rule(self, tiles: Iterator[Float[Tensor, "token latent"]]) -> CodeRule:
        """Return the rule of encoding, given pre-activations of training tokens."""


class Decoder(Protocol):
    """Where atoms come from."""

    def parameters(self) -> list[tuple[Tensor, float]]:
        """Return what is learnt, each with the factor on its learning rate."""

    def atoms(self) -> Float[Tensor, "latent feature"]:
        """Return the atoms, differentiable in the parameters."""

    def project(self) -> None:
        """Change the gradients before the optimiser's step."""

    def constrain(self) -> None:
        """Bring the parameters back to where they may be after the optimiser's step."""


class UnitAtoms:
    """Free atoms of unit norm: their gradients are tangential, and they are normalised after each step."""

    def __init__(self, atoms: Float[Tensor, "latent feature"], device: torch.device) -> None:
        """Take over the atoms at the start."""
        self._atoms = atoms.to(device).requires_grad_()

    def parameters(self) -> list[tuple[Tensor, float]]:
        """Return the atoms."""
        return [(self._atoms, 1.0)]

    def atoms(self) -> Float[Tensor, "latent feature"]:
        """Return the atoms."""
        return self._atoms

    def project(self) -> None:
        """Remove the radial part of the gradients."""
        if self._atoms.grad is not None:
            remove_radial_(self._atoms.grad, self._atoms)

    def constrain(self) -> None:
        """Normalise."""
        self._atoms.copy_(unit_rows(self._atoms))


class LargestOfToken:
    """The k largest positive pre-activations of each token."""

    def __init__(self, k: int) -> None:
        """Keep k."""
        self._k = k

    def parameters(self) -> list[tuple[Tensor, float]]:
        """Return nothing."""
        return []

    def codes(self, pre: Float[Tensor, "token latent"]) -> Float[Tensor, "token latent"]:
        """Return the codes."""
        top = pre.topk(self._k, dim=1, sorted=False)
        return torch.zeros_like(pre).scatter(1, top.indices, top.values.relu())

    def penalty(self, pre: Tensor, codes: Tensor, step: int) -> Float[Tensor, ""]:
        """Return 0: the number is fixed."""
        return pre.new_zeros(())

    def rule(self, tiles: Iterator[Tensor]) -> CodeRule:
        """Return the same selection."""
        return KeepLargest(self._k)


def whole(target: Tensor, codes: Tensor, atoms: Tensor) -> tuple[Tensor, Tensor]:
    """Return the squared error of all latents together and the residual; a `Reconstruction`."""
    residual = target - codes @ atoms
    return residual.square().sum(), residual


class AutoencoderLearner:
    """Trains encoder and biases together with the parameters of its parts; the loss is in units of the batch's FVU."""

    def __init__(
        self,
        spec: Revived,
        setting: Setting,
        selection: Selection,
        decoder: Decoder,
        start_k: int | None,
        reconstruct: Reconstruction = whole,
    ) -> None:
        """Start with an encoder along the atoms, scaled for the k `start_k` (None: all that are positive).

        Atoms may have different lengths; the rows of the encoder start with one, so that no latent is chosen for that.
        """
        self._spec, self._setting = spec, setting
        self._selection, self._decoder, self._reconstruct = selection, decoder, reconstruct
        centre = setting.median()
        atoms = decoder.atoms().detach().cpu()
        directions, length = unit_rows(atoms), float(atoms.norm(dim=1).mean())
        encoder = directions * (tied_scale(setting.sample[:SCALE_TOKENS] - centre, directions, start_k) / length)
        starts = (encoder, encoder.new_zeros(spec.width), centre)
        self._encoder, self._encoder_bias, self._decoder_bias = (
            start.to(setting.device, copy=True).requires_grad_() for start in starts
        )
        encoding = [(tensor, 1.0) for tensor in (self._encoder, self._encoder_bias, self._decoder_bias)]
        groups = [*encoding, *selection.parameters(), *decoder.parameters()]
        self._optimiser = torch.optim.Adam([{"params": [tensor], "factor": factor} for tensor, factor in groups])
        self._clock = FiringClock(spec.width, spec.dead_tokens, setting.device)
        self._aux_k = spec.aux_k or max(1, setting.sample.shape[1] // 2)
        self._steps = 0

    def step(self, x: Float[Tensor, "token feature"]) -> StepReport:
        """Learn from one batch."""
        pre = self._pre(x)
        codes, atoms = self._selection.codes(pre), self._decoder.atoms()
        error, residual = self._reconstruct(x - self._decoder_bias, codes, atoms)
        spread = max(total_variation(x), TINY)
        loss = error / spread + self._selection.penalty(pre, codes, self._steps)
        dead = self._clock.dead()
        if self._spec.aux_alpha > 0 and len(dead):
            loss = loss + self._spec.aux_alpha * aux_loss(residual, pre[:, dead], atoms[dead], self._aux_k)
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._apply()
        fires = codes.detach() > 0
        self._clock.update(fires.any(0), len(x))
        fvu = squared_norm(residual) / spread
        return StepReport(float(loss.detach()), fvu, float(fires.sum()) / len(x), self._clock.dead_share())

    @torch.no_grad()
    def finish(self) -> Dictionary:
        """Return the dictionary, its rule calibrated on training tokens."""
        parts = (self._decoder.atoms(), self._encoder, self._encoder_bias, self._decoder_bias)
        rule = self._selection.rule(self._calibration())
        return Parameters(*parts).dictionary(self._setting.normaliser, rule)

    def state(self) -> dict[str, np.ndarray]:
        """Return all that steps have changed; see `checkpoint.Resumable`."""
        kept = optimiser_state(self._optimiser)
        return {**kept, "clock": self._clock.state(), "steps": np.array(self._steps)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over such a state."""
        require_shapes(state, self.state())
        restore_optimiser(self._optimiser, state)
        self._clock.restore(state["clock"])
        self._steps = int(state["steps"])

    def _pre(self, x: Float[Tensor, "token feature"]) -> Float[Tensor, "token latent"]:
        # (x - decoder_bias) encoder' with no gradient of the size of x: the bias passes through a matrix-vector product
        bias = self._encoder_bias - self._encoder @ self._decoder_bias
        return torch.addmm(bias, x, self._encoder.T)

    def _calibration(self) -> Iterator[Float[Tensor, "token latent"]]:
        """Yield pre-activations of training tokens, a tile at a time."""
        for tokens in torch.split(self._setting.sample[:CALIBRATION_TOKENS], CALIBRATION_TILE):
            yield self._pre(tokens.to(self._setting.device))

    @torch.no_grad()
    def _apply(self) -> None:
        self._decoder.project()
        rate = learning_rate(self._spec, self._steps, self._setting.total_steps)
        for group in self._optimiser.param_groups:
            group["lr"] = rate * group["factor"]
        self._optimiser.step()
        self._decoder.constrain()
        self._steps += 1
