"""Dictionaries that learn no concept: random atoms, coordinates, principal components. The floor of every score."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from conceptbench.dictionaries.assembled import both_signs, linear, refuse_more
from conceptbench.dictionaries.checkpoint import require_shapes
from conceptbench.dictionaries.dictionary import Dictionary
from conceptbench.dictionaries.learner import SCALE_TOKENS, Setting, tied_scale, to_numpy, unit_rows
from conceptbench.dictionaries.rules import CodeRule, KeepAbove, KeepLargest
from conceptbench.dictionaries.specs import Pca, Random, Raw


class RandomLearner:
    """Random unit atoms; the tied encoder has the one scale that reconstructs the sample best in least squares."""

    def __init__(self, spec: Random, setting: Setting) -> None:
        """Draw the atoms."""
        self._spec, self._setting = spec, setting

    def step(self, x: Float[Tensor, "token feature"]) -> None:
        """Ignore the batch: the sample is enough for one number."""

    def state(self) -> dict[str, np.ndarray]:
        """Return nothing: steps change nothing; see `checkpoint.Resumable`."""
        return {}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over nothing."""
        require_shapes(state, {})

    def finish(self) -> Dictionary:
        """Return the dictionary."""
        sample, k = self._setting.sample, self._spec.k
        atoms = unit_rows(torch.randn(self._spec.width, sample.shape[1], generator=self._setting.generator))
        centre = sample.mean(0)
        scale = tied_scale(sample[:SCALE_TOKENS] - centre, atoms, k)
        rows = to_numpy(atoms)
        return linear(rows, rows * np.float32(scale), to_numpy(centre), self._setting, KeepLargest(k))


class RawLearner:
    """The signed coordinates, split into positive and negative parts so that codes are >= 0."""

    def __init__(self, spec: Raw, setting: Setting) -> None:
        """Check the number of coordinates."""
        self._spec, self._setting = spec, setting
        refuse_more(spec.name, spec.k, 2 * setting.sample.shape[1])

    def step(self, x: Float[Tensor, "token feature"]) -> None:
        """Ignore the batch: nothing is learnt."""

    def state(self) -> dict[str, np.ndarray]:
        """Return nothing: steps change nothing; see `checkpoint.Resumable`."""
        return {}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over nothing."""
        require_shapes(state, {})

    def finish(self) -> Dictionary:
        """Return the dictionary."""
        d = self._setting.sample.shape[1]
        k = self._spec.k
        rule: CodeRule = KeepAbove(np.zeros(2 * d, np.float32)) if k is None else KeepLargest(k)
        atoms = both_signs(np.eye(d, dtype=np.float32))
        return linear(atoms, atoms.copy(), np.zeros(d, np.float32), self._setting, rule)


class PcaLearner:
    """Principal components of all training tokens (mean and scatter merged over batches in float64)."""

    def __init__(self, spec: Pca, setting: Setting) -> None:
        """Start with no tokens."""
        self._spec, self._setting = spec, setting
        d = setting.sample.shape[1]
        refuse_more(spec.name, spec.components, d)
        refuse_more(spec.name, spec.k, d)
        self._n, self._mean, self._scatter = 0, np.zeros(d), np.zeros((d, d))

    def step(self, x: Float[Tensor, "token feature"]) -> None:
        """Merge one batch (Chan's rule)."""
        tokens = x.cpu().numpy().astype(np.float64)
        n, mean = len(tokens), tokens.mean(0)
        centred = tokens - mean
        gap, merged = mean - self._mean, self._n + n
        self._scatter += centred.T @ centred + np.outer(gap, gap) * (self._n * n / merged)
        self._mean += gap * (n / merged)
        self._n = merged

    def state(self) -> dict[str, np.ndarray]:
        """Return number, mean and scatter of the tokens; see `checkpoint.Resumable`."""
        return {"n": np.array(self._n), "mean": self._mean, "scatter": self._scatter}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over such a state."""
        require_shapes(state, self.state())
        self._n, self._mean, self._scatter = int(state["n"]), state["mean"].copy(), state["scatter"].copy()

    def finish(self) -> Dictionary:
        """Return the dictionary; a component's sign is such that its largest coordinate is positive."""
        _, vectors = np.linalg.eigh(self._scatter)
        rows = vectors.T[::-1][: self._spec.components]
        largest = np.take_along_axis(rows, np.abs(rows).argmax(1)[:, None], axis=1)
        atoms = both_signs((rows * np.sign(largest)).astype(np.float32))
        return linear(atoms, atoms.copy(), self._mean.astype(np.float32), self._setting, KeepLargest(self._spec.k))
