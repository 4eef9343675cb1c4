"""An adapter of another list of classes is refused wherever an adapted model is measured."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from adaptation_tools import CLASSES, ColourDataset, clip_backbone

from conceptbench.adaptation import Adapter, PlainFeatures, adapt
from conceptbench.backbones import Backbone
from conceptbench.dictionaries import Dictionary, Normaliser
from conceptbench.dictionaries.rules import KeepLargest
from conceptbench.errors import ConceptBenchError
from conceptbench.measures.hybrids import hybrid_predictions, unmoved_predictions
from conceptbench.measures.stages.models import run_model, trained_half

BLOCK = 1
HALVES = {"base": [0, 1, 2], "novel": [3, 4]}
METHODS = {"zero-shot": {}, "vpt-deep": {"epochs": 1, "depth": 2, "n_ctx": 2}}


class Hues(ColourDataset):
    """Images of hues that measures can read."""

    def pictures(self, rows: Any) -> np.ndarray:
        return self.images(rows)


@pytest.fixture(scope="module")
def clip() -> Backbone:
    return clip_backbone()


@pytest.fixture(scope="module")
def adapters(clip: Backbone) -> tuple[Adapter, Adapter]:
    zero_shot, moved = (
        adapt({"method": method, **options}, clip, Hues(), 1, 1, progress=False) for method, options in METHODS.items()
    )
    return zero_shot, moved


def hybrids(clip: Backbone, models: tuple[Adapter, Adapter], data: Any) -> Any:
    return hybrid_predictions(clip, *models, data, HALVES, block=BLOCK, progress=False)


def unmoved(clip: Backbone, models: tuple[Adapter, Adapter], data: Any) -> Any:
    return unmoved_predictions(clip, models[0], models[0], data, HALVES, PlainFeatures(clip, data, progress=False))


def encoded(clip: Backbone, models: tuple[Adapter, Adapter], data: Any) -> Any:
    width = clip.width
    zeros = np.zeros(width, np.float32)
    normaliser = Normaliser.fit(np.random.default_rng(0).normal(size=(8, width)).astype(np.float32))
    atoms = np.eye(width, dtype=np.float32)
    dictionary = Dictionary(atoms, atoms, zeros, zeros, normaliser, KeepLargest(2))
    images = trained_half("hues", data, "base-to-novel", 6, 0)
    return run_model(clip, models[1], data, images, BLOCK, dictionary)


@pytest.mark.parametrize("measure", [hybrids, unmoved, encoded])
def test_an_adapter_of_other_classes_is_refused(clip: Backbone, adapters: Any, measure: Callable[..., Any]) -> None:
    assert measure(clip, adapters, Hues()) is not None
    other = Hues(name="others", classes=tuple(reversed(CLASSES)))
    with pytest.raises(
        ConceptBenchError, match=r"trained on 3 classes .*'hues', not on the 3 .* of 'others'; adapt to"
    ):
        measure(clip, adapters, other)


@pytest.mark.parametrize("wrong", [0, 1])
def test_either_model_of_a_pair_may_be_the_wrong_one(clip: Backbone, adapters: Any, wrong: int) -> None:
    other = adapt({"method": "zero-shot"}, clip, Hues(classes=tuple(reversed(CLASSES))), 1, 1, progress=False)
    pair = [*adapters]
    pair[wrong] = other
    with pytest.raises(ConceptBenchError, match="the 'zero-shot' adapter was trained on 3 classes"):
        hybrids(clip, (pair[0], pair[1]), Hues())
