"""ReLU autoencoder with an L1 penalty: the learner, which takes the step that is made for where it runs."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from conceptbench.dictionaries.clocked import ClockedLearner
from conceptbench.dictionaries.dictionary import Dictionary
from conceptbench.dictionaries.distributed import in_group
from conceptbench.dictionaries.divided import DataParallelReluL1
from conceptbench.dictionaries.learner import Parameters, Setting, StepReport
from conceptbench.dictionaries.relu_l1_fused import FusedReluL1
from conceptbench.dictionaries.relu_l1_torch import TorchReluL1
from conceptbench.dictionaries.rules import KeepAbove
from conceptbench.dictionaries.schedules import learning_rate, ramp
from conceptbench.dictionaries.specs import ReluL1


def _engine(parameters: Parameters, spec: ReluL1, setting: Setting) -> FusedReluL1 | TorchReluL1:
    """Return the step: divided in a group of processes, numba's on a CPU, torch's anywhere else."""
    if in_group():
        return DataParallelReluL1(parameters, spec)
    if setting.device.type == "cpu":
        return FusedReluL1(parameters, spec, setting.candidates)
    return TorchReluL1(parameters, spec)


class ReluL1Learner(ClockedLearner):
    """Feeds the step, and raises the penalty to its weight."""

    def __init__(self, spec: ReluL1, setting: Setting) -> None:
        """Start from random atoms."""
        parameters = Parameters.start(spec.width, None, setting)
        if spec.init == "kaiming":
            parameters.encoder = _kaiming_encoder(spec.width, setting)
        self._spec, self._engine = spec, _engine(parameters, spec, setting)
        super().__init__(parameters, self._engine, spec, setting)

    def step(self, x: Float[Tensor, "token feature"]) -> StepReport:
        """Learn from one batch."""
        spec = self._spec
        rise = ramp(self._steps, spec.l1_warmup_steps)
        dead = self._clock.dead() if spec.ghost_gradients else torch.empty(0, dtype=torch.int64, device=x.device)
        lr = learning_rate(spec, self._steps, self._total_steps)
        return self._account(self._engine.step(x, dead, lr, spec.l1 * rise), len(x))

    def finish(self) -> Dictionary:
        """Return the dictionary, which fires where a pre-activation is positive."""
        return self._dictionary(KeepAbove(np.zeros(self._spec.width, np.float32)))


def _kaiming_encoder(width: int, setting: Setting) -> Tensor:
    """Return an independent uniform draw; its fan-in is what torch takes from a [feature, latent] matrix, the width."""
    bound = (6 / width) ** 0.5
    draw = torch.rand(width, setting.sample.shape[1], generator=setting.generator)
    return torch.mul(2 * draw - 1, bound).to(setting.device)
