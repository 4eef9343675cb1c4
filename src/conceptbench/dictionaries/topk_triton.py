"""The TopK step on a GPU by Triton: exact gradients, and nothing of size tokens x width is kept beyond a tile.

The parts are those of the step on a CPU (`topk_fused`, `sparse_step`): the strongest latents of every token, chosen
from tiles of the encoder product; the residual with the gradients of the values; the firings in the order of their
latents; and one pass over the latents that accumulates, projects, applies and normalises. Nothing waits for the GPU
but the numbers that a step reports, which decide whether the parameters move.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Float64, Int64
from torch import Tensor
from triton import next_power_of_2

from conceptbench.dictionaries import triton_kernels
from conceptbench.dictionaries.learner import TINY, Parameters
from conceptbench.dictionaries.sparse_step import BETA1, BETA2, EPSILON
from conceptbench.dictionaries.specs import TopK
from conceptbench.dictionaries.topk_fused import TopKOutcome

TILE_BYTES: Final = 256 << 20
"""Most memory for the pre-activations of a tile of tokens; those of its dead latents take as much again at most."""
BLOCK_VALUES: Final = 8192
"""Numbers that a program reads at once: with MAX_WARPS warps 32 registers a thread."""
MAX_CHUNK: Final = 32
MAX_WARPS: Final = 8
LANES: Final = 32
"""Threads of a warp."""
FUSED: Final = {"enable_fp_fusion": True}
"""Products are added without rounding in between; asked for, because versions of Triton differ in what they do else."""


class TritonTopK:
    """Parameters with the moments of Adam, and the step that updates them in place, by kernels for a GPU.

    Equal to `FusedTopK` up to the order of sums, and to the choice among equal pre-activations. The encoder product has
    the precision that torch is set to for float32, which is float32 itself unless the caller has allowed TF32.
    """

    def __init__(self, parameters: Parameters, spec: TopK) -> None:
        """Start Adam at zero moments."""
        self.parameters = parameters
        self._spec = spec
        self._aux_k = spec.aux_k or max(1, parameters.atoms.shape[1] // 2)
        self.adam = TritonAdam(parameters)

    def step(
        self, x: Float[Tensor, "token feature"], dead: Int64[Tensor, "dead"], lr: float, k: int | None = None
    ) -> TopKOutcome:
        """Learn from one batch; see `FusedTopK.step`."""
        p, alpha = self.parameters, self._spec.aux_alpha
        centred = (x - p.decoder_bias).contiguous()
        variation = spread(centred).clamp_min(TINY)
        kept, revived = strongest(centred, p, k or self._spec.k, dead if alpha > 0 else dead[:0], self._aux_k)
        terms = [explain(centred, kept, p.atoms, 2 / variation)]
        fvu = loss = terms[0].squares.sum(dtype=torch.float64) / variation
        if revived is not None:
            residual = terms[0].residual
            unexplained = spread(residual)
            scale = torch.where(unexplained > 0, alpha / unexplained, 0.0)
            terms.append(explain(residual, revived, p.atoms, 2 * scale))
            loss = loss + scale * terms[1].squares.sum(dtype=torch.float64)
        loss = torch.where(_finite(p.encoder) & _finite(p.encoder_bias), loss, math.nan)
        loss_now, fvu_now, firings = torch.stack([loss, fvu, kept.firings().double()]).tolist()
        if math.isfinite(loss_now):
            self.adam.update(centred, terms, lr)
        return TopKOutcome(loss_now, fvu_now, int(firings), kept.fired(len(p.atoms)))

    def state(self) -> dict[str, np.ndarray]:
        """Return all that steps have changed; see `checkpoint.Resumable`."""
        return self.adam.state()

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over such a state."""
        self.adam.restore(state)


