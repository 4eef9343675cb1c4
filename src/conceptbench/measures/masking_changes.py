"""Paired changes along masking curves: what an edit, another ranking or another model changes, image by image.

Two curves on the same images go up and down together, so the interval of their difference cannot be had from their own
intervals. `start` subtracts the same edit with nothing removed (for the replacing edit: the reconstruction), `unedited`
the model as it is, `own-ranking` the same model under its own ranking of latents, `zero-shot` the zero-shot model under
its own ranking.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from conceptbench.measures.masking import OUTCOMES, Outcomes
from conceptbench.measures.readout import Activations, Readout

CHANGED: Final = OUTCOMES[:2]
"""Outcomes whose changes are tabled: the divergence is a change already."""
Found = Mapping[tuple[str, str], Outcomes]


def plain_outcomes(readout: Readout, activations: Activations) -> Outcomes:
    """Accuracy and log-likelihood of the unedited model, [outcome, 1, image]."""
    found, targets = readout.predict(activations), activations.targets
    scores = np.stack([found.argmax(axis=1) == targets, found[np.arange(len(targets)), targets]])
    return scores.astype(np.float64)[:, None]


def less(found: Found, reference: Outcomes | None = None) -> dict[tuple[str, str], Outcomes]:
    """Curves less a reference [outcome, 1, image]; without one, less where nothing is removed (off, k = 0)."""
    n = len(CHANGED)
    return {
        (name, way): values[:n] - (found[name, "off"][:n, :1] if reference is None else reference)
        for (name, way), values in found.items()
    }


def minus(found: Found, other: Found) -> dict[tuple[str, str], Outcomes]:
    """Curves less those of the same selection and direction of `other`; what only one of them has is left out."""
    n = len(CHANGED)
    return {key: values[:n] - other[key][:n] for key, values in found.items() if key in other}
