"""One model cut at the hook point: its activations in memory, and everything above them as log-probabilities.

A model is a backbone under an adapter (zero-shot is one that changes nothing). Tokens and prompts of an image are kept
apart, because prompts belong to the readout: an edit of the activations leaves them alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from jaxtyping import Float, Int64
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from conceptbench.data.classes import require_images
from conceptbench.errors import ConceptBenchError

if TYPE_CHECKING:
    from conceptbench.backbones import Backbone
    from conceptbench.data import Dataset

BATCH = 100
"""Images that go through the model at once."""


class AdaptedModel(Protocol):
    """What a measure needs of an adapter: a changed image side and logits from image features."""

    def image_context(self, backbone: Any) -> AbstractContextManager[None]:
        """Inside it the backbone's image tower is the adapted one."""

    def classify(self, backbone: Any, features: Any, class_names: Sequence[str]) -> Any:
        """Logits of image features under the adapter's text side."""

    def missing_note(self, class_names: Sequence[str]) -> str:
        """Why these classes cannot be scored; empty when they can."""


@dataclass(frozen=True, eq=False)
class Activations:
    """Images of one half at the hook point of one model."""

    rows: Int64[np.ndarray, " image"]
    """Rows of the data set."""
    targets: Int64[np.ndarray, " image"]
    """Position of each image's class among the candidates."""
    tokens: Float[Tensor, "image token feature"]
    """Prefix and patch tokens."""
    prompts: Float[Tensor, "image prompt feature"]
    """The adaptation's own prompt states; none on a plain image side."""

    def batches(self, size: int = BATCH) -> Iterator[slice]:
        """Slices of consecutive images."""
        for start in range(0, len(self.rows), size):
            yield slice(start, min(start + size, len(self.rows)))

    def numpy(self) -> Float[np.ndarray, "image token feature"]:
        """The tokens as float32, as a dictionary takes them."""
        return np.asarray(self.tokens.float().cpu().numpy())


@dataclass(frozen=True, eq=False)
class Readout:
    """Everything above the hook point of one model: blocks, pooling, class vectors of the candidates."""

    backbone: Backbone
    adapter: AdaptedModel
    block: int
    class_names: tuple[str, ...]

    def logits(
        self, tokens: Float[Tensor, "image token feature"], prompts: Float[Tensor, "image prompt feature"]
    ) -> Float[Tensor, "image class"]:
        """Logits of tokens at the hook point; only the blocks above it run. Gradients flow where they are asked for."""
        features = self.features(tokens, prompts)
        logits: Tensor = self.adapter.classify(self.backbone, features, self.class_names)
        return logits

    def features(
        self, tokens: Float[Tensor, "image token feature"], prompts: Float[Tensor, "image prompt feature"]
    ) -> Float[Tensor, "image embed"]:
        """Image features of tokens at the hook point, not normalised."""
        whole = torch.cat([tokens, prompts], dim=1) if prompts.shape[1] else tokens
        with self.adapter.image_context(self.backbone):
            features: Tensor = self.backbone.upper(whole, self.block)
        return features

    @torch.no_grad()
    def log_probabilities(
        self, tokens: Float[Tensor, "image token feature"], prompts: Float[Tensor, "image prompt feature"]
    ) -> Float[np.ndarray, "image class"]:
        """Log-probabilities over the candidates, in float64."""
        logits = self.logits(tokens, prompts)
        return np.asarray(torch.log_softmax(logits.double().cpu(), dim=-1).numpy())

    def predict(self, activations: Activations) -> Float[np.ndarray, "image class"]:
        """Log-probabilities of unedited activations, batch by batch."""
        parts = [self.log_probabilities(activations.tokens[s], activations.prompts[s]) for s in activations.batches()]
        return np.concatenate(parts)


def half_rows(dataset: Dataset, split: str, halves: Mapping[str, Sequence[int]]) -> NDArray[np.int64]:
    """Rows of a split whose class is in one of the halves.

    Raises:
        ConceptBenchError: when a class has none.
    """
    rows = np.asarray(dataset.rows(split), dtype=np.int64)
    wanted = [label for labels in halves.values() for label in labels]
    require_images(dataset, split, wanted)
    return rows[np.isin(np.asarray(dataset.labels(rows)), wanted)]


def balanced_rows(
    dataset: Dataset, split: str, candidates: Sequence[int], most: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """At most `most` rows of a split, as evenly over the candidate classes as whole images allow, in order.

    Raises:
        ConceptBenchError: when a class has no image in the split, or there are fewer images allowed than classes.
    """
    rows = np.asarray(dataset.rows(split), dtype=np.int64)
    labels = np.asarray(dataset.labels(rows))
    share = most // len(candidates)
    if share < 1:
        raise ConceptBenchError(
            f"A measure may take {most} images of {len(candidates)} classes of data set {dataset.name!r}; "
            "allow at least one for each class."
        )
    require_images(dataset, split, candidates)
    chosen = []
    for label in candidates:
        mine = rows[labels == label]
        chosen.append(rng.choice(mine, min(share, mine.size), replace=False))
    return np.sort(np.concatenate(chosen))


def targets_of(dataset: Dataset, rows: NDArray[np.int64], candidates: Sequence[int]) -> NDArray[np.int64]:
    """Position of each row's class among the candidates."""
    position = {label: at for at, label in enumerate(candidates)}
    return np.array([position[int(label)] for label in dataset.labels(rows)], dtype=np.int64)


def pixel_batches(
    backbone: Backbone, dataset: Dataset, rows: NDArray[np.int64], batch_size: int, progress: bool
) -> Iterator[Tensor]:
    """Preprocessed pixels of rows on the backbone's device."""
    starts = range(0, len(rows), batch_size)
    for start in tqdm(starts, desc=f"images of {dataset.name}", unit="batch", disable=not progress):
        batch = rows[start : start + batch_size]
        yield backbone.preprocess(dataset.pictures(batch)).to(backbone.device)


@torch.no_grad()
def activations_of(
    backbone: Backbone,
    adapter: AdaptedModel,
    dataset: Dataset,
    rows: NDArray[np.int64],
    candidates: Sequence[int],
    block: int,
) -> Activations:
    """Activations of rows at the output of `block`: the lower half, once for each image."""
    tokens, prompts = [], []
    with adapter.image_context(backbone):
        for pixels in pixel_batches(backbone, dataset, rows, BATCH, False):
            own, extra = backbone.split_prompts(backbone.lower(pixels, block))
            tokens.append(own)
            prompts.append(extra)
    return Activations(rows, targets_of(dataset, rows, candidates), torch.cat(tokens), torch.cat(prompts))
