"""Data-parallel steps: processes divide every batch among themselves and add up their gradients before each step.

Losses are sums over tokens divided by a number that belongs to the whole batch, so the sum of the processes' gradients
is the gradient of the whole batch, up to the order of floating-point sums. Each process takes every n-th token.
"""

import torch
import torch.distributed as dist
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import embedding_bag

from conceptbench.dictionaries.autograd import AutogradStep
from conceptbench.dictionaries.learner import TINY, Parameters, total_variation
from conceptbench.dictionaries.relu_l1_fused import ReluOutcome
from conceptbench.dictionaries.relu_l1_torch import TorchReluL1
from conceptbench.dictionaries.specs import ReluL1, TopK
from conceptbench.dictionaries.topk_fused import TopKOutcome
from conceptbench.dictionaries.topk_torch import TorchTopK, aux_error
from conceptbench.errors import ConceptBenchError


class _Divided(AutogradStep):
    """Adam on the summed gradients of all processes."""

    def _descend(self, loss: Tensor, lr: float) -> None:
        """Step down the gradients of the summed losses; a tensor without a gradient in one process counts as 0."""
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for tensor in self.parameters.all():
            if tensor.grad is None:
                tensor.grad = torch.zeros_like(tensor)
            dist.all_reduce(tensor.grad)
        self._apply(lr)


class DataParallelTopK(_Divided, TorchTopK):
    """The step of `TorchTopK` on a batch that the processes of the group divide."""

    def __init__(self, parameters: Parameters, spec: TopK) -> None:
        """Start from the parameters of the first process."""
        _start_alike(parameters, spec)
        super().__init__(parameters, spec)

    def step(
        self, x: Float[Tensor, "token feature"], dead: Int64[Tensor, "dead"], lr: float, k: int | None = None
    ) -> TopKOutcome:
        """Learn from one batch, which every process is given whole; see `FusedTopK.step`."""
        p, mine = self.parameters, _share(x)
        pre = torch.addmm(p.encoder_bias - p.encoder @ p.decoder_bias, mine, p.encoder.T)
        top = pre.topk(k or self._spec.k, dim=1, sorted=False)
        values = top.values.relu()
        residual = mine - p.decoder_bias - embedding_bag(top.indices, p.atoms, per_sample_weights=values, mode="sum")
        loss = unexplained = residual.square().sum() / max(total_variation(x), TINY)
        if self._spec.aux_alpha > 0 and len(dead):
            target = residual.detach()
            spread = variation_of_all(target)
            if spread > 0:
                error = aux_error(target, pre[:, dead], p.atoms[dead], self._aux_k)
                loss = loss + self._spec.aux_alpha * error / spread
        fired = torch.zeros(len(p.atoms), dtype=torch.bool, device=x.device)
        fired[top.indices[values > 0]] = True
        total, fvu, firings = _added(loss, unexplained, (values > 0).sum())
        self._descend(loss, lr)
        return TopKOutcome(total, fvu, round(firings), _any(fired))


class DataParallelReluL1(_Divided, TorchReluL1):
    """The step of `TorchReluL1` on a batch that the processes of the group divide.

    All of its terms, that of the ghost gradients too, are means over tokens.
    """

    def __init__(self, parameters: Parameters, spec: ReluL1) -> None:
        """Start from the parameters of the first process."""
        _start_alike(parameters, spec)
        super().__init__(parameters, spec)

    def step(self, x: Float[Tensor, "token feature"], dead: Int64[Tensor, "dead"], lr: float, l1: float) -> ReluOutcome:
        """Learn from one batch, which every process is given whole; see `FusedReluL1.step`."""
        mine = _share(x)
        mean, residual, fires = self._forward(mine, dead, l1)
        loss = mean * (len(mine) / len(x))
        total, squares, firings = _added(loss, residual.square().sum(), fires.sum())
        self._descend(loss, lr)
        return ReluOutcome(total, squares / max(total_variation(x), TINY), round(firings), _any(fires.any(0)))


def variation_of_all(mine: Float[Tensor, "token feature"]) -> float:
    """Return the summed squared distance to the mean of the tokens of all processes, without a graph."""
    count = mine.new_tensor([float(len(mine))])
    sums = torch.cat([mine.sum(0), count])
    dist.all_reduce(sums)
    apart = mine - sums[:-1] / sums[-1]
    total = apart.square().sum()
    dist.all_reduce(total)
    return float(total)


def _start_alike(parameters: Parameters, spec: TopK | ReluL1) -> None:
    """Take over the parameters of the first process.

    Raises:
        ConceptBenchError: when a batch has fewer tokens than there are processes.
    """
    if spec.batch_size < dist.get_world_size():
        raise ConceptBenchError(
            f"Dictionary '{spec.name}' has batches of {spec.batch_size} tokens, which {dist.get_world_size()} "
            "processes cannot divide; start fewer processes."
        )
    for tensor in parameters.all():
        dist.broadcast(tensor, src=0)


def _share(x: Float[Tensor, "token feature"]) -> Float[Tensor, "some feature"]:
    """Return the tokens of a batch that this process takes."""
    return x[dist.get_rank() :: dist.get_world_size()]


def _added(*values: Tensor) -> list[float]:
    """Return numbers summed over the processes."""
    sums = torch.stack([value.detach().double() for value in values])
    dist.all_reduce(sums)
    return [float(value) for value in sums.tolist()]


def _any(mine: Bool[Tensor, "latent"]) -> Bool[Tensor, "latent"]:
    """Return which latents are marked in at least one process."""
    marks = mine.to(torch.int32)
    dist.all_reduce(marks, dist.ReduceOp.MAX)
    return marks.bool()
