"""JumpReLU: a learnt threshold for each latent, by pseudo-gradients (Rajamanoharan et al., arXiv 2407.14435)."""

from collections.abc import Iterator
from typing import Any, Final

import torch
from jaxtyping import Float
from torch import Tensor

from conceptbench.dictionaries.autoencoder import AutoencoderLearner, UnitAtoms
from conceptbench.dictionaries.learner import Setting, starting_atoms, to_numpy
from conceptbench.dictionaries.rules import KeepAbove
from conceptbench.dictionaries.specs import JumpRelu

THRESHOLD_RATE: Final = 10.0
"""Factor on the learning rate of the logarithms of the thresholds, which must move by whole units."""


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
        return jump(pre, self._log_threshold.exp(), self._spec.bandwidth)

    def penalty(
        self, pre: Float[Tensor, "token latent"], codes: Float[Tensor, "token latent"], step: int
    ) -> Float[Tensor, ""]:
        """Return the weighted penalty of the specification."""
        spec = self._spec
        rise = min(1.0, (step + 1) / spec.sparsity_warmup_steps) if spec.sparsity_warmup_steps else 1.0
        if spec.penalty == "tanh":
            return spec.sparsity * rise * torch.tanh(spec.tanh_scale * codes).sum() / len(pre)
        l0 = firings(pre, self._log_threshold.exp(), spec.bandwidth).sum() / len(pre)
        if spec.penalty == "target" and spec.k is not None:
            return spec.sparsity * rise * (l0 / spec.k - 1).square()
        return spec.sparsity * rise * l0

    def rule(self, tiles: Iterator[Tensor]) -> KeepAbove:
        """Return the learnt thresholds."""
        return KeepAbove(to_numpy(self._log_threshold.exp()))


def jump_relu_learner(spec: JumpRelu, setting: Setting) -> AutoencoderLearner:
    """Return the learner of JumpReLU."""
    decoder = UnitAtoms(starting_atoms(spec.width, setting, spec.start), setting.device)
    return AutoencoderLearner(spec, setting, Jump(spec, setting.device), decoder, spec.k)
