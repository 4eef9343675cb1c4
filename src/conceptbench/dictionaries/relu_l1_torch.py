"""ReLU with an L1 penalty in plain torch: the loss and the step by automatic differentiation, on any device."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from conceptbench.dictionaries.autograd import AutogradStep
from conceptbench.dictionaries.learner import TINY, Parameters, squared_norm, total_variation
from conceptbench.dictionaries.relu_l1_fused import ReluOutcome
from conceptbench.dictionaries.relu_l1_loss import ghost_loss, squared_errors
from conceptbench.dictionaries.specs import ReluL1


class TorchReluL1(AutogradStep):
    """The step by automatic differentiation on any device: reference of the fused one, and used on a GPU."""

    def __init__(self, parameters: Parameters, spec: ReluL1) -> None:
        """Start Adam at zero moments."""
        super().__init__(parameters)
        self._spec = spec

    def step(self, x: Float[Tensor, "token feature"], dead: Int64[Tensor, "dead"], lr: float, l1: float) -> ReluOutcome:
        """Learn from one batch; see `FusedReluL1.step`."""
        loss, residual, fires = self._forward(x, dead, l1)
        fvu = squared_norm(residual) / max(total_variation(x), TINY)
        outcome = ReluOutcome(float(loss.detach()), fvu, int(fires.sum()), fires.any(0))
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._apply(lr)
        return outcome

    def _forward(
        self, x: Float[Tensor, "token feature"], dead: Int64[Tensor, "dead"], l1: float
    ) -> tuple[Tensor, Float[Tensor, "token feature"], Bool[Tensor, "token latent"]]:
        """Return the loss, a mean over these tokens, the residual without a graph, and what fires."""
        p = self.parameters
        # (x - decoder_bias) encoder' with no gradient of the size of x: the bias passes through a matrix-vector product
        pre = torch.addmm(p.encoder_bias - p.encoder @ p.decoder_bias, x, p.encoder.T)
        codes = pre.relu()
        residual = x - torch.addmm(p.decoder_bias, codes, p.atoms)
        elements = squared_errors(residual, x, self._spec.norm_divided)
        loss = elements.sum() / len(x) + l1 * codes.sum() / len(x)
        if len(dead):
            loss = loss + ghost_loss(elements, residual, pre[:, dead], p.atoms[dead], self._spec.norm_divided)
        return loss, residual.detach(), codes.detach() > 0
