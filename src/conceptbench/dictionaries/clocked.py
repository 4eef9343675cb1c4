"""What the learners of TopK and ReLU-L1 share: the count of the steps, the clock of dead latents, their checkpoints."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from jaxtyping import Bool
from torch import Tensor

from conceptbench.dictionaries.checkpoint import Resumable, require_shapes
from conceptbench.dictionaries.dictionary import Dictionary
from conceptbench.dictionaries.learner import FiringClock, Parameters, Setting, StepReport
from conceptbench.dictionaries.rules import CodeRule
from conceptbench.dictionaries.specs import ReluL1, TopK


class Outcome(Protocol):
    """What an engine found in a step before it changed the parameters."""

    @property
    def loss(self) -> float:
        """The loss of the batch."""

    @property
    def fvu(self) -> float:
        """Squared residual over squared distance to the mean, of the batch."""

    @property
    def firings(self) -> int:
        """Firings of all tokens."""

    @property
    def fired(self) -> Bool[Tensor, "latent"]:
        """Whether each latent fired at least once."""


class ClockedLearner:
    """A learner but for its step, which it takes in by `_account`, and the rule of its dictionary."""

    def __init__(self, parameters: Parameters, engine: Resumable, spec: TopK | ReluL1, setting: Setting) -> None:
        """Start with no step taken and every latent alive; the engine changes the parameters in place."""
        self.parameters = parameters
        self._resumable, self._normaliser, self._total_steps = engine, setting.normaliser, setting.total_steps
        self._clock = FiringClock(spec.width, spec.dead_tokens, setting.device)
        self._steps = 0

    def state(self) -> dict[str, np.ndarray]:
        """Return all that steps have changed; see `checkpoint.Resumable`."""
        return {**self._resumable.state(), "clock": self._clock.state(), "steps": np.array(self._steps)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over such a state."""
        require_shapes(state, self.state())
        self._resumable.restore(state)
        self._clock.restore(state["clock"])
        self._steps = int(state["steps"])

    def _account(self, outcome: Outcome, tokens: int) -> StepReport:
        """Count a step on a batch of so many tokens."""
        self._clock.update(outcome.fired, tokens)
        self._steps += 1
        return StepReport(outcome.loss, outcome.fvu, outcome.firings / tokens, self._clock.dead_share())

    def _dictionary(self, rule: CodeRule) -> Dictionary:
        return self.parameters.dictionary(self._normaliser, rule)
