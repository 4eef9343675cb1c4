"""TopK autoencoder with AuxK: the learner that takes the fused step on a CPU and torch's on a GPU or on several."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float
from torch import Tensor

from conceptbench.dictionaries.checkpoint import require_shapes
from conceptbench.dictionaries.dictionary import Dictionary
from conceptbench.dictionaries.distributed import DataParallelTopK, in_group
from conceptbench.dictionaries.learner import FiringClock, Parameters, Setting, StepReport
from conceptbench.dictionaries.rules import KeepLargest
from conceptbench.dictionaries.schedules import kept, learning_rate
from conceptbench.dictionaries.specs import TopK
from conceptbench.dictionaries.topk_fused import FusedTopK
from conceptbench.dictionaries.topk_torch import TorchTopK


def _engine(parameters: Parameters, spec: TopK, setting: Setting) -> FusedTopK | TorchTopK | DataParallelTopK:
    if in_group():
        return DataParallelTopK(parameters, spec)
    if setting.device.type == "cpu":
        return FusedTopK(parameters, spec, setting.candidates)
    return TorchTopK(parameters, spec)


class TopKLearner:
    """Feeds the step and keeps the clock of dead latents."""

    def __init__(self, spec: TopK, setting: Setting) -> None:
        """Start from the atoms that the specification names."""
        self._spec, self._total_steps, self._normaliser = spec, setting.total_steps, setting.normaliser
        parameters = Parameters.start(spec.width, spec.k, setting, spec.start)
        self._engine = _engine(parameters, spec, setting)
        self._clock = FiringClock(spec.width, spec.dead_tokens, setting.device)
        self._steps = 0

    def step(self, x: Float[Tensor, "token feature"]) -> StepReport:
        """Learn from one batch."""
        lr = learning_rate(self._spec, self._steps, self._total_steps)
        outcome = self._engine.step(x, self._clock.dead(), lr, kept(self._spec, self._steps))
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
        """Return the dictionary; the k largest are kept at encoding too."""
        return self._engine.parameters.dictionary(self._normaliser, KeepLargest(self._spec.k))
