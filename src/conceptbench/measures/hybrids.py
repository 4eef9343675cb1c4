"""Hybrids of the zero-shot and the adapted model: activations of one, readout of the other.

The image tower is cut at the hook point. Below it, activations come from the zero-shot (Z) or the adapted model (A);
above it, blocks and text side come from Z or A. Prompt tokens belong to the blocks: A's activations under Z's blocks
lose them; Z's activations under A's blocks get A's prompt states at the hook point, averaged over split A (variant
"averaged"), or those of the same image under A (variant "own", a sensitivity check: these states have already looked
at the image through A). A's activations under A's blocks always keep their own, so this hybrid is the adapted model.

An adaptation that leaves the image tower alone (CoOp, CoCoOp, Tip-Adapter, the linear probe) sees the zero-shot
activations: all hybrids share the plain features, perception is exactly 0 and mapping the whole gain
(`unmoved_predictions`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from conceptbench.errors import ConceptBenchError
from conceptbench.measures.readout import AdaptedModel, half_rows, pixel_batches, targets_of

if TYPE_CHECKING:
    from conceptbench.backbones import Backbone
    from conceptbench.data import Dataset

Model = Literal["zero-shot", "adapted"]
Variant = Literal["averaged", "own"]


class FittedModel(AdaptedModel, Protocol):
    """An adapter of one list of classes."""

    def require_classes(self, dataset: str, trained: Sequence[str]) -> None:
        """Raise ConceptBenchError unless these are the classes it was trained on; `dataset` has them."""


MODELS: tuple[Model, Model] = ("zero-shot", "adapted")
Features = dict[tuple[Model, Model, Variant], Tensor]
"""(source of the activations, source of the blocks, variant) -> image features [image, embed], not normalised."""
COLUMNS = ["half", "image", "label", "variant", "source", "blocks", "text", "correct", "log_likelihood"]
"""Columns of the predictions of hybrids."""


@torch.no_grad()
def mean_prompt_states(
    backbone: Backbone, adapter: AdaptedModel, batches: Iterator[Tensor], block: int
) -> Float[Tensor, "prompt feature"]:
    """The adapter's prompt states at the output of `block`, averaged over images; no rows without prompts."""
    total, count = None, 0
    with adapter.image_context(backbone):
        for pixels in batches:
            prompts = backbone.split_prompts(backbone.lower(pixels, block))[1].double()
            total = prompts.sum(dim=0) if total is None else total + prompts.sum(dim=0)
            count += len(prompts)
    if total is None:
        raise ConceptBenchError("The average of the prompt states got no images; give split A at least one.")
    return (total / count).to(backbone.dtype)


@torch.no_grad()
def hybrid_features(
    backbone: Backbone,
    adapter: AdaptedModel,
    pixels: Float[Tensor, "image 3 size size"],
    block: int,
    prompts: Float[Tensor, "prompt feature"],
) -> Features:
    """Image features of the four (activations, blocks) combinations, and of the variant with own prompt states.

    `prompts` are the averaged states (`mean_prompt_states`). Features of an undivided model have the bits of its plain
    forward.
    """
    zero_shot = backbone.lower(pixels, block)
    with adapter.image_context(backbone):
        adapted, own = backbone.split_prompts(backbone.lower(pixels, block))
    averaged = prompts.to(zero_shot).expand(len(zero_shot), -1, -1)
    out: Features = {
        ("zero-shot", "zero-shot", "averaged"): backbone.upper(zero_shot, block),
        ("adapted", "zero-shot", "averaged"): backbone.upper(adapted, block),
    }
    with adapter.image_context(backbone):
        out["zero-shot", "adapted", "averaged"] = backbone.upper(torch.cat([zero_shot, averaged], dim=1), block)
        out["adapted", "adapted", "averaged"] = backbone.upper(torch.cat([adapted, own], dim=1), block)
        if own.shape[1]:
            out["zero-shot", "adapted", "own"] = backbone.upper(torch.cat([zero_shot, own], dim=1), block)
    return out


