"""BatchTopK: the largest pre-activations of the whole batch fire; a calibrated threshold stands for it at encoding."""

from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from conceptbench.dictionaries.autoencoder import AutoencoderLearner, UnitAtoms
from conceptbench.dictionaries.batch_fused import FusedBatchLearner
from conceptbench.dictionaries.learner import Setting, starting_atoms
from conceptbench.dictionaries.rules import KeepAbove
from conceptbench.dictionaries.specs import BatchTopK
from conceptbench.dictionaries.thresholds import calibrate


class LargestOfBatch:
    """The B k largest positive pre-activations of a batch of B tokens (Bussmann et al., arXiv 2412.06410, eq. 4).

    The budget is k a token whatever the size of the batch; where fewer pre-activations are positive, fewer fire.
    """

    def __init__(self, k: int, width: int) -> None:
        """Keep k for each token on average."""
        self._k, self._width = k, width

    def parameters(self) -> list[tuple[Tensor, float]]:
        """Return nothing."""
        return []

    def codes(self, pre: Float[Tensor, "token latent"]) -> Float[Tensor, "token latent"]:
        """Return the codes."""
        flat = pre.relu().flatten()
        kept = flat.detach().topk(self._k * len(pre), sorted=False).indices
        return torch.zeros_like(flat).scatter(0, kept, flat[kept]).reshape(pre.shape)

    def penalty(self, pre: Tensor, codes: Tensor, step: int) -> Float[Tensor, ""]:
        """Return 0: the number is fixed."""
        return pre.new_zeros(())

    def rule(self, tiles: Iterator[Float[Tensor, "token latent"]]) -> KeepAbove:
        """Return the one threshold above which these tokens have k firings on average."""
        return KeepAbove(np.full(self._width, calibrate(tiles, self._k), np.float32))


def batch_topk_learner(spec: BatchTopK, setting: Setting) -> AutoencoderLearner | FusedBatchLearner:
    """Return the learner of BatchTopK: the sparse step on a CPU, plain torch elsewhere."""
    if setting.device.type == "cpu":
        return FusedBatchLearner(spec, setting, (spec.width,))
    decoder = UnitAtoms(starting_atoms(spec.width, setting, spec.start), setting.device)
    return AutoencoderLearner(spec, setting, LargestOfBatch(spec.k, spec.width), decoder, spec.k)
