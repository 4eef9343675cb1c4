"""The TopK step on a CPU: exact gradients, and nothing of size tokens x width is kept."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from conceptbench.dictionaries.candidates import Candidates
from conceptbench.dictionaries.learner import TINY, Parameters, Precision
from conceptbench.dictionaries.sparse_step import Atoms, Centred, Explained, Rows, SparseAdam, explain
from conceptbench.dictionaries.specs import TopK
from conceptbench.dictionaries.support import Support


@dataclass(frozen=True, eq=False)
class TopKOutcome:
    """What a step found before it changed the parameters."""

    loss: float
    fvu: float
    """Squared residual over squared distance to the mean, of the batch."""
    firings: int
    fired: Bool[Tensor, "latent"]


class FusedTopK:
    """Parameters with the moments of Adam, and the step that updates them in place."""

    def __init__(self, parameters: Parameters, spec: TopK, precision: Precision = "auto") -> None:
        """Start Adam at zero moments; the precision of the candidates changes the speed and not the result."""
        self.parameters = parameters
        self._spec = spec
        self._aux_k = spec.aux_k or max(1, parameters.atoms.shape[1] // 2)
        self._candidates = Candidates(parameters.encoder, parameters.encoder_bias, precision)
        self.adam = SparseAdam(parameters, self._candidates)

    def step(
        self, x: Float[Tensor, "token feature"], dead: Int64[Tensor, "dead"], lr: float, k: int | None = None
    ) -> TopKOutcome:
        """Learn from one batch: loss = ||e||^2 / ||x - mean||^2 + aux_alpha ||e' - e||^2 / ||e - mean||^2.

        With `k` as many latents are kept on this step, instead of the specification's.
        """
        atoms = self.parameters.atoms.numpy()
        centred = Centred.of(x.numpy(), self.parameters.decoder_bias.numpy())
        variation = max(centred.variation, TINY)
        support = self._candidates.largest(centred.rows, k or self._spec.k)
        terms = [explain(centred.rows, support, atoms, _equal(len(x), 2 / variation))]
        fvu = float(terms[0].squares.sum(dtype=np.float64)) / variation
        loss = fvu if self._candidates.finite() else math.nan
        if self._spec.aux_alpha > 0 and len(dead):
            residual, alpha = terms[0].residual, self._spec.aux_alpha
            weighted, auxiliary = auxiliary_term(
                self._candidates, atoms, centred.rows, residual, dead, self._aux_k, alpha
            )
            loss += weighted
            terms += auxiliary
        outcome = TopKOutcome(loss, fvu, support.firings, torch.from_numpy(support.fired(len(atoms))))
        if math.isfinite(loss):
            self.adam.update(centred.rows, terms, lr)
        return outcome

    def state(self) -> dict[str, np.ndarray]:
        """Return all that steps have changed; see `checkpoint.Resumable`."""
        return self.adam.state()

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over such a state."""
        self.adam.restore(state)


def auxiliary_term(
    candidates: Candidates, atoms: Atoms, centred: Rows, residual: Rows, dead: Int64[Tensor, "dead"], aux_k: int,
    alpha: float,
) -> tuple[float, list[Explained]]:  # fmt: skip
    """Return the weighted AuxK loss and its term; nothing when the residual does not vary."""
    spread = Centred.of(residual, residual[0]).variation
    if not spread > 0:
        return 0.0, []
    among = candidates.among(dead.numpy()).largest(centred, min(aux_k, len(dead)))
    support = Support(among.start, dead.numpy().astype(np.int32)[among.latents], among.values)
    scale = alpha / spread
    term = explain(residual, support, atoms, _equal(len(centred), 2 * scale))
    return scale * float(term.squares.sum(dtype=np.float64)), [term]


def _equal(tokens: int, weight: float) -> Float32[np.ndarray, "token"]:
    return np.full(tokens, weight, np.float32)
