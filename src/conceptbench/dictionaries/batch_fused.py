"""The step of BatchTopK, plain or nested, on a CPU: exact gradients, and nothing of size tokens x width is kept."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from conceptbench.dictionaries.candidates import Candidates
from conceptbench.dictionaries.checkpoint import require_shapes
from conceptbench.dictionaries.dictionary import Dictionary
from conceptbench.dictionaries.learner import TINY, FiringClock, Parameters, Setting, StepReport
from conceptbench.dictionaries.rules import KeepAbove
from conceptbench.dictionaries.schedules import learning_rate
from conceptbench.dictionaries.sparse_step import Centred, Explained, Rows, SparseAdam, explain
from conceptbench.dictionaries.specs import BatchTopK, Matryoshka
from conceptbench.dictionaries.support import Support
from conceptbench.dictionaries.thresholds import CALIBRATION_TILE, CALIBRATION_TOKENS, calibrate
from conceptbench.dictionaries.topk_fused import auxiliary_term

FLOOR_SHARE: Final = 0.8
"""Share of the last batch's smallest kept value from which the next batch's firings are looked for."""


class BatchSelection:
    """Chooses the largest positive pre-activations of a batch, k a token on average."""

    def __init__(self, candidates: Candidates, k: int) -> None:
        """Look from 0 on at first."""
        self._candidates, self._k = candidates, k
        self._floor = 0.0

    def choose(self, centred: Rows) -> Support:
        """Return the firings; of equal values at the last place the first fire, in the order of tokens and latents.

        The floor only saves work, because too few above it are looked for again from 0.
        """
        budget, width = self._k * len(centred), len(self._candidates.rows)
        support = self._candidates.above(centred, np.full(width, self._floor, np.float32))
        if support.firings < budget and self._floor > 0:
            support = self._candidates.above(centred, np.zeros(width, np.float32))
        self._floor = 0.0
        if support.firings > budget:
            last = np.partition(support.values, -budget)[-budget]
            wanted = support.values > last
            places = budget - int(wanted.sum())
            wanted[np.flatnonzero(support.values == last)[:places]] = True
            self._floor = FLOOR_SHARE * float(last)
            support = support.keep(wanted)
        return support


def explain_prefixes(
    target: Rows, support: Support, atoms: Float32[np.ndarray, "latent feature"], ends: Sequence[int], weight: float
) -> tuple[Explained, float, Rows]:
    """Return the term of a loss that is the mean of weight / 2 ||e_g||^2 over prefixes g, (its mean ||e_g||^2, e_last).

    The residual e_g is that of the latents below `ends[g]`. A firing of the latents between two ends is in all prefixes
    from its own on, so its row of the term's residual is the sum of their residuals.
    """
    tokens, groups = len(target), len(ends)
    weights = np.full(tokens, weight / groups, np.float32)
    if groups == 1:
        term = explain(target, support, atoms, weights)
        return term, float(term.squares.sum(dtype=np.float64)), term.residual
    group = np.searchsorted(ends, support.latents, side="right").astype(np.int32)
    parts = [support.keep(group == g) for g in range(groups)]
    residuals = np.empty((groups, *target.shape), np.float32)
    squares = 0.0
    for g, part in enumerate(parts):
        explained = explain(residuals[g - 1] if g else target, part, atoms, weights)
        residuals[g] = explained.residual
        squares += float(explained.squares.sum(dtype=np.float64)) / groups
    last = residuals[-1].copy()
    for g in range(groups - 2, -1, -1):
        residuals[g] += residuals[g + 1]
    gradients = np.empty(support.firings, np.float32)
    for g, part in enumerate(parts):
        silent = Support(part.start, part.latents, np.zeros_like(part.values))  # explains nothing: the target stays
        gradients[group == g] = explain(residuals[g], silent, atoms, weights).gradients
    token = np.repeat(np.arange(tokens, dtype=np.int32), np.diff(support.start))
    flat = residuals.reshape(groups * tokens, -1)
    of_rows = np.einsum("rd,rd->r", flat, flat)
    return Explained(support, flat, of_rows, np.tile(weights, groups), gradients, group * tokens + token), squares, last


class FusedBatchLearner:
    """BatchTopK or its nested form on a CPU; the reference is `autoencoder.AutoencoderLearner` with the same parts."""

    def __init__(self, spec: BatchTopK | Matryoshka, setting: Setting, ends: Sequence[int]) -> None:
        """Start from random atoms; `ends` are those of the prefixes, the last of them the width."""
        self._spec, self._setting, self._ends = spec, setting, tuple(ends)
        self.parameters = Parameters.start(spec.width, spec.k, setting, spec.start)
        self._candidates = Candidates(self.parameters.encoder, self.parameters.encoder_bias, setting.candidates)
        self._selection = BatchSelection(self._candidates, spec.k)
        self._adam = SparseAdam(self.parameters, self._candidates)
        self._clock = FiringClock(spec.width, spec.dead_tokens, setting.device)
        self._aux_k = spec.aux_k or max(1, setting.sample.shape[1] // 2)
        self._steps = 0

    def step(self, x: Float[Tensor, "token feature"]) -> StepReport:
        """Learn from one batch: mean over prefixes of ||e||^2 / ||x - mean||^2, and AuxK on the last residual."""
        p = self.parameters
        centred = Centred.of(x.numpy(), p.decoder_bias.numpy())
        variation = max(centred.variation, TINY)
        support = self._selection.choose(centred.rows)
        term, squares, residual = explain_prefixes(centred.rows, support, p.atoms.numpy(), self._ends, 2 / variation)
        loss = squares / variation if self._candidates.finite() else math.nan
        terms, dead = [term], self._clock.dead()
        if self._spec.aux_alpha > 0 and len(dead):
            weighted, auxiliary = auxiliary_term(
                self._candidates, p.atoms.numpy(), centred.rows, residual, dead, self._aux_k, self._spec.aux_alpha
            )
            loss += weighted
            terms += auxiliary
        if math.isfinite(loss):
            self._adam.update(centred.rows, terms, learning_rate(self._spec, self._steps, self._setting.total_steps))
        self._clock.update(torch.from_numpy(support.fired(self._spec.width)), len(x))
        self._steps += 1
        fvu = float(np.square(residual, dtype=np.float64).sum()) / variation
        return StepReport(loss, fvu, support.firings / len(x), self._clock.dead_share())

    def finish(self) -> Dictionary:
        """Return the dictionary; its one threshold is calibrated on training tokens."""
        threshold = calibrate(self._calibration(), self._spec.k)
        rule = KeepAbove(np.full(self._spec.width, threshold, np.float32))
        return self.parameters.dictionary(self._setting.normaliser, rule)

    def state(self) -> dict[str, np.ndarray]:
        """Return all that steps have changed; see `checkpoint.Resumable`."""
        return {**self._adam.state(), "clock": self._clock.state(), "steps": np.array(self._steps)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over such a state."""
        require_shapes(state, self.state())
        self._adam.restore(state)
        self._clock.restore(state["clock"])
        self._steps = int(state["steps"])

    def _calibration(self) -> Iterator[Float[Tensor, "token latent"]]:
        p = self.parameters
        for tokens in torch.split(self._setting.sample[:CALIBRATION_TOKENS], CALIBRATION_TILE):
            yield torch.addmm(p.encoder_bias, tokens - p.decoder_bias, p.encoder.T)
