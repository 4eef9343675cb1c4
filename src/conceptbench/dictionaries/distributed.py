"""Data-parallel training: processes divide every batch among themselves and add up their gradients before each step.

Every process runs the same call of `learn_many` on the same stream of tokens inside a `group` (as `torchrun` starts
them, one process a GPU) and ends with the same dictionary, of which one is saved. TopK, which the papers train at the
largest widths, is divided; every other method is computed by all processes alike.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn.functional import embedding_bag

from conceptbench.dictionaries.learner import TINY, Parameters, total_variation
from conceptbench.dictionaries.specs import TopK
from conceptbench.dictionaries.topk_fused import TopKOutcome
from conceptbench.dictionaries.topk_torch import TorchTopK, aux_error
from conceptbench.errors import ConceptBenchError

_LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def in_group() -> bool:
    """Whether this process trains together with others."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


@contextmanager
def group(backend: str | None = None) -> Iterator[torch.device]:
    """Join the processes that `torchrun` started; yields the device of this one.

    Args:
        backend: nccl on GPUs and gloo on CPUs by default.

    Raises:
        ConceptBenchError: when the process was not started by `torchrun`, or there are fewer GPUs than processes.
    """
    absent = [name for name in _LAUNCHED if name not in os.environ]
    if absent:
        raise ConceptBenchError(f"{absent[0]} is not set; start the processes with torchrun --nproc-per-node <GPUs>.")
    rank, gpus = int(os.environ.get("LOCAL_RANK", os.environ["RANK"])), torch.cuda.device_count()
    if gpus and rank >= gpus:
        raise ConceptBenchError(f"Process {rank} has no GPU, because this machine shows {gpus}; start fewer processes.")
    device = torch.device("cuda", rank) if gpus else torch.device("cpu")
    if gpus:
        torch.cuda.set_device(device)
    dist.init_process_group(backend or ("nccl" if gpus else "gloo"))
    try:
        yield device
    finally:
        dist.destroy_process_group()


class DataParallelTopK(TorchTopK):
    """The step of `TorchTopK` on a batch that the processes of the group divide.

    Each takes every n-th token. Losses are sums over tokens divided by the variation of the whole batch, so the sum of
    the processes' gradients is the gradient of the whole batch, up to the order of floating-point sums.
    """

    def __init__(self, parameters: Parameters, spec: TopK) -> None:
        """Start from the parameters of the first process."""
        for tensor in parameters.all():
            dist.broadcast(tensor, src=0)
        super().__init__(parameters, spec)

    def step(
        self, x: Float[Tensor, "token feature"], dead: Int64[Tensor, "dead"], lr: float, k: int | None = None
    ) -> TopKOutcome:
        """Learn from one batch, which every process is given whole; see `FusedTopK.step`."""
        p, mine = self.parameters, x[dist.get_rank() :: dist.get_world_size()]
        pre = torch.addmm(p.encoder_bias - p.encoder @ p.decoder_bias, mine, p.encoder.T)
        top = pre.topk(k or self._spec.k, dim=1, sorted=False)
        values = top.values.relu()
        residual = mine - p.decoder_bias - embedding_bag(top.indices, p.atoms, per_sample_weights=values, mode="sum")
        loss = residual.square().sum() / max(total_variation(x), TINY)
        fvu = loss.detach().clone()
        if self._spec.aux_alpha > 0 and len(dead):
            target = residual.detach()
            spread = variation_of_all(target)
            if spread > 0:
                error = aux_error(target, pre[:, dead], p.atoms[dead], self._aux_k)
                loss = loss + self._spec.aux_alpha * error / spread
        fired = torch.zeros(len(p.atoms), dtype=torch.int32, device=x.device)
        fired[top.indices[values > 0]] = 1
        sums = torch.stack([loss.detach(), fvu, (values > 0).sum().to(fvu.dtype)])
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        for tensor in p.all():
            if tensor.grad is None:
                tensor.grad = torch.zeros_like(tensor)
            dist.all_reduce(tensor.grad)
        dist.all_reduce(sums)
        dist.all_reduce(fired, dist.ReduceOp.MAX)
        self._apply(lr)
        return TopKOutcome(float(sums[0]), float(sums[1]), round(float(sums[2])), fired.bool())


def variation_of_all(mine: Float[Tensor, "token feature"]) -> float:
    """Return the summed squared distance to the mean of the tokens of all processes, without a graph."""
    count = mine.new_tensor([float(len(mine))])
    sums = torch.cat([mine.sum(0), count])
    dist.all_reduce(sums)
    apart = mine - sums[:-1] / sums[-1]
    total = apart.square().sum()
    dist.all_reduce(total)
    return float(total)
