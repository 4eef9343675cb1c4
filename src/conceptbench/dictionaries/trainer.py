"""Dictionaries in training side by side: those that ask for the same batches share them."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float32

from conceptbench.dictionaries.checkpoint import Progress
from conceptbench.dictionaries.learner import Learner, StepReport
from conceptbench.dictionaries.normaliser import Normaliser
from conceptbench.dictionaries.specs import DictionarySpec
from conceptbench.errors import ConceptBenchError


@dataclass(eq=False)
class Trainer:
    """One dictionary in training, with its own account."""

    spec: DictionarySpec
    seed: int
    learner: Learner
    normaliser: Normaliser
    generator: torch.Generator
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    report: StepReport | None = None

    @property
    def label(self) -> str:
        """Name and seed, as the progress bar shows them."""
        return f"{self.spec.name}, seed {self.seed}"

    def step(self, batch: torch.Tensor) -> None:
        """Learn from one normalised batch.

        Raises:
            ConceptBenchError: when the loss is not finite.
        """
        began = time.perf_counter()
        self.report = self.learner.step(batch)
        self.seconds += time.perf_counter() - began
        self.steps += 1
        self.tokens += len(batch)
        if self.report is not None and not math.isfinite(self.report.loss):
            alike = bool((batch == batch[0]).all())
            remedy = "its tokens are all alike" if alike else "lower its learning rate in the configuration"
            raise ConceptBenchError(
                f"The loss of dictionary '{self.spec.name}' (seed {self.seed}) is {self.report.loss} "
                f"at step {self.steps}; {remedy}."
            )

    def resume(self, progress: Progress) -> None:
        """Go on from where a checkpoint was written."""
        self.steps, self.tokens, self.seconds = progress.steps, progress.tokens, progress.seconds


@dataclass(eq=False)
class Lockstep:
    """Trainers of one batch size, normaliser, number of epochs and place in the stream: every batch is made once."""

    trainers: Sequence[Trainer]
    normaliser: Normaliser
    device: torch.device
    to_skip: int = 0
    """Tokens of the stream that the trainers have seen before this run."""
    waiting: list[Float32[np.ndarray, "token feature"]] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Tokens of a batch."""
        return self.trainers[0].spec.batch_size

    @property
    def epochs(self) -> int:
        """Passes over the tokens."""
        return self.trainers[0].spec.epochs

    @property
    def tokens_waiting(self) -> int:
        """Tokens that are not yet a batch."""
        return sum(map(len, self.waiting))

    def feed(self, tokens: Float32[np.ndarray, "token feature"]) -> None:
        """Take raw tokens in, and take as many steps as there are full batches."""
        if self.to_skip:
            dropped = min(self.to_skip, len(tokens))
            self.to_skip -= dropped
            tokens = tokens[dropped:]
        self.waiting.append(tokens)
        if self.tokens_waiting < self.size:
            return
        joined = self.waiting[0] if len(self.waiting) == 1 else np.concatenate(self.waiting)
        full = len(joined) // self.size * self.size
        for start in range(0, full, self.size):
            batch = self.normaliser.apply(joined[start : start + self.size])
            shared = torch.from_numpy(batch).to(self.device)
            for trainer in self.trainers:
                trainer.step(shared)
        self.waiting = [joined[full:].copy()]


def lockstep(trainers: Sequence[Trainer], device: torch.device) -> list[Lockstep]:
    """Return the trainers in groups that share batches."""
    groups: dict[tuple[int, int, int, int], list[Trainer]] = {}
    for trainer in trainers:
        key = id(trainer.normaliser), trainer.spec.batch_size, trainer.spec.epochs, trainer.tokens
        groups.setdefault(key, []).append(trainer)
    return [Lockstep(members, members[0].normaliser, device, members[0].tokens) for members in groups.values()]
