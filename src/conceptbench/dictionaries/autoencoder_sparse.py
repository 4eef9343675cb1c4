"""The step of an autoencoder put together from parts, on a CPU.

Forward and backward pass touch the firings alone; nothing of size tokens x width is kept. What is dense has the size
of the autoencoder: its gradients, which reach the parameters of the decoder by automatic differentiation of the atoms.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32
from scipy import sparse
from torch import Tensor

from conceptbench.dictionaries.autoencoder import AutoencoderLearner, Decoder, LargestOfToken, Selection
from conceptbench.dictionaries.candidates import Candidates
from conceptbench.dictionaries.learner import TINY, Setting, StepReport
from conceptbench.dictionaries.sparse_step import Centred, Explained, Rows, explain
from conceptbench.dictionaries.specs import Archetypal, Frozen, Revived
from conceptbench.dictionaries.support import Support
from conceptbench.dictionaries.topk_fused import auxiliary_term


@dataclass(frozen=True, eq=False)
class Selected:
    """Latents that matter on each token, with their codes, which may be 0."""

    support: Support
    through: Callable[[Float32[np.ndarray, "firing"]], float] = lambda gradients: 0.0
    """Turns gradients of the codes in place into those of the pre-activations, the penalty's among them, and those of
    what the selection learns; returns the penalty."""


class SparseAutoencoderLearner(AutoencoderLearner, ABC):
    """`AutoencoderLearner`, which is its reference, with the same gradients but without dense products."""

    def __init__(
        self, spec: Revived, setting: Setting, selection: Selection, decoder: Decoder, start_k: int | None
    ) -> None:
        """Start as the reference does."""
        super().__init__(spec, setting, selection, decoder, start_k)
        self._alpha = spec.aux_alpha
        self._candidates = Candidates(self._encoder, self._encoder_bias, setting.candidates)

    def step(self, x: Float[Tensor, "token feature"]) -> StepReport:
        """Learn from one batch: loss = ||e||^2 / ||x - mean||^2 + aux_alpha ||e' - e||^2 / ||e - mean||^2."""
        atoms = self._decoder.atoms()
        rows = atoms.detach().numpy()
        centred = Centred.of(x.numpy(), self._decoder_bias.detach().numpy())
        variation = max(centred.variation, TINY)
        self._optimiser.zero_grad()
        selected = self._select(centred.rows)
        if selected is None:
            return self._dense_step(x)
        support = selected.support
        terms = [explain(centred.rows, support, rows, np.full(len(x), 2 / variation, np.float32))]
        fvu = float(terms[0].squares.sum(dtype=np.float64)) / variation
        loss = fvu + selected.through(terms[0].gradients) if self._candidates.finite() else math.nan
        dead = self._clock.dead()
        if self._alpha > 0 and len(dead):
            weighted, auxiliary = auxiliary_term(
                self._candidates, rows, centred.rows, terms[0].residual, dead, self._aux_k, self._alpha
            )
            loss += weighted
            terms += auxiliary
        if math.isfinite(loss):
            self._backward(atoms, centred.rows, terms)
            self._apply()
            self._candidates.refresh()
        firing = support.keep(support.values > 0)
        self._clock.update(torch.from_numpy(firing.fired(len(rows))), len(x))
        return StepReport(loss, fvu, firing.firings / len(x), self._clock.dead_share())

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over a state; see `checkpoint.Resumable`."""
        super().restore(state)
        self._candidates.refresh()

    @abstractmethod
    def _select(self, centred: Rows) -> "Selected | None":
        """Return what may fire; None where a dense step does better."""

    def _dense_step(self, x: Float[Tensor, "token feature"]) -> StepReport:
        report = super().step(x)
        self._candidates.refresh()
        return report

    def _backward(self, atoms: Float[Tensor, "latent feature"], centred: Rows, terms: Sequence[Explained]) -> None:
        """Set the gradients of all parameters; only the target of the first term depends on the decoder bias."""
        of_atoms, of_encoder, of_bias = np.zeros(atoms.shape, np.float32), np.zeros(atoms.shape, np.float32), 0.0
        for term in terms:
            token_weights = np.repeat(term.weights, np.diff(term.support.start))
            of_atoms -= _by_latent(term, term.support.values * token_weights, len(atoms)) @ term.residual
            by_latent = _by_latent(term, term.gradients, len(atoms))
            of_encoder += by_latent @ centred
            of_bias = of_bias + by_latent.sum(1)
        bias = torch.from_numpy(np.asarray(of_bias, np.float32))
        first = torch.from_numpy(terms[0].residual).T @ torch.from_numpy(terms[0].weights)
        self._encoder.grad, self._encoder_bias.grad = torch.from_numpy(of_encoder), bias
        self._decoder_bias.grad = -first - self._encoder.detach().T @ bias
        if atoms.requires_grad:
            atoms.backward(torch.from_numpy(of_atoms))  # type: ignore[no-untyped-call]


class SparseTopKLearner(SparseAutoencoderLearner):
    """The k largest latents of a token fire."""

    def __init__(self, spec: Archetypal | Frozen, setting: Setting, decoder: Decoder) -> None:
        """Start as the reference does."""
        super().__init__(spec, setting, LargestOfToken(spec.k), decoder, spec.k)
        self._k = spec.k

    def _select(self, centred: Rows) -> Selected:
        return Selected(self._candidates.largest(centred, self._k))


def _by_latent(term: Explained, entries: Float32[np.ndarray, "firing"], width: int) -> sparse.csc_array:
    """Return a number for each firing as a sparse matrix [latent, token]."""
    s = term.support
    return sparse.csc_array((entries, s.latents, s.start), shape=(width, s.tokens))
