"""The ReLU-L1 step on a CPU: sparse where few latents fire, by tiles of tokens where many do; exact either way."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from conceptbench.dictionaries.candidates import Candidates
from conceptbench.dictionaries.learner import TINY, Parameters, Precision
from conceptbench.dictionaries.relu_l1_loss import ghost_loss, squared_errors
from conceptbench.dictionaries.sparse_step import Centred, DenseGradients, Explained, SparseAdam, explain
from conceptbench.dictionaries.specs import ReluL1
from conceptbench.dictionaries.support import Support

DENSE_SHARE: Final = 0.1
"""With a larger share of firing latents, five dense products take less time than the sparse loops."""
TILE_VALUES: Final = 16 << 20


@dataclass(frozen=True, eq=False)
class ReluOutcome:
    """What a step found before it changed the parameters."""

    loss: float
    fvu: float
    """Squared residual over squared distance to the mean, of the batch."""
    firings: int
    fired: Bool[Tensor, "latent"]


@dataclass(frozen=True, eq=False)
class _Forward:
    """The reconstruction loss with its L1 penalty: one term, the gradients that are not in it, what fired."""

    term: Explained
    dense: list[DenseGradients]
    code_sum: float
    firings: int
    fired: Bool[np.ndarray, "latent"]


class FusedReluL1:
    """Parameters with the moments of Adam, and the step that updates them in place."""

    def __init__(self, parameters: Parameters, spec: ReluL1, precision: Precision = "auto") -> None:
        """Start Adam at zero moments, and with the dense form of the step."""
        self.parameters = parameters
        self._spec = spec
        self._candidates = Candidates(parameters.encoder, parameters.encoder_bias, precision)
        self._adam = SparseAdam(parameters, self._candidates)
        self._share = 1.0

    def step(self, x: Float[Tensor, "token feature"], dead: Int64[Tensor, "dead"], lr: float, l1: float) -> ReluOutcome:
        """Learn from one batch; `l1` is the weight of the penalty on this step."""
        centred = Centred.of(x.numpy(), self.parameters.decoder_bias.numpy())
        weights = self._weights(x)
        forward = (self._dense if self._share > DENSE_SHARE else self._sparse)(centred.rows, weights, l1)
        squares = forward.term.squares.astype(np.float64)
        loss = float(weights @ squares) / 2 + l1 * forward.code_sum / len(x)
        if not self._candidates.finite():
            loss = math.nan
        dense = forward.dense
        if len(dead):
            ghost, gradients = self._ghosts(x, centred.rows, forward.term.residual, dead)
            loss += ghost
            dense = [*dense, gradients]
        outcome = ReluOutcome(
            loss, float(squares.sum()) / max(centred.variation, TINY), forward.firings, torch.from_numpy(forward.fired)
        )
        if math.isfinite(loss):
            self._adam.update(centred.rows, [forward.term], lr, _joined(dense))
        self._share = forward.firings / (len(x) * len(forward.fired))
        return outcome

    def state(self) -> dict[str, np.ndarray]:
        """Return all that steps have changed; see `checkpoint.Resumable`."""
        return {**self._adam.state(), "share": np.array(self._share)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over such a state."""
        self._adam.restore(state)
        self._share = float(state["share"])

    def _weights(self, x: Float[Tensor, "token feature"]) -> Float32[np.ndarray, "token"]:
        """Return twice the factor of each token's squared error in the loss; see `squared_errors`."""
        if not self._spec.norm_divided:
            return np.full(len(x), 2 / len(x), np.float32)
        scale: np.ndarray = (2 / (x.norm(dim=1).clamp_min(TINY) * x.shape[1] * len(x))).numpy()
        return scale

    def _sparse(self, centred: Float32[np.ndarray, "token feature"], weights: np.ndarray, l1: float) -> _Forward:
        width = len(self.parameters.atoms)
        support = self._candidates.above(centred, np.zeros(width, np.float32))
        term = explain(centred, support, self.parameters.atoms.numpy(), weights)
        term.gradients[:] += np.float32(l1 / len(centred))
        code_sum = float(support.values.sum(dtype=np.float64))
        return _Forward(term, [], code_sum, support.firings, support.fired(width))

    def _dense(self, centred: Float32[np.ndarray, "token feature"], weights: np.ndarray, l1: float) -> _Forward:
        """Do the same by products of tiles of tokens with all latents."""
        tokens, width = len(centred), len(self.parameters.atoms)
        residual, code_sum = torch.empty(centred.shape), torch.zeros((), dtype=torch.float64)
        fired, firings = torch.zeros(width, dtype=torch.bool), 0

        def loss_of(rows: slice, pre: Tensor, atoms: Tensor) -> Tensor:
            """Keep the residual and what fires; return the loss of some tokens."""
            nonlocal firings
            codes = pre.relu()
            error = torch.from_numpy(centred[rows]) - codes @ atoms
            fires = codes.detach() > 0
            residual[rows] = error.detach()
            code_sum.add_(codes.detach().sum(dtype=torch.float64))
            fired.logical_or_(fires.any(0))
            firings += int(fires.sum())
            return (torch.from_numpy(weights[rows]) / 2) @ error.square().sum(1) + l1 / tokens * codes.sum()

        gradients = self._by_tiles(centred, torch.arange(width), loss_of)[1]
        squares = residual.square().sum(1).numpy()
        nothing = np.empty(0, np.float32)
        term = Explained(Support.empty(tokens), residual.numpy(), squares, weights, nothing)
        return _Forward(term, [gradients], float(code_sum), firings, fired.numpy())

    def _ghosts(
        self,
        x: Tensor,
        centred: Float32[np.ndarray, "token feature"],
        residual: np.ndarray,
        dead: Int64[Tensor, "dead"],
    ) -> tuple[float, DenseGradients]:
        """Return the ghost term and the gradients of dead latents, all of which fire on all tokens."""
        divided = self._spec.norm_divided
        error = torch.from_numpy(residual)

        def loss_of(rows: slice, pre: Tensor, atoms: Tensor) -> Tensor:
            """Return the ghost loss of some tokens, as a share of all."""
            part = error[rows]
            elements = squared_errors(part, x[rows], divided)
            return ghost_loss(elements, part, pre, atoms, divided) * (len(part) / len(x))

        return self._by_tiles(centred, dead, loss_of)

    def _by_tiles(
        self, centred: Float32[np.ndarray, "token feature"], latents: Int64[Tensor, "some"],
        loss_of: Callable[[slice, Tensor, Tensor], Tensor],
    ) -> tuple[float, DenseGradients]:  # fmt: skip
        """Return the loss summed over tiles of tokens, given what some latents make of them, and its gradients."""
        p = self.parameters
        everything = len(latents) == len(p.atoms)
        chosen = [t if everything else t[latents] for t in (p.atoms, p.encoder, p.encoder_bias)]
        atoms, encoder, bias = (tensor.detach().requires_grad_() for tensor in chosen)
        total = 0.0
        for rows in _tiles(len(centred), len(latents)):
            pre = torch.addmm(bias, torch.from_numpy(centred[rows]), encoder.T)
            loss = loss_of(rows, pre, atoms)
            loss.backward()  # type: ignore[no-untyped-call]
            total += float(loss.detach())
        gradients = [
            np.zeros(t.shape, np.float32) if t.grad is None else t.grad.numpy() for t in (atoms, encoder, bias)
        ]
        return total, DenseGradients(latents.numpy(), *gradients)


def _tiles(tokens: int, latents: int) -> Iterator[slice]:
    height = max(1, TILE_VALUES // latents)
    for start in range(0, tokens, height):
        yield slice(start, min(tokens, start + height))


def _joined(parts: list[DenseGradients]) -> DenseGradients | None:
    """Return the sum of gradients: those of all latents first, then of some."""
    if len(parts) < 2:
        return parts[0] if parts else None
    whole, some = parts
    whole.atoms[some.latents] += some.atoms
    whole.encoder[some.latents] += some.encoder
    whole.encoder_bias[some.latents] += some.encoder_bias
    return whole