def hybrid_predictions(
    backbone: Backbone,
    zero_shot: FittedModel,
    adapter: FittedModel,
    dataset: Dataset,
    halves: dict[str, list[int]],
    *,
    block: int,
    split_a: str = "val",
    split_b: str = "test",
    batch_size: int = 100,
    progress: bool = True,
) -> pd.DataFrame:
    """Correctness and log-likelihood of every image of split B under all eight hybrids of perception, blocks and text.

    Args:
        zero_shot, adapter: the two models on this backbone. halves: half -> labels that are its candidates, those
            that were trained first.
        block: hook point. split_a: images whose prompt states are averaged. split_b: images that are scored.

    Returns:
        half, image, label, variant (averaged, and own where there are prompts), source, blocks, text (each zero-shot
        or adapted), correct, log_likelihood. Halves that the adapter cannot score have no rows.

    Raises ConceptBenchError when a model was trained on other classes, a class has no images in a split, or the adapter
    can score no half.
    """
    scored = _scored_halves((zero_shot, adapter), dataset, halves)
    prompts = mean_prompt_states(
        backbone,
        adapter,
        pixel_batches(backbone, dataset, half_rows(dataset, split_a, halves), batch_size, False),
        block,
    )
    frames: list[pd.DataFrame] = []
    for half, candidates in scored:
        rows = half_rows(dataset, split_b, {half: candidates})
        start = 0
        for pixels in pixel_batches(backbone, dataset, rows, batch_size, progress):
            features = hybrid_features(backbone, adapter, pixels, block, prompts)
            batch = rows[start : start + len(pixels)]
            frames.append(_score(backbone, (zero_shot, adapter), features, dataset, batch, candidates, half))
            start += len(pixels)
    return pd.concat(frames, ignore_index=True)[COLUMNS]


@torch.no_grad()
def unmoved_predictions(
    backbone: Backbone,
    zero_shot: FittedModel,
    adapter: FittedModel,
    dataset: Dataset,
    halves: dict[str, list[int]],
    plain: Callable[[NDArray[np.int64]], Float[Tensor, "image embed"]],
    *,
    split_b: str = "test",
    batch_size: int = 100,
) -> pd.DataFrame:
    """`hybrid_predictions` of an adapter that leaves the image tower alone, without a forward of its own.

    Args:
        plain: image features (not normalised) of rows under the plain backbone, which all hybrids share.
    """
    frames: list[pd.DataFrame] = []
    for half, candidates in _scored_halves((zero_shot, adapter), dataset, halves):
        rows = half_rows(dataset, split_b, {half: candidates})
        for start in range(0, len(rows), batch_size):
            batch = rows[start : start + batch_size]
            shared = plain(batch)
            features: Features = {(source, blocks, "averaged"): shared for source in MODELS for blocks in MODELS}
            frames.append(_score(backbone, (zero_shot, adapter), features, dataset, batch, candidates, half))
    return pd.concat(frames, ignore_index=True)[COLUMNS]


def _scored_halves(
    models: tuple[FittedModel, FittedModel], dataset: Dataset, halves: dict[str, list[int]]
) -> list[tuple[str, list[int]]]:
    """The halves that the adapter, the second model, can score.

    Raises ConceptBenchError when there is none, or a model was trained on other classes than those of the first half.
    """
    trained = [dataset.classes[label] for label in next(iter(halves.values()))]
    for model in models:
        model.require_classes(dataset.name, trained)
    found = [
        (half, candidates)
        for half, candidates in halves.items()
        if not models[1].missing_note([dataset.classes[label] for label in candidates])
    ]
    if not found:
        raise ConceptBenchError(f"The adapter can score no half of data set {dataset.name!r}; nothing to decompose.")
    return found


def _score(
    backbone: Backbone,
    models: tuple[AdaptedModel, AdaptedModel],
    features: Features,
    dataset: Dataset,
    rows: NDArray[np.int64],
    candidates: list[int],
    half: str,
) -> pd.DataFrame:
    """Rows of one batch: the variants times the eight hybrids times the images.

    Hybrids that share a tensor of features are classified once.
    """
    labels = np.asarray(dataset.labels(rows), dtype=np.int64)
    class_names, targets = [dataset.classes[label] for label in candidates], targets_of(dataset, rows, candidates)
    variants: tuple[Variant, ...] = (
        ("averaged", "own") if ("zero-shot", "adapted", "own") in features else ("averaged",)
    )
    cache: dict[tuple[int, Model], dict[str, NDArray[Any]]] = {}
    parts = []
    for variant in variants:
        for source in MODELS:
            for blocks in MODELS:
                of_variant = variant if (source, blocks) == ("zero-shot", "adapted") else "averaged"
                seen = features[source, blocks, of_variant]
                for text, model in zip(MODELS, models, strict=True):
                    if (id(seen), text) not in cache:
                        cache[id(seen), text] = _outcomes(model.classify(backbone, seen, class_names), targets)
                    states = {"variant": variant, "source": source, "blocks": blocks, "text": text}
                    identity = {"half": half, "image": rows, "label": labels}
                    parts.append(pd.DataFrame({**identity, **cache[id(seen), text]}).assign(**states))
    return pd.concat(parts, ignore_index=True)


def _outcomes(logits: Tensor, targets: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    log_probabilities = torch.log_softmax(logits.detach().double().cpu(), dim=-1).numpy()
    rows = np.arange(len(targets))
    return {
        "correct": log_probabilities.argmax(axis=1) == targets,
        "log_likelihood": log_probabilities[rows, targets],
    }
