"""Matryoshka BatchTopK: nested prefixes of the latents that each reconstruct the token (arXiv 2503.17547)."""

from collections.abc import Sequence

from torch import Tensor

from conceptbench.dictionaries.autoencoder import AutoencoderLearner, Reconstruction, UnitAtoms
from conceptbench.dictionaries.batch_fused import FusedBatchLearner
from conceptbench.dictionaries.batch_topk import LargestOfBatch
from conceptbench.dictionaries.learner import Setting, starting_atoms
from conceptbench.dictionaries.specs import Matryoshka


def nested(ends: Sequence[int]) -> Reconstruction:
    """Return the reconstruction whose loss is the mean, over prefixes that end at `ends`, of their squared errors.

    Every latent is decoded once: a prefix's residual is that of the prefix before less what its own latents add. So the
    gradient of a latent's contribution is the sum of the residuals of all prefixes from its own on.
    """
    starts = (0, *ends[:-1])

    def reconstruct(target: Tensor, codes: Tensor, atoms: Tensor) -> tuple[Tensor, Tensor]:
        """Return (mean squared error of the prefixes, summed over tokens; residual of all latents)."""
        residual, total = target, target.new_zeros(())
        for start, end in zip(starts, ends, strict=True):
            residual = residual - codes[:, start:end] @ atoms[start:end]
            total = total + residual.square().sum()
        return total / len(ends), residual

    return reconstruct


def prefix_ends(spec: Matryoshka) -> tuple[int, ...]:
    """Return where the prefixes end; prefixes that round to the same latent are one."""
    return tuple(sorted({max(1, round(share * spec.width)) for share in spec.prefixes}))


def matryoshka_learner(spec: Matryoshka, setting: Setting) -> AutoencoderLearner | FusedBatchLearner:
    """Return the learner of Matryoshka BatchTopK: the sparse step on a CPU, plain torch elsewhere."""
    if setting.device.type == "cpu":
        return FusedBatchLearner(spec, setting, prefix_ends(spec))
    selection = LargestOfBatch(spec.k, spec.width)
    decoder = UnitAtoms(starting_atoms(spec.width, setting, spec.start), setting.device)
    return AutoencoderLearner(spec, setting, selection, decoder, spec.k, nested(prefix_ends(spec)))
