"""Relaxed archetypal TopK (Fel et al., arXiv 2502.12892): atoms are near convex combinations of points of the data."""

import math
from typing import Final

import torch
from jaxtyping import Float
from sklearn.cluster import MiniBatchKMeans
from torch import Tensor

from conceptbench.dictionaries.autoencoder import AutoencoderLearner, LargestOfToken
from conceptbench.dictionaries.autoencoder_sparse import SparseTopKLearner
from conceptbench.dictionaries.learner import Setting
from conceptbench.dictionaries.specs import Archetypal
from conceptbench.errors import ConceptBenchError

OWN_WEIGHT: Final = 0.9
"""Weight of its own candidate in an atom at the start."""
LOGIT_RATE: Final = 10.0
"""Factor on the learning rate of the logits, which must move by whole units to change a combination."""


class NearHull:
    """Atoms W C + L: W row-stochastic (a softmax), C fixed candidates, every row of L no longer than `bound`."""

    def __init__(
        self,
        candidates: Float[Tensor, "candidate feature"],
        width: int,
        bound: float,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        """Start each atom at its own candidate, drawn in random order and again from the first when they run out."""
        n = len(candidates)
        rounds = [torch.randperm(n, generator=generator) for _ in range(math.ceil(width / n))]
        logits = torch.randn(width, n, generator=generator) / 2
        logits[torch.arange(width), torch.cat(rounds)[:width]] = math.log(OWN_WEIGHT / (1 - OWN_WEIGHT) * (n - 1))
        self._candidates, self._bound = candidates.to(device), bound
        self._logits = logits.to(device).requires_grad_()
        self._relaxation = torch.zeros(width, candidates.shape[1], device=device).requires_grad_()

    def parameters(self) -> list[tuple[Tensor, float]]:
        """Return logits and, when there is any, the relaxation."""
        relaxed = [(self._relaxation, 1.0)] if self._bound > 0 else []
        return [(self._logits, LOGIT_RATE), *relaxed]

    def combinations(self) -> Float[Tensor, "latent feature"]:
        """Return W C: points of the candidates' convex hull."""
        return self._logits.softmax(1) @ self._candidates

    def atoms(self) -> Float[Tensor, "latent feature"]:
        """Return the atoms; their norms vary as those of the data do."""
        return self.combinations() + self._relaxation

    def project(self) -> None:
        """Leave the gradients as they are."""

    def constrain(self) -> None:
        """Shorten rows of the relaxation to the bound."""
        norms = self._relaxation.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
        self._relaxation.mul_((self._bound / norms).clamp_max(1.0))


def candidates_of(spec: Archetypal, setting: Setting) -> Float[Tensor, "candidate feature"]:
    """Return the k-means centres of the first training tokens, relative to where the decoder bias starts.

    They are divided by their mean norm, so that one learning rate serves encoder and atoms as it does with unit atoms.

    Raises:
        ConceptBenchError: when there are fewer tokens than candidates.
    """
    sample = setting.sample
    if len(sample) < spec.candidates:
        raise ConceptBenchError(
            f"Dictionary '{spec.name}' asks for {spec.candidates} candidates of {len(sample)} training tokens; "
            "lower it in the configuration."
        )
    seed = int(torch.randint(2**31 - 1, (), generator=setting.generator))
    clusters = MiniBatchKMeans(spec.candidates, random_state=seed, n_init=1, batch_size=4096, max_iter=20)
    centres = torch.from_numpy(clusters.fit(sample.numpy()).cluster_centers_).float()
    relative = centres - setting.median()
    return torch.div(relative, relative.norm(dim=1).mean())


def archetypal_learner(spec: Archetypal, setting: Setting) -> AutoencoderLearner:
    """Return the learner of relaxed archetypal TopK: the sparse step on a CPU, plain torch elsewhere."""
    candidates = candidates_of(spec, setting)
    decoder = NearHull(candidates, spec.width, spec.relaxation, setting.generator, setting.device)
    if setting.device.type == "cpu":
        return SparseTopKLearner(spec, setting, decoder)
    return AutoencoderLearner(spec, setting, LargestOfToken(spec.k), decoder, spec.k)
