"""TopK with AuxK in plain torch: the losses and the step by automatic differentiation, on any device."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import embedding_bag

from conceptbench.dictionaries.autograd import AutogradStep
from conceptbench.dictionaries.learner import TINY, Parameters, total_variation
from conceptbench.dictionaries.specs import TopK
from conceptbench.dictionaries.topk_fused import TopKOutcome


def aux_loss(
    residual: Float[Tensor, "token feature"],
    dead_pre: Float[Tensor, "token dead"],
    dead_atoms: Float[Tensor, "dead feature"],
    aux_k: int,
) -> Tensor:
    """Return ||e' - e||^2 / ||e - mean(e)||^2 where e' predicts the residual e from its `aux_k` strongest dead latents.

    The prediction has no decoder bias (the residual has none), and the residual is a constant. The loss is 0 when
    nothing is dead or the residual does not vary (Gao et al., arXiv 2406.04093, appendix A.2).
    """
    target = residual.detach()
    spread = total_variation(target)
    if not len(dead_atoms) or not spread > 0:
        return residual.new_zeros(())
    return aux_error(target, dead_pre, dead_atoms, aux_k) / spread


def aux_error(
    target: Float[Tensor, "token feature"],
    dead_pre: Float[Tensor, "token dead"],
    dead_atoms: Float[Tensor, "dead feature"],
    aux_k: int,
) -> Tensor:
    """Return ||e' - e||^2 of `aux_loss`, where `target` is e; some latents are dead."""
    values, slots = dead_pre.topk(min(aux_k, len(dead_atoms)), dim=1, sorted=False)
    prediction = embedding_bag(slots, dead_atoms, per_sample_weights=values.relu(), mode="sum")
    return (prediction - target).square().sum()


class TorchTopK(AutogradStep):
    """The same step by automatic differentiation on any device: reference of the others, used where neither runs."""

    def __init__(self, parameters: Parameters, spec: TopK) -> None:
        """Start Adam at zero moments."""
        super().__init__(parameters)
        self._spec = spec
        self._aux_k = spec.aux_k or max(1, parameters.atoms.shape[1] // 2)

    def step(
        self, x: Float[Tensor, "token feature"], dead: Int64[Tensor, "dead"], lr: float, k: int | None = None
    ) -> TopKOutcome:
        """Learn from one batch; see `FusedTopK.step`."""
        p = self.parameters
        # (x - decoder_bias) encoder' with no gradient of the size of x: the bias passes through a matrix-vector product
        pre = torch.addmm(p.encoder_bias - p.encoder @ p.decoder_bias, x, p.encoder.T)
        top = pre.topk(k or self._spec.k, dim=1, sorted=False)
        values = top.values.relu()
        residual = x - p.decoder_bias - embedding_bag(top.indices, p.atoms, per_sample_weights=values, mode="sum")
        loss = residual.square().sum() / max(total_variation(x), TINY)
        fvu = float(loss.detach())
        if self._spec.aux_alpha > 0:
            loss = loss + self._spec.aux_alpha * aux_loss(residual, pre[:, dead], p.atoms[dead], self._aux_k)
        fired = torch.zeros(len(p.atoms), dtype=torch.bool, device=x.device)
        fired[top.indices[values > 0]] = True
        outcome = TopKOutcome(float(loss.detach()), fvu, int((values > 0).sum()), fired)
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self._apply(lr)
        return outcome
