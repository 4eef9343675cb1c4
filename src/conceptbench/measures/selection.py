"""Which latents stand for a class or a data set: PatchSAE's aggregates of split A, and rankings made of them.

The image-level value is the count of definition B (tokens above tau, prefix included); a class's value is the sum over
its images, the data set's the sum over all. Ties and zeros are ordered by the data set's value, then by number, so no
latent gets a place by chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray

from conceptbench.dictionaries import Codes
from conceptbench.dictionaries.evaluate import DENSE_ABOVE
from conceptbench.errors import ConceptBenchError

Dense = Literal["kept", "filtered"]
"""Whether dense latents may be among the top ones, or come after all others."""


@dataclass(frozen=True, eq=False)
class Selected:
    """Aggregates of the codes of split A."""

    class_count: Float[np.ndarray, "class latent"]
    """Definition B, summed over the images of each class."""
    class_share: Float[np.ndarray, "class latent"]
    """Share of the images of each class on which a latent fires."""
    frequency: Float[np.ndarray, " latent"]
    """Share of all images on which a latent fires."""
    dense: Bool[np.ndarray, " latent"]
    """Fires on more than a tenth of all tokens."""


def select_on(codes: Codes, targets: NDArray[np.int64], class_names: Sequence[str], tau: float) -> Selected:
    """Aggregates over the named classes, whose positions the targets are.

    Raises:
        ConceptBenchError: when a class has no images.
    """
    sizes = np.bincount(targets, minlength=len(class_names))
    if (sizes == 0).any():
        raise ConceptBenchError(
            f"Class '{class_names[int(np.flatnonzero(sizes == 0)[0])]}' has no images on split A; "
            "give the split some or leave the class out."
        )
    counts = codes.image_count(tau).astype(np.float64)
    fires = codes.image_max()
    fires.data[:] = 1.0
    by_class = np.zeros((len(class_names), len(targets)))
    by_class[targets, np.arange(len(targets))] = 1.0
    class_fires = np.asarray((fires.T @ by_class.T).T)
    tokens = np.bincount(codes.indices, minlength=codes.shape[2]) / codes.n_rows
    return Selected(
        class_count=np.asarray((counts.T @ by_class.T).T),
        class_share=class_fires / sizes[:, None],
        frequency=class_fires.sum(axis=0) / len(targets),
        dense=tokens > DENSE_ABOVE,
    )


def class_ranks(selected: Selected, dense: Dense) -> Int64[np.ndarray, "class latent"]:
    """Rank of every latent for every class, 0 the largest class value."""
    return np.stack([_ranks(row, selected, dense) for row in selected.class_count])


def dataset_ranks(selected: Selected, dense: Dense) -> Int64[np.ndarray, " latent"]:
    """Rank of every latent by its value over all classes."""
    return _ranks(selected.class_count.sum(axis=0), selected, dense)


def _ranks(value: NDArray[Any], selected: Selected, dense: Dense) -> NDArray[np.int64]:
    last = selected.dense if dense == "filtered" else np.zeros_like(selected.dense)
    order = np.lexsort((np.arange(len(value)), -selected.class_count.sum(axis=0), -value, last))
    ranks = np.empty_like(order)
    ranks[order] = np.arange(len(order))
    return ranks
