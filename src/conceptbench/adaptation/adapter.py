"""What every adaptation yields: a way to change the image side, a text side, and logits from the two."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from conceptbench.adaptation.specs import MethodSpec, moves_images
from conceptbench.errors import ConceptBenchError

if TYPE_CHECKING:
    from pathlib import Path

    from conceptbench.backbones import Backbone

Logits = Float[Tensor, "image class"]


@dataclass(frozen=True, eq=False)
class Adapter(ABC):
    """A backbone adapted to one task; the backbone itself is never changed."""

    spec: MethodSpec
    card: dict[str, Any]
    """Backbone, data set, classes, seed and training record, as `card.json` holds them."""
    _texts: dict[tuple[str, ...], Tensor] = field(default_factory=dict, init=False, repr=False)

    @property
    def moves_images(self) -> bool:
        """Whether the image tower computes something else inside `image_context`."""
        return moves_images(self.spec)

    @abstractmethod
    def tensors(self) -> dict[str, Tensor]:
        """The learned tensors by name; nothing that belongs to a list of classes only."""

    @abstractmethod
    def _encode_classes(self, backbone: Backbone, class_names: Sequence[str]) -> Float[Tensor, "class embed"]:
        """Text features of the classes, not normalised."""

    def image_context(self, backbone: Backbone) -> AbstractContextManager[None]:
        """Inside it the backbone's image tower is the adapted one."""
        self.require_backbone(backbone)
        return nullcontext()

    def text_features(self, backbone: Backbone, class_names: Sequence[str]) -> Float[Tensor, "class embed"]:
        """L2-normalised class vectors of the adapted text side, computed once per list of classes."""
        self.require_backbone(backbone)
        key = tuple(class_names)
        if key not in self._texts:
            with torch.no_grad():
                self._texts[key] = F.normalize(self._encode_classes(backbone, key), dim=-1)
        return self._texts[key]

    def classify(
        self, backbone: Backbone, features: Float[Tensor, "image embed"], class_names: Sequence[str]
    ) -> Logits:
        """Logits of image features (not normalised, from any image side) under this adapter's text side."""
        return cosine_logits(backbone, features, self.text_features(backbone, class_names))

    def missing_note(self, class_names: Sequence[str]) -> str:
        """Why these classes cannot be scored; empty when they can."""
        return ""

    def save(self, folder: Path) -> None:
        """Write `adapter.safetensors` and `card.json` to `folder`."""
        from conceptbench.adaptation.storage import save_adapter

        save_adapter(self, folder)

    def require_classes(self, dataset: str, trained: Sequence[str]) -> None:
        """Raise ConceptBenchError unless this adapter was trained on the classes `trained`; `dataset` has them."""
        own = list(self.card["classes"])
        if own != list(trained):
            raise ConceptBenchError(
                f"the {self.spec.name!r} adapter was trained on {len(own)} classes ({own[0]!r}, ...) of data set "
                f"{self.card['dataset']['name']!r}, not on the {len(trained)} ({trained[0]!r}, ...) of {dataset!r}; "
                "adapt to that data set, or classify by class names of your own."
            )

    def require_backbone(self, backbone: Backbone) -> None:
        """Raise ConceptBenchError when the adapter was fitted to another backbone."""
        expected = self.card["backbone"]
        if expected["digest"] != backbone.digest:
            raise ConceptBenchError(
                f"the {self.spec.name!r} adapter was fitted to backbone {expected['name']!r} with weights "
                f"{expected['digest'][:12]}, not to {backbone.name!r} with weights {backbone.digest[:12]}; "
                "adapt this backbone or load the other one."
            )


def cosine_logits(
    backbone: Backbone, features: Float[Tensor, "image embed"], texts: Float[Tensor, "class embed"]
) -> Logits:
    """Cosine of image features with normalised class vectors, times the backbone's logit scale."""
    return backbone.logit_scale * F.normalize(features, dim=-1) @ texts.T


@torch.no_grad()
def predict(
    adapter: Adapter,
    backbone: Backbone,
    pixels: Float[Tensor, "image channel height width"],
    class_names: Sequence[str],
) -> Logits:
    """Logits of preprocessed pixels over `class_names` under the adapted model."""
    with adapter.image_context(backbone):
        features = backbone.encode_image(pixels)
    return adapter.classify(backbone, features, class_names)
