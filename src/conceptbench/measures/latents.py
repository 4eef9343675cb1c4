"""What each latent does over a data set: how often, how strongly, for which labels, and its exemplars.

Two image-level definitions exist in the PatchSAE paper and are kept apart here:
A, the mean of the latent over all tokens of the image (prefix tokens included);
B, the number of tokens where the latent is above a threshold tau (0.2 in the paper).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse

from conceptbench.dictionaries.evaluate import DENSE_ABOVE
from conceptbench.errors import ConceptBenchError
from conceptbench.measures.sparse import SparseCodes, image_scores

PAPER_TAU = 0.2
"""Threshold of definition B in the paper (log10 = -0.7)."""


@dataclass(frozen=True)
class LatentSpec:
    """Choices the paper leaves open, each stated in docs/method.md."""

    top_k: int = 10
    """Reference images for entropy and standard deviation, and exemplars kept."""
    tau: float = PAPER_TAU
    """Threshold of definition B."""
    dense_above: float = DENSE_ABOVE
    """A latent is dense when it fires on more than this share of tokens; the same as in the dictionary's card."""
    prefix_tokens: int = 1
    """Tokens before the patch tokens."""


def latent_statistics(
    codes: SparseCodes,
    labels: NDArray[np.integer[Any]],
    images: NDArray[np.integer[Any]],
    class_names: dict[int, str] | None = None,
    spec: LatentSpec | None = None,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Statistics of every latent and the exemplars of every live latent.

    Args:
        codes: CSR codes of the data set.
        labels: class of each image, -1 for none; images: the data set's image numbers, in the order of the codes.
        class_names: name of each label, for the exemplars.
        spec: top-k, threshold and dense flag.

    Returns:
        `latents`: latent, frequency_image (share of images with definition A > 0), frequency_token (share of tokens
        > 0), mean_activation (definition A over activated images; 0 when dead), count_mean (definition B over all
        images), label_entropy (nats over the top-k, weighted by activation; NaN when dead or unlabelled), label_std
        (standard deviation of their label numbers), n_reference, dead, dense.
        `exemplars`: latent, rank, image, score, label, class_name, patch (strongest patch, -1 when none fires).
        Dead latents have no exemplar.
    """
    spec = spec or LatentSpec()
    n_images, n_tokens, width = codes.shape
    if not (len(labels) == len(images) == n_images):
        raise ConceptBenchError(
            f"Latent statistics got {n_images} coded images but {len(labels)} labels and {len(images)} image numbers."
        )
    mean = _positive(image_scores(codes, reduce="mean"))
    count = image_scores(codes, reduce="count", threshold=spec.tau)
    fired = np.bincount(np.asarray(codes.indices)[np.asarray(codes.values) > 0], minlength=width)
    active = np.diff(mean.indptr)
    reference = _references(mean, np.asarray(labels), spec.top_k)
    table = pd.DataFrame(
        {
            "latent": np.arange(width),
            "frequency_image": active / n_images,
            "frequency_token": fired / (n_images * n_tokens),
            "mean_activation": mean.sum(axis=0) / np.maximum(active, 1),
            "count_mean": count.sum(axis=0) / n_images,
        }
    ).merge(reference.statistics, on="latent")
    table["dead"] = active == 0
    table["dense"] = table["frequency_token"] > spec.dense_above
    return table, _exemplars(codes, reference, np.asarray(labels), np.asarray(images), class_names or {}, spec)


@dataclass(frozen=True)
class _Reference:
    """Top images by position: latent, rank, position, score for live latents; statistics of every latent."""

    top: pd.DataFrame
    statistics: pd.DataFrame


def _positive(scores: sparse.csc_array) -> sparse.csc_array:
    positive = sparse.csc_array(scores.maximum(0))
    positive.eliminate_zeros()
    return positive


def _references(mean: sparse.csc_array, labels: NDArray[Any], top_k: int) -> _Reference:
    top: list[NDArray[np.float64]] = []
    rows: list[tuple[int, float, float, int]] = []
    for latent in range(mean.shape[1]):
        first, last = mean.indptr[latent], mean.indptr[latent + 1]
        positions, scores = mean.indices[first:last], mean.data[first:last].astype(np.float64)
        order = np.lexsort((positions, -scores))[:top_k]
        positions, scores = positions[order], scores[order]
        entropy, spread = label_entropy(scores, labels[positions]), label_std(labels[positions])
        rows.append((latent, entropy, spread, len(order)))
        top.append(np.column_stack([np.full(len(order), latent), np.arange(len(order)), positions, scores]))
    frame = pd.DataFrame(np.concatenate(top), columns=["latent", "rank", "position", "score"])
    frame = frame.astype({"latent": np.int64, "rank": np.int64, "position": np.int64})
    return _Reference(frame, pd.DataFrame(rows, columns=["latent", "label_entropy", "label_std", "n_reference"]))


def label_entropy(scores: NDArray[np.floating[Any]], labels: NDArray[Any]) -> float:
    """Entropy in nats of the classes of the reference images, each weighted by its score; NaN without labels."""
    known = labels >= 0
    if not known.any():
        return float("nan")
    mass = np.bincount(labels[known], weights=scores[known])
    share = mass[mass > 0] / mass.sum()
    return float(max(0.0, -(share * np.log(share)).sum()))


def label_std(labels: NDArray[Any]) -> float:
    """Population standard deviation of the label numbers of the reference images; NaN without labels."""
    known = labels[labels >= 0]
    return float(known.std()) if known.size else float("nan")


def _exemplars(
    codes: SparseCodes,
    reference: _Reference,
    labels: NDArray[Any],
    images: NDArray[Any],
    class_names: dict[int, str],
    spec: LatentSpec,
) -> pd.DataFrame:
    table = reference.top
    position = table["position"].to_numpy()
    table = table.assign(
        image=images[position],
        label=labels[position],
        class_name=[class_names.get(int(label), "") for label in labels[position]],
        patch=strongest_patch(codes, position, table["latent"].to_numpy(), spec.prefix_tokens),
    )
    return table[["latent", "rank", "image", "score", "label", "class_name", "patch"]]


def strongest_patch(
    codes: SparseCodes, positions: NDArray[np.int64], latents: NDArray[np.int64], prefix_tokens: int
) -> NDArray[np.int64]:
    """Patch (row-major, prefix not counted) where each (image position, latent) is strongest; -1 when none fires."""
    indptr, indices, values = np.asarray(codes.indptr), np.asarray(codes.indices), np.asarray(codes.values)
    _, tokens, width = codes.shape
    best = np.full(len(positions), -1, dtype=np.int64)
    order = np.argsort(positions, kind="stable")
    bounds = np.flatnonzero(np.diff(positions[order], prepend=-1))
    for wanted in np.split(order, bounds[1:]) if len(order) else []:
        image = int(positions[wanted[0]])
        first, last = image * tokens + prefix_tokens, (image + 1) * tokens
        starts = indptr[first : last + 1] - indptr[first]
        block = slice(int(indptr[first]), int(indptr[last]))
        grid = sparse.csr_array((values[block], indices[block], starts), shape=(last - first, width))
        maps = grid.tocsc()[:, latents[wanted]].toarray()
        best[wanted] = np.where(maps.max(axis=0) > 0, maps.argmax(axis=0), -1)
    return best
