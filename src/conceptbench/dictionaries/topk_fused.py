"""The TopK step on a CPU with exact gradients and nothing dense besides the encoder product.

Sparse: the decoder product, the gradient of the kept values, and both weight gradients, which are accumulated,
projected and applied row by row. The gradient of the decoder bias through the encoder is a matrix-vector product,
because the sum over tokens is taken before the product.
"""

import math
from dataclasses import dataclass
from typing import Final

import numba
import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from conceptbench.dictionaries import kernels
from conceptbench.dictionaries.learner import TINY, Parameters, squared_norm, total_variation
from conceptbench.dictionaries.specs import TopK

TILE_VALUES: Final = 4 << 20
BETA1: Final = 0.9
BETA2: Final = 0.999
EPSILON: Final = 1e-8
PARTS_PER_THREAD: Final = 8


@dataclass(frozen=True, eq=False)
class TopKOutcome:
    """What a step found before it changed the parameters."""

    loss: float
    fvu: float
    """Squared residual over squared distance to the mean, of the batch."""
    firings: int
    fired: Bool[Tensor, "latent"]


@dataclass(frozen=True, eq=False)
class _Part:
    """One reconstruction: of the tokens by the chosen latents, or of the residual by dead ones."""

    latents: Int64[Tensor, "token slot"]
    values: Float[Tensor, "token slot"]
    value_gradients: Float[Tensor, "token slot"]
    residual: Float[Tensor, "token feature"]


class FusedTopK:
    """Parameters with the moments of Adam, and the step that updates them in place."""

    def __init__(self, parameters: Parameters, spec: TopK) -> None:
        """Start Adam at zero moments."""
        self.parameters = parameters
        self._spec = spec
        self._steps = 0
        width, d = parameters.atoms.shape
        self._aux_k = spec.aux_k or max(1, d // 2)
        self._atom_moments, self._encoder_moments = np.zeros((2, 2, width, d), np.float32)
        self._bias_moments = np.zeros((2, width), np.float32)
        self._centre = torch.optim.Adam([parameters.decoder_bias], betas=(BETA1, BETA2), eps=EPSILON)

    def step(self, x: Float[Tensor, "token feature"], dead: Int64[Tensor, "dead"], lr: float) -> TopKOutcome:
        """Learn from one batch: loss = ||e||^2 / ||x - mean||^2 + aux_alpha ||e' - e||^2 / ||e - mean||^2."""
        _share_threads()
        width = len(self.parameters.atoms)
        centred = x - self.parameters.decoder_bias
        chosen, auxiliary = self._choose(centred, dead)
        main = self._reconstruct(centred, *chosen)
        squares, variation = squared_norm(main.residual), max(total_variation(x), TINY)
        scales = [1 / variation]
        loss = squares * scales[0]
        parts = [main]
        spread = total_variation(main.residual) if auxiliary else 0.0
        if auxiliary and spread > 0:
            parts.append(self._reconstruct(main.residual, *auxiliary))
            scales.append(self._spec.aux_alpha / spread)
            loss += squared_norm(parts[1].residual) * scales[1]
        fired = torch.zeros(width, dtype=torch.bool)
        fired[main.latents[main.values > 0]] = True
        outcome = TopKOutcome(loss, squares / variation, int((main.values > 0).sum()), fired)
        if math.isfinite(loss):
            self._update(centred, parts, np.array([2 * scale for scale in scales], np.float32), lr)
        return outcome

    def _choose(
        self, centred: Float[Tensor, "token feature"], dead: Int64[Tensor, "dead"]
    ) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor] | None]:
        """Return (latents, values) of the k largest pre-activations, and of the largest among dead latents."""
        p, k = self.parameters, self._spec.k
        slots = min(self._aux_k, len(dead)) if self._spec.aux_alpha > 0 else 0
        height = max(1, TILE_VALUES // len(p.atoms))
        kept, extra = [], []
        for tile in torch.split(centred, height):
            pre = torch.addmm(p.encoder_bias, tile, p.encoder.T)
            kept.append(pre.topk(k, dim=1, sorted=False))
            if slots:
                extra.append(pre[:, dead].topk(slots, dim=1, sorted=False))
        chosen = torch.cat([top.indices for top in kept]), torch.cat([top.values for top in kept])
        if not slots:
            return chosen, None
        return chosen, (dead[torch.cat([top.indices for top in extra])], torch.cat([top.values for top in extra]))

    def _reconstruct(self, target: Tensor, latents: Tensor, values: Tensor) -> _Part:
        residual, gradients = torch.empty_like(target), torch.empty_like(values)
        arrays = [t.numpy() for t in (target, latents, values, self.parameters.atoms, residual, gradients)]
        if parts := _parts():
            kernels.parallel_residuals(parts, *arrays)
        else:
            kernels.residuals(0, len(target), *arrays)
        return _Part(latents, values, gradients, residual)

    def _update(self, centred: Tensor, parts: list[_Part], weights: np.ndarray, lr: float) -> None:
        p, tokens = self.parameters, len(centred)
        self._steps += 1
        rows = torch.cat(
            [
                torch.arange(i * tokens, (i + 1) * tokens, dtype=torch.int32).repeat_interleave(part.latents.shape[1])
                for i, part in enumerate(parts)
            ]
        )
        latents, values, gradients = (
            torch.cat([slots.flatten() for slots in same]).numpy()
            for same in zip(*((part.latents, part.values, part.value_gradients) for part in parts), strict=True)
        )
        slots = kernels.group_by_latent(rows.numpy(), latents, values, gradients, weights, tokens, len(p.atoms))
        bias_gradient = torch.from_numpy(slots[-1])
        # the decoder bias enters the main reconstruction and, negated, the encoder's input; both with old weights
        p.decoder_bias.grad = -float(weights[0]) * parts[0].residual.sum(0) - bias_gradient @ p.encoder
        residual = parts[0].residual if len(parts) == 1 else torch.cat([part.residual for part in parts])
        rate, root2 = lr / (1 - BETA1**self._steps), math.sqrt(1 - BETA2**self._steps)
        arrays = (
            slots, centred.numpy(), residual.numpy(),
            (p.atoms.numpy(), p.encoder.numpy(), p.encoder_bias.numpy()),
            (self._atom_moments, self._encoder_moments, self._bias_moments),
            tuple(np.float32(number) for number in (rate, BETA1, BETA2, root2, EPSILON)),
        )  # fmt: skip
        if shares := _parts():
            kernels.parallel_update_rows(shares, *arrays)
        else:
            kernels.update_rows(0, len(p.atoms), *arrays)
        self._centre.param_groups[0]["lr"] = lr
        self._centre.step()


def _share_threads() -> None:
    """Let the compiled loops use as many threads as torch does.

    The two share one OpenMP runtime, whose thread count numba resets when it starts.
    """
    threads = torch.get_num_threads()
    if threads > 1:
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]
        torch.set_num_threads(threads)


def _parts() -> int:
    """Return into how many ranges a loop is cut; 0 for one thread, which then has no other to wait for."""
    threads = torch.get_num_threads()
    return PARTS_PER_THREAD * threads if threads > 1 else 0
