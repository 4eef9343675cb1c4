"""What a plant recruits: atoms that fire on no image, and class vectors that read what they add.

Two ways to choose. Tuned (`recruit`, `mixed`): atoms that the dictionary measures best, and a readout with a threshold
that what their edit leaves does not reach; these plants ask whether the estimators find what the dictionary can see.
Untuned (`recruit-any`): any silent atoms and no threshold; it shows what is missed when the dictionary sees a new
direction only in part, as it may with a real adaptation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from conceptbench.errors import ConceptBenchError
from conceptbench.measures.edits import atoms_in_raw_units

if TYPE_CHECKING:
    from conceptbench.measures.plants import Soil

RECRUIT_LOGITS: Final = 2.5
"""Logits by which the readout tells a recruited direction that is there from one that is not."""
RECRUIT_THRESHOLD: Final = 0.65
"""Share of the direction from which on the readout of a tuned plant speaks for the class: more than its edit leaves."""
RECRUIT_NORM: Final = 1.0
"""Length of a recruited direction, as a share of the mean length of a centred token."""
OWN_SPACE: Final = 0.9999
"""Share of the squared length of image features that spans their own space."""
FAITHFUL: Final = 3
"""A tuned atom is drawn among so many for each affected class, those that the dictionary measures best."""
TRIED: Final = 48
"""Atoms that are tried out, those to which their own encoder row answers most like 1."""
SAMPLED_TOKENS: Final = 512
"""Tokens on which that is found out."""


def recruit(
    soil: Soil,
    labels: NDArray[np.int64],
    texts: Float[Tensor, "class embed"],
    added: Float[Tensor, "class feature"],
    rng: np.random.Generator,
    *,
    tuned: bool,
) -> None:
    """Give each class an atom that fires on none of the images, and let its class vector read what that adds; in place.

    The class vector moves along what the atom adds to the features beyond their own space, less a threshold, which is
    written along the mean feature: the logit of the class moves by RECRUIT_LOGITS * (share of the direction that is
    there - threshold).

    Raises:
        ConceptBenchError: when there are fewer silent latents than classes.
    """
    if not len(labels):
        return
    tokens, own = soil.activations.tokens, _space(soil.features)
    length = (tokens - tokens.mean(dim=(0, 1))).norm(dim=-1).mean()
    silent = _silent(soil, len(labels))
    drawn_from = faithful(soil, silent, float(length), FAITHFUL * len(labels)) if tuned else silent
    threshold = RECRUIT_THRESHOLD if tuned else 0.0
    atoms = rng.permutation(drawn_from)[: len(labels)]
    directions = F.normalize(atoms_in_raw_units(soil.dictionary, tokens)[torch.from_numpy(atoms)], dim=-1)
    centre = soil.features.mean(dim=0)
    logit_scale = soil.readout.backbone.logit_scale
    for label, direction in zip(labels, directions, strict=True):
        added[label] = RECRUIT_NORM * length * direction
        mine = np.flatnonzero(soil.activations.targets == label)
        with torch.no_grad():
            moved = F.normalize(soil.readout.backbone.upper(tokens[mine] + added[label], soil.readout.block), dim=-1)
        mean = moved.mean(dim=0)
        step = F.normalize(mean - own.T @ (own @ mean), dim=-1)
        texts[label] += RECRUIT_LOGITS / (logit_scale * float(mean @ step)) * step
        texts[label] -= RECRUIT_LOGITS * threshold / (logit_scale * float(centre @ centre)) * centre


def _space(features: Float[Tensor, "image embed"]) -> Float[Tensor, "direction embed"]:
    """Orthonormal directions that hold `OWN_SPACE` of the squared length of the features."""
    _, strength, directions = torch.linalg.svd(features.double(), full_matrices=False)
    held = torch.cumsum(strength**2, dim=0) / (strength**2).sum()
    kept: Tensor = directions[: int((held < OWN_SPACE).sum()) + 1].to(features.dtype)
    return kept


def _silent(soil: Soil, least: int) -> Int64[np.ndarray, " latent"]:
    """Latents that fire on no image of split A."""
    silent = np.flatnonzero(soil.selected.frequency == 0)
    if len(silent) < least:
        firing = "Every latent" if not len(silent) else f"All but {len(silent)} latents"
        raise ConceptBenchError(
            f"{firing} of the dictionary fires on the task, so {least} cannot be recruited; take a wider dictionary."
        )
    return silent


def faithful(
    soil: Soil, silent: Int64[np.ndarray, " latent"], length: float, most: int
) -> Int64[np.ndarray, " latent"]:
    """Of the silent latents those that the dictionary measures best once they are there.

    Each is added with the length of a recruited direction to a sample of tokens; the error is what is left of it along
    its direction when its own firing is removed.
    """
    tokens = soil.activations.numpy().reshape(-1, soil.dictionary.d)
    tokens = tokens[:: max(1, len(tokens) // SAMPLED_TOKENS)]
    response = (soil.dictionary.encoder[silent] * soil.dictionary.atoms[silent]).sum(axis=1)
    silent = silent[np.argsort(np.abs(response - 1), kind="stable")[: max(most, TRIED)]]
    norms = np.linalg.norm(soil.dictionary.directions, axis=1)
    error = np.empty(len(silent))
    for at, latent in enumerate(silent):
        push = np.float32(RECRUIT_NORM * length) * soil.dictionary.directions[latent] / norms[latent]
        code = soil.dictionary.encode(tokens + push).csr()[:, [latent]].toarray().ravel()
        error[at] = np.abs(code * norms[latent] / (RECRUIT_NORM * length) - 1).mean()
    return np.asarray(silent[np.argsort(error, kind="stable")[:most]])