@dataclass(frozen=True, eq=False)
class Slots:
    """As many latents for each token as for any other; those with a positive value fire."""

    latents: Int64[Tensor, "token slot"]
    values: Float32[Tensor, "token slot"]

    def firings(self) -> Int64[Tensor, ""]:
        """Return how many slots fire."""
        return (self.values > 0).sum()

    def keys(self, width: int) -> Int64[Tensor, "entry"]:
        """Return the latents that fire, and `width` for a slot that does not."""
        return torch.where(self.values > 0, self.latents, width).flatten()

    def fired(self, width: int) -> Bool[Tensor, "latent"]:
        """Return which of `width` latents fire on at least one token."""
        fires = torch.zeros(width + 1, dtype=torch.bool, device=self.values.device)
        return fires.index_fill_(0, self.keys(width), True)[:width]


@dataclass(frozen=True, eq=False)
class Term:
    """One term of a loss: weight / 2 * sum over tokens of squares, where squares are those of the residual."""

    slots: Slots
    weight: Float32[Tensor, ""]
    residual: Float32[Tensor, "token feature"]
    squares: Float32[Tensor, "token"]
    gradients: Float32[Tensor, "token slot"]
    """Of the loss with respect to the values."""


def strongest(
    centred: Float32[Tensor, "token feature"], p: Parameters, k: int, dead: Int64[Tensor, "dead"], aux_k: int
) -> tuple[Slots, Slots | None]:
    """Return the k largest pre-activations of each token, and the `aux_k` largest of dead latents where there are any.

    Both come from the same product, tile by tile. Values below 0 become 0.
    """
    height = max(1, min(len(centred), TILE_BYTES // (4 * len(p.encoder))))
    pre = centred.new_empty(height, len(p.encoder))
    kept, revived = [], []
    for tile in torch.split(centred, height):
        torch.addmm(p.encoder_bias, tile, p.encoder.T, out=pre[: len(tile)])
        kept.append(pre[: len(tile)].topk(k, dim=1, sorted=False))
        if len(dead):
            of_dead = pre[: len(tile)].index_select(1, dead)
            revived.append(of_dead.topk(min(aux_k, len(dead)), dim=1, sorted=False))
    chosen = [
        Slots(torch.cat([top.indices for top in tops]), torch.cat([top.values for top in tops]).relu_())
        for tops in (kept, revived)
        if tops
    ]
    return chosen[0], Slots(dead[chosen[1].latents], chosen[1].values) if revived else None


def explain(
    target: Float32[Tensor, "token feature"], slots: Slots, atoms: Float32[Tensor, "latent feature"],
    weight: Float64[Tensor, ""],
) -> Term:  # fmt: skip
    """Return target - sum of value * atom, its squares, and the gradients of the values under the weighted squares."""
    (tokens, d), weight = target.shape, weight.float()
    residual, squares, gradients = torch.empty_like(target), target.new_empty(tokens), torch.empty_like(slots.values)
    with _device_of(target):
        triton_kernels.explain_tokens[(tokens,)](
            target, slots.latents, slots.values, atoms, weight, residual, squares, gradients, d,
            slots.values.shape[1], **_shape(d),
        )  # fmt: skip
    return Term(slots, weight, residual, squares, gradients)


class TritonAdam:
    """Adam on the tensors of an autoencoder with unit atoms, from the firings alone; see `sparse_step.SparseAdam`."""

    def __init__(self, parameters: Parameters) -> None:
        """Start with zero moments."""
        self.parameters = parameters
        self._steps = 0
        names = "atoms", "encoder", "encoder_bias", "decoder_bias"
        tensors = {name: getattr(parameters, name) for name in names}
        self._moments = {name: tensor.new_zeros(2, *tensor.shape) for name, tensor in tensors.items()}

    def update(self, centred: Float32[Tensor, "token feature"], terms: Sequence[Term], lr: float) -> None:
        """Take one step down the summed terms, whose codes are ReLU(encoder centred + bias) on their slots.

        The target of the first term is `centred` itself, so that the decoder bias enters it twice; the others' targets
        do not depend on the decoder bias.
        """
        self._steps += 1
        p, (tokens, d), width = self.parameters, centred.shape, len(self.parameters.atoms)
        start, rows, coefficients, gradients = _by_latent(terms, width)
        residuals = torch.cat([term.residual for term in terms])
        rates = lr / (1 - BETA1**self._steps), BETA1, BETA2, math.sqrt(1 - BETA2**self._steps), EPSILON
        sums = centred.new_empty(width)
        with _device_of(centred):
            triton_kernels.sum_firings[(width,)](start, gradients, sums, CHUNK=MAX_CHUNK, num_warps=1, **FUSED)
            to_centre = -terms[0].weight * terms[0].residual.sum(0) - torch.mv(p.encoder.T, sums)
            triton_kernels.update_latents[(width,)](
                start, rows, coefficients, gradients, sums, centred, residuals, p.atoms, p.encoder, p.encoder_bias,
                self._moments["atoms"], self._moments["encoder"], self._moments["encoder_bias"], *rates, tokens, d,
                **_shape(d),
            )  # fmt: skip
        self._move_centre(to_centre, rates)

    def moments(self) -> dict[str, Float32[Tensor, "..."]]:
        """Return the first and second moments, by tensor."""
        return self._moments

    def state(self) -> dict[str, np.ndarray]:
        """Return the autoencoder, the moments and the number of steps, under the names of `SparseAdam.state`."""
        tensors = {name: getattr(self.parameters, name).cpu().numpy() for name in self._moments}
        moments = {f"{name}.moments": tensor.cpu().numpy() for name, tensor in self._moments.items()}
        return {**tensors, **moments, "adam.steps": np.array(self._steps)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over such a state, in place."""
        for name, moments in self._moments.items():
            getattr(self.parameters, name).copy_(torch.from_numpy(state[name]))
            moments.copy_(torch.from_numpy(state[f"{name}.moments"]))
        self._steps = int(state["adam.steps"])

    def _move_centre(self, gradient: Float32[Tensor, "feature"], rates: tuple[float, ...]) -> None:
        rate, beta1, beta2, root2, epsilon = rates
        first, second = self._moments["decoder_bias"]
        first.mul_(beta1).add_(gradient, alpha=1 - beta1)
        second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        self.parameters.decoder_bias.addcdiv_(first, second.sqrt().div_(root2).add_(epsilon), value=-rate)


def spread(rows: Float32[Tensor, "row feature"]) -> Float64[Tensor, ""]:
    """Return the summed squared distance to the mean: exactly 0 for equal rows."""
    apart = rows - rows[0]
    return (apart - apart.mean(0)).square().sum(dtype=torch.float64)


def _by_latent(terms: Sequence[Term], width: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return start (m + 1) by latent, then row of all residuals, weighted value and its gradient in that order.

    The order within a latent is that of terms and tokens. Slots that do not fire come last, from start[m] on.
    """
    tokens, device = len(terms[0].residual), terms[0].residual.device
    latents, order = torch.sort(torch.cat([term.slots.keys(width) for term in terms]), stable=True)
    start = torch.searchsorted(latents, torch.arange(width + 1, device=device))
    rows = [
        torch.arange(i * tokens, (i + 1) * tokens, device=device)[:, None].expand_as(term.gradients)
        for i, term in enumerate(terms)
    ]
    coefficients = [term.weight * term.slots.values for term in terms]
    gradients = [term.gradients for term in terms]
    in_order = [torch.cat([part.flatten() for part in parts])[order] for parts in (rows, coefficients, gradients)]
    return start, in_order[0], in_order[1], in_order[2]


def _device_of(tensor: Tensor) -> AbstractContextManager[None]:
    """Return a context for starting kernels: Triton takes the current device, wherever the tensors are."""
    context: AbstractContextManager[None] = torch.cuda.device_of(tensor)  # type: ignore[no-untyped-call]
    return context


def _finite(tensor: Tensor) -> Tensor:
    """Return whether no entry is NaN or infinite, in one pass and without a tensor of that size."""
    largest: Tensor = torch.linalg.vector_norm(tensor, math.inf)
    return largest.isfinite()


def _shape(d: int) -> dict[str, int]:
    """Return the block of a program for rows of d features, and how it is compiled.

    No two threads hold the same feature, because a second one might read a moment after the first has written it.
    """
    features = max(LANES, next_power_of_2(d))
    chunk = max(1, min(MAX_CHUNK, BLOCK_VALUES // features))
    return {"FEATURES": features, "CHUNK": chunk, "num_warps": min(MAX_WARPS, features // LANES), **FUSED}
