"""JumpReLU: a learnt threshold for each latent, by pseudo-gradients (Rajamanoharan et al., arXiv 2407.14435)."""

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from conceptbench.dictionaries.autoencoder import AutoencoderLearner, Decoder, UnitAtoms
from conceptbench.dictionaries.autoencoder_sparse import Selected, SparseAutoencoderLearner
from conceptbench.dictionaries.learner import Setting, starting_atoms, to_numpy
from conceptbench.dictionaries.relu_l1_fused import DENSE_SHARE
from conceptbench.dictionaries.rules import KeepAbove
from conceptbench.dictionaries.schedules import ramp
from conceptbench.dictionaries.sparse_step import Rows
from conceptbench.dictionaries.specs import JumpRelu
from conceptbench.dictionaries.support import Support

THRESHOLD_RATE: Final = 10.0
"""Factor on the learning rate of the logarithms of the thresholds, which must move by whole units."""
BELOW: Final = np.float32(1 - 1e-5)
"""Windows are entered a little below their lower end, whatever rounding does; what is not in them has no gradient."""


class _Jump(torch.autograd.Function):
    """h 1[h > theta]; its pseudo-derivative in theta is -(theta / eps) K((h - theta) / eps), K the unit rectangle."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        """Return the codes."""
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return torch.where(pre > threshold, pre, pre.new_zeros(()))

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, Tensor, None]:
        """Return the gradients of pre-activations and thresholds."""
        pre, threshold = ctx.saved_tensors
        near = ((pre - threshold).abs() <= ctx.bandwidth / 2) * gradients[0]
        return gradients[0] * (pre > threshold), -(threshold / ctx.bandwidth) * near.sum(0), None


class _Step(torch.autograd.Function):
    """1[h > theta]; its pseudo-derivative in theta is -(1 / eps) K((h - theta) / eps), that in h is 0."""

    @staticmethod
    def forward(ctx: Any, pre: Tensor, threshold: Tensor, bandwidth: float) -> Tensor:
        """Return 1 where a latent fires."""
        ctx.save_for_backward(pre, threshold)
        ctx.bandwidth = bandwidth
        return (pre > threshold).to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[None, Tensor, None]:
        """Return the gradient of the thresholds."""
        pre, threshold = ctx.saved_tensors
        near = ((pre - threshold).abs() <= ctx.bandwidth / 2) * gradients[0]
        return None, -near.sum(0) / ctx.bandwidth, None


def jump(
    pre: Float[Tensor, "token latent"], threshold: Float[Tensor, "latent"], bandwidth: float
) -> Float[Tensor, "token latent"]:
    """Return h 1[h > theta], differentiable in both by the pseudo-gradient of the paper's eq. 11."""
    codes: Tensor = _Jump.apply(pre, threshold, bandwidth)
    return codes


def firings(
    pre: Float[Tensor, "token latent"], threshold: Float[Tensor, "latent"], bandwidth: float
) -> Float[Tensor, "token latent"]:
    """Return 1[h > theta], differentiable in theta by the pseudo-gradient of the paper's eq. 12."""
    fires: Tensor = _Step.apply(pre, threshold, bandwidth)
    return fires


class Jump:
    """Latents above their own thresholds, which are learnt as logarithms so that they stay positive."""

    def __init__(self, spec: JumpRelu, device: torch.device) -> None:
        """Start with equal thresholds."""
        self._spec = spec
        start = torch.full((spec.width,), spec.threshold, device=device)
        self._log_threshold = start.log().requires_grad_()

    def parameters(self) -> list[tuple[Tensor, float]]:
        """Return the logarithms of the thresholds."""
        return [(self._log_threshold, THRESHOLD_RATE)]

    def codes(self, pre: Float[Tensor, "token latent"]) -> Float[Tensor, "token latent"]:
        """Return the codes."""
        return jump(pre, self.thresholds(), self.bandwidth)

    def penalty(
        self, pre: Float[Tensor, "token latent"], codes: Float[Tensor, "token latent"], step: int
    ) -> Float[Tensor, ""]:
        """Return the weighted penalty of the specification."""
        return self.penalise(codes, lambda: firings(pre, self.thresholds(), self.bandwidth), len(pre), step)

    def penalise(
        self,
        codes: Float[Tensor, "*firing"],
        fires: Callable[[], Float[Tensor, "*firing"]],
        tokens: int,
        step: int,
    ) -> Float[Tensor, ""]:
        """Return the weighted penalty of codes, the zeros of which may be left out; `fires` is 1 where they are not."""
        spec = self._spec
        weight = spec.sparsity * ramp(step, spec.sparsity_warmup_steps)
        if spec.penalty == "tanh":
            return weight * torch.tanh(spec.tanh_scale * codes).sum() / tokens
        l0 = fires().sum() / tokens
        if spec.penalty == "target" and spec.k is not None:
            return weight * (l0 / spec.k - 1).square()
        return weight * l0

    @property
    def bandwidth(self) -> float:
        """Width of the window around a threshold."""
        return self._spec.bandwidth

    def thresholds(self) -> Float[Tensor, "latent"]:
        """Return the thresholds, differentiable in their logarithms."""
        return self._log_threshold.exp()

    def rule(self, tiles: Iterator[Tensor]) -> KeepAbove:
        """Return the learnt thresholds."""
        return KeepAbove(to_numpy(self.thresholds()))


class SparseJumpLearner(SparseAutoencoderLearner):
    """What fires, and what lies in the window below its threshold, is all that has a gradient.

    A window that reaches below 0 holds pre-activations that sparse selection leaves out, and where many lie in the
    windows sparse loops take longer than products: such a step is dense.
    """

    def __init__(self, spec: JumpRelu, setting: Setting, selection: Jump, decoder: Decoder) -> None:
        """Start as the reference does."""
        super().__init__(spec, setting, selection, decoder, spec.k)
        self._jump = selection

    def _select(self, centred: Rows) -> Selected | None:
        selection, tokens = self._jump, len(centred)
        lowest = to_numpy(selection.thresholds() - selection.bandwidth / 2)
        if lowest.min() <= 0:
            return None
        near = self._candidates.above(centred, lowest * BELOW)
        if near.firings > DENSE_SHARE * tokens * len(lowest):
            return None
        pre = torch.from_numpy(near.values)[None].requires_grad_()
        thresholds = selection.thresholds()[torch.from_numpy(near.latents).long()]
        codes = jump(pre, thresholds, selection.bandwidth)

        def through(gradients: Float32[np.ndarray, "firing"]) -> float:
            """Pass the gradients of the codes on to pre-activations and thresholds."""
            penalty = selection.penalise(
                codes, lambda: firings(pre, thresholds, selection.bandwidth), tokens, self._steps
            )
            given = torch.from_numpy(gradients.copy())[None]
            torch.autograd.backward([codes, penalty], [given, torch.ones(())])
            gradients[:] = 0 if pre.grad is None else pre.grad[0].numpy()
            return float(penalty.detach())

        return Selected(Support(near.start, near.latents, codes.detach()[0].numpy()), through)


def jump_relu_learner(spec: JumpRelu, setting: Setting) -> AutoencoderLearner:
    """Return the learner of JumpReLU: the sparse step on a CPU, plain torch elsewhere."""
    decoder = UnitAtoms(starting_atoms(spec.width, setting, spec.start), setting.device)
    selection = Jump(spec, setting.device)
    if setting.device.type == "cpu":
        return SparseJumpLearner(spec, setting, selection, decoder)
    return AutoencoderLearner(spec, setting, selection, decoder, spec.k)
