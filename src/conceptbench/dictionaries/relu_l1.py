"""ReLU autoencoder with an L1 penalty: the step in plain torch, and the learner that takes the fused one on a CPU."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from conceptbench.dictionaries.autograd import AutogradStep
from conceptbench.dictionaries.checkpoint import require_shapes
from conceptbench.dictionaries.dictionary import Dictionary
from conceptbench.dictionaries.learner import (
    TINY,
    FiringClock,
    Parameters,
    Setting,
    StepReport,
    squared_norm,
    total_variation,
)
from conceptbench.dictionaries.relu_l1_fused import FusedReluL1, ReluOutcome
from conceptbench.dictionaries.relu_l1_loss import ghost_loss, squared_errors
from conceptbench.dictionaries.rules import KeepAbove
from conceptbench.dictionaries.schedules import learning_rate, ramp
from conceptbench.dictionaries.specs import ReluL1


class TorchReluL1(AutogradStep):
    """The step by automatic differentiation on any device: reference of the fused one, and used on a GPU."""

    def __init__(self, parameters: Parameters, spec: ReluL1) -> None:
        """Start Adam at zero moments."""
        super().__init__(parameters)
        self._spec = spec

    def step(self, x: Float[Tensor, "token feature"], dead: Int64[Tensor, "dead"], lr: float, l1: float) -> ReluOutcome:
        """Learn from one batch; see `FusedReluL1.step`."""
        p = self.parameters
        # (x - decoder_bias) encoder' with no gradient of the size of x: the bias passes through a matrix-vector product
        pre = torch.addmm(p.encoder_bias - p.encoder @ p.decoder_bias, x, p.encoder.T)
        codes = pre.relu()
        residual = x - torch.addmm(p.decoder_bias, codes, p.atoms)
        elements = squared_errors(residual, x, self._spec.norm_divided)
        loss = elements.sum() / len(x) + l1 * codes.sum() / len(x)
        if len(dead):
            loss = loss + ghost_loss(elements, residual, pre[:, dead], p.atoms[dead], self._spec.norm_divided)
        fires = codes.detach() > 0
        fvu = squared_norm(residual) / max(total_variation(x), TINY)
        outcome = ReluOutcome(float(loss.detach()), fvu, int(fires.sum()), fires.any(0))
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._apply(lr)
        return outcome


class ReluL1Learner:
    """Feeds the step, keeps the clock of dead latents, and raises the penalty to its weight."""

    def __init__(self, spec: ReluL1, setting: Setting) -> None:
        """Start from random atoms."""
        self._spec, self._total_steps, self._normaliser = spec, setting.total_steps, setting.normaliser
        self.parameters = Parameters.start(spec.width, None, setting)
        if spec.init == "kaiming":
            self.parameters.encoder = _kaiming_encoder(spec.width, setting)
        fused = setting.device.type == "cpu"
        self._engine = (
            FusedReluL1(self.parameters, spec, setting.candidates) if fused else TorchReluL1(self.parameters, spec)
        )
        self._clock = FiringClock(spec.width, spec.dead_tokens, setting.device)
        self._steps = 0

    def step(self, x: Float[Tensor, "token feature"]) -> StepReport:
        """Learn from one batch."""
        spec = self._spec
        rise = ramp(self._steps, spec.l1_warmup_steps)
        dead = self._clock.dead() if spec.ghost_gradients else torch.empty(0, dtype=torch.int64, device=x.device)
        lr = learning_rate(spec, self._steps, self._total_steps)
        outcome = self._engine.step(x, dead, lr, spec.l1 * rise)
        self._clock.update(outcome.fired, len(x))
        self._steps += 1
        return StepReport(outcome.loss, outcome.fvu, outcome.firings / len(x), self._clock.dead_share())

    def state(self) -> dict[str, np.ndarray]:
        """Return all that steps have changed; see `checkpoint.Resumable`."""
        return {**self._engine.state(), "clock": self._clock.state(), "steps": np.array(self._steps)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over such a state."""
        require_shapes(state, self.state())
        self._engine.restore(state)
        self._clock.restore(state["clock"])
        self._steps = int(state["steps"])

    def finish(self) -> Dictionary:
        """Return the dictionary, which fires where a pre-activation is positive."""
        rule = KeepAbove(np.zeros(self._spec.width, np.float32))
        return self.parameters.dictionary(self._normaliser, rule)


def _kaiming_encoder(width: int, setting: Setting) -> Tensor:
    """Return an independent uniform draw; its fan-in is what torch takes from a [feature, latent] matrix, the width."""
    bound = (6 / width) ** 0.5
    draw = torch.rand(width, setting.sample.shape[1], generator=setting.generator)
    return torch.mul(2 * draw - 1, bound).to(setting.device)
