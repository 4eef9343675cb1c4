"""Semi-NMF: tokens as non-negative combinations of free atoms (Ding, Li and Jordan 2010)."""

from typing import Final

import numpy as np
import torch
from jaxtyping import Float
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor

from conceptbench.dictionaries.assembled import pursued, refuse_few
from conceptbench.dictionaries.dictionary import Dictionary
from conceptbench.dictionaries.learner import Setting, to_numpy
from conceptbench.dictionaries.sampling import SampleLearner
from conceptbench.dictionaries.specs import SemiNmf

SMALL: Final = 1e-12
OFFSET: Final = 0.2
"""Added to the clusters' indicators at the start, as in the paper: a multiplicative update never leaves 0."""


def update(
    x: Float[Tensor, "token feature"], codes: Float[Tensor, "token latent"]
) -> tuple[Float[Tensor, "token latent"], Float[Tensor, "latent feature"]]:
    """Return (codes, atoms) after one round, which never raises ||x - codes atoms||^2.

    Atoms are the least-squares solution for the given codes; codes are then multiplied by the root of
    ((x a')+ + z (a a')-) / ((x a')- + z (a a')+), the paper's eq. 8, where + and - are positive and negative parts.
    """
    atoms = torch.linalg.lstsq(codes.T @ codes, codes.T @ x, driver="gelsd").solution
    along, among = x @ atoms.T, atoms @ atoms.T
    up = along.clamp_min(0) + codes @ (-among).clamp_min(0)
    down = (-along).clamp_min(0) + codes @ among.clamp_min(0)
    return codes * (up / down.clamp_min(SMALL)).sqrt(), atoms


class SemiNmfLearner(SampleLearner):
    """Semi-NMF of a uniform sample of the training tokens."""

    def __init__(self, spec: SemiNmf, setting: Setting) -> None:
        """Start with no tokens."""
        super().__init__(spec.sample, setting)
        self._spec, self._setting = spec, setting

    def finish(self) -> Dictionary:
        """Return the dictionary of the atoms' directions; tokens are encoded by non-negative matching pursuit."""
        spec, tokens = self._spec, self._reservoir.tokens()
        refuse_few(spec.name, len(tokens), spec.width)
        mean = tokens.mean(0, dtype=np.float64).astype(np.float32)
        x = torch.from_numpy(tokens - mean)
        codes = self._start(x)
        for _ in range(spec.iterations):
            codes, atoms = update(x, codes)
        return pursued(to_numpy(atoms), mean, spec.k, self._setting)

    def _start(self, x: Float[Tensor, "token feature"]) -> Float[Tensor, "token latent"]:
        """Return the indicators of k-means clusters, plus the offset."""
        seed = int(torch.randint(2**31 - 1, (), generator=self._setting.generator))
        clusters = MiniBatchKMeans(self._spec.width, random_state=seed, n_init=1, batch_size=4096).fit(x.numpy())
        codes = torch.full((len(x), self._spec.width), OFFSET)
        return codes.scatter_(1, torch.from_numpy(clusters.labels_.astype(np.int64))[:, None], 1 + OFFSET)
