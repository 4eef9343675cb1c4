"""The parts of a sparse training step on a CPU, for every method whose codes are zero almost everywhere.

A method chooses the firings (`candidates.Candidates`), explains its target with them (`explain`), adds what its loss
adds to the gradients of the values, and updates the autoencoder (`SparseAdam`). The gradients are exact. Sparse: the
decoder product, the gradient of the values, and both weight gradients, which are accumulated, projected and applied
row by row. The gradient of the decoder bias through the encoder is a matrix-vector product, because the sum over
tokens is taken before the product.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import torch
from jaxtyping import Float32, Int32, Int64

from conceptbench.dictionaries import kernels
from conceptbench.dictionaries.candidates import Candidates
from conceptbench.dictionaries.learner import Parameters
from conceptbench.dictionaries.support import Support
from conceptbench.dictionaries.threads import ranges, share_threads

SUM_ROWS: Final = 256
BETA1: Final = 0.9
BETA2: Final = 0.999
EPSILON: Final = 1e-8

Rows = Float32[np.ndarray, "token feature"]
Atoms = Float32[np.ndarray, "latent feature"]


@dataclass(frozen=True, eq=False)
class Centred:
    """A batch of tokens minus the decoder bias."""

    rows: Rows
    variation: float
    """Summed squared distance of the tokens to their mean."""

    @classmethod
    def of(cls, x: Rows, centre: Float32[np.ndarray, "feature"]) -> "Centred":
        """Subtract `centre` from the tokens; the variation is that of the batch, whatever the centre."""
        rows, squares = np.empty_like(x), np.empty(len(x), np.float32)
        sums = np.empty((-(-len(x) // SUM_ROWS), x.shape[1]))
        kernels.centre_rows(0, len(sums), SUM_ROWS, x, centre, rows, squares, sums)
        total, mean = float(squares.sum(dtype=np.float64)), sums.sum(0) / len(x)
        return cls(rows, max(total - len(x) * float(mean @ mean), 0.0))


@dataclass(frozen=True, eq=False)
class Explained:
    """One term of a loss: sum over tokens of weights / 2 * squares, where squares are those of the residual."""

    support: Support
    residual: Float32[np.ndarray, "row feature"]
    """Target minus the weighted atoms; one row a token, or several (see `rows`)."""
    squares: Float32[np.ndarray, "row"]
    weights: Float32[np.ndarray, "row"]
    gradients: Float32[np.ndarray, "firing"]
    """Of the loss with respect to the values; a method adds to them in place what else its loss holds."""
    rows: Int32[np.ndarray, "firing"] = field(default_factory=lambda: np.empty(0, np.int32))
    """The row of the residual that a firing explains; empty means that of its token."""


def explain(target: Rows, support: Support, atoms: Atoms, weights: Float32[np.ndarray, "token"]) -> Explained:
    """Return target - sum of value * atom, its squares, and the gradients of the values under the weighted squares."""
    residual = np.empty_like(target)
    squares, gradients = np.empty(len(target), np.float32), np.empty(support.firings, np.float32)
    share_threads()
    kernels.parallel_residuals(
        ranges(), target, support.start, support.latents, support.values, atoms, weights, residual, gradients, squares,
    )  # fmt: skip
    return Explained(support, residual, squares, weights, gradients)


@dataclass(frozen=True, eq=False)
class DenseGradients:
    """Gradients of some latents that no sparse term holds, for instance of all dead ones on all tokens."""

    latents: Int64[np.ndarray, "some"]
    atoms: Float32[np.ndarray, "some feature"]
    encoder: Float32[np.ndarray, "some feature"]
    encoder_bias: Float32[np.ndarray, "some"]

    @classmethod
    def none(cls, d: int) -> "DenseGradients":
        """Return those of no latent."""
        rows = np.empty((0, d), np.float32)
        return cls(np.empty(0, np.int64), rows, rows, np.empty(0, np.float32))


class SparseAdam:
    """Adam on the tensors of an autoencoder with unit atoms, from the firings alone.

    Equal to dense Adam: the rows of latents that did not fire are decayed and moved by their moments in the same pass.
    """

    def __init__(self, parameters: Parameters, candidates: Candidates) -> None:
        """Start with zero moments; `candidates` is kept in step with the encoder of `parameters`."""
        self.parameters = parameters
        self._candidates = candidates
        self._steps = 0
        width, d = parameters.atoms.shape
        self._moments = {
            "atoms": np.zeros((2, width, d), np.float32),
            "encoder": np.zeros((2, width, d), np.float32),
            "encoder_bias": np.zeros((2, width), np.float32),
            "decoder_bias": np.zeros((2, d), np.float32),
        }

    def update(self, centred: Rows, terms: Sequence[Explained], lr: float, extra: DenseGradients | None = None) -> None:
        """Take one step down the summed terms, whose codes are ReLU(encoder centred + bias) on their supports.

        The target of the first term is `centred` itself (its residual holds one row a token, or begins with such
        rows), so that the decoder bias enters it twice; the others' targets do not depend on the decoder bias.
        `extra` are gradients that come on top.
        """
        self._steps += 1
        p = self.parameters
        extra = extra or DenseGradients.none(centred.shape[1])
        entries = self._sorted(terms)
        entries[-1][extra.latents] += extra.encoder_bias
        added = np.full(len(p.atoms), -1, np.int64)
        added[extra.latents] = np.arange(len(extra.latents))
        weights, residual = terms[0].weights[: len(centred)], terms[0].residual[: len(centred)]
        to_centre = -torch.mv(torch.from_numpy(residual).T, torch.from_numpy(weights))
        to_centre -= torch.mv(p.encoder.T, torch.from_numpy(entries[-1]))
        residuals = terms[0].residual if len(terms) == 1 else np.concatenate([term.residual for term in terms])
        numbers = lr / (1 - BETA1**self._steps), BETA1, BETA2, math.sqrt(1 - BETA2**self._steps), EPSILON
        rates = tuple(np.float32(number) for number in numbers)
        share_threads()
        kernels.parallel_update_rows(
            ranges(), entries, centred, residuals, (added, extra.atoms, extra.encoder),
            (p.atoms.numpy(), p.encoder.numpy(), p.encoder_bias.numpy()),
            (self._moments["atoms"], self._moments["encoder"], self._moments["encoder_bias"]),
            self._candidates.rounded, self._candidates.norms,
            rates,
        )  # fmt: skip
        self._move_centre(to_centre.numpy(), rates)

    def moments(self) -> dict[str, Float32[np.ndarray, "..."]]:
        """Return the first and second moments, by tensor."""
        return self._moments

    def state(self) -> dict[str, np.ndarray]:
        """Return the autoencoder, the moments and the number of steps, by name; see `checkpoint.Resumable`."""
        tensors = {name: getattr(self.parameters, name).numpy() for name in self._moments}
        moments = {f"{name}.moments": array for name, array in self._moments.items()}
        return {**tensors, **moments, "adam.steps": np.array(self._steps)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over such a state, in place."""
        for name, moments in self._moments.items():
            getattr(self.parameters, name).numpy()[:] = state[name]
            moments[:] = state[f"{name}.moments"]
        self._steps = int(state["adam.steps"])
        self._candidates.refresh()

    def _sorted(self, terms: Sequence[Explained]) -> tuple[np.ndarray, ...]:
        """Return start, input row, residual row, weighted value and value gradient by latent, and their bias sums."""
        width = len(self.parameters.atoms)
        start = np.zeros(width + 1, np.int64)
        for term in terms:
            kernels.count_latents(term.support.latents, start)
        np.cumsum(start, out=start)
        filled, bias_gradient, n = start[:-1].copy(), np.zeros(width, np.float32), int(start[-1])
        entries = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.float32), np.empty(n, np.float32)
        first_row = 0
        for term in terms:
            s = term.support
            kernels.place_by_latent(
                s.start, s.latents, s.values, term.gradients, term.rows, term.weights, first_row,
                filled, entries, bias_gradient,
            )  # fmt: skip
            first_row += len(term.residual)
        return start, *entries, bias_gradient

    def _move_centre(self, gradient: Float32[np.ndarray, "feature"], rates: tuple[np.float32, ...]) -> None:
        rate, beta1, beta2, root2, epsilon = rates
        first, second = self._moments["decoder_bias"]
        first[:] = beta1 * first + (1 - beta1) * gradient
        second[:] = beta2 * second + (1 - beta2) * np.square(gradient)
        centre = self.parameters.decoder_bias.numpy()
        centre -= rate * first / (np.sqrt(second) / root2 + epsilon)
