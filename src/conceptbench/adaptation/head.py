"""Classes without texts: adapters that score the classes they were trained on, and a linear head on an image tower.

The head stands in for the text side where a backbone has none. It sees image features scaled to a root mean square of
1, so that one learning rate serves backbones whose features differ in length. It starts at zero, where all classes are
equally likely, and is trained with the image tower's own learned tensors: same steps, learning rate and weight decay.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from conceptbench.adaptation.adapter import Adapter, Logits
from conceptbench.adaptation.fitting import Fitting, Stored
from conceptbench.adaptation.storage import require_tensors
from conceptbench.errors import ConceptBenchError

if TYPE_CHECKING:
    from conceptbench.backbones import Backbone

PREFIX = "head."
"""Start of the names of the head's tensors among those of an adapter."""


@dataclass(frozen=True, eq=False)
class TrainedClassesAdapter(Adapter):
    """An adapter with weights for the classes it was trained on, and for no others."""

    @property
    @abstractmethod
    def _what(self) -> str:
        """What has the weights, with its article."""

    def missing_note(self, class_names: Sequence[str]) -> str:
        """Names a class without weights, if there is one."""
        unknown = [name for name in class_names if name not in self.card["classes"]]
        if not unknown:
            return ""
        return f"{self._what} has no weights for classes it was not trained on, such as {unknown[0]!r}"

    def _encode_classes(self, backbone: Backbone, class_names: Sequence[str]) -> Float[Tensor, "class embed"]:
        raise ConceptBenchError(
            f"{self._what} has no text side; use its classify, or another method for class vectors."
        )

    def _places(self, class_names: Sequence[str]) -> list[int]:
        """Places of the classes among the trained ones.

        Raises ConceptBenchError for a class that was not trained.
        """
        note = self.missing_note(class_names)
        if note:
            raise ConceptBenchError(f"the {self.spec.name!r} adapter cannot score these classes: {note}.")
        trained = list(self.card["classes"])
        return [trained.index(name) for name in class_names]


class LinearHead(nn.Module):
    """Affine logits of scaled image features."""

    def __init__(self, n_classes: int, embed_dim: int) -> None:
        """Start at zero."""
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(n_classes, embed_dim))
        self.bias = nn.Parameter(torch.zeros(n_classes))

    def forward(self, features: Float[Tensor, "image embed"]) -> Logits:
        """Logits of image features (not normalised), which are scaled to a root mean square of 1."""
        scaled = F.normalize(features.to(self.weight.dtype), dim=-1) * features.shape[-1] ** 0.5
        return F.linear(scaled, self.weight, self.bias)


@dataclass(frozen=True, eq=False)
class HeadedAdapter(TrainedClassesAdapter):
    """An adapted image tower with a linear head."""

    tower: Adapter
    """The adapter of the image tower; its own text side is never asked for."""
    head: LinearHead

    @property
    def _what(self) -> str:
        return f"the linear head of {self.spec.method}"

    def tensors(self) -> dict[str, Tensor]:
        """Those of the image tower, `head.weight` and `head.bias`."""
        return self.tower.tensors() | {f"{PREFIX}{name}": value for name, value in self.head.state_dict().items()}

    def image_context(self, backbone: Backbone) -> AbstractContextManager[None]:
        """Inside it the backbone's image tower is the adapted one."""
        return self.tower.image_context(backbone)

    def classify(
        self, backbone: Backbone, features: Float[Tensor, "image embed"], class_names: Sequence[str]
    ) -> Logits:
        """Affine logits of image features; `class_names` must all be trained classes."""
        self.require_backbone(backbone)
        logits: Tensor = self.head(features)
        return logits[:, self._places(class_names)]


def new_head(fitting: Fitting) -> LinearHead:
    """An untrained head for the classes of the task, on the backbone's device."""
    return LinearHead(len(fitting.task.class_names), fitting.backbone.embed_dim).to(fitting.backbone.device)


def headed(tower: Adapter, head: LinearHead) -> HeadedAdapter:
    """A trained image tower and its trained head as one adapter."""
    return HeadedAdapter(tower.spec, tower.card, tower, head.requires_grad_(False))


def restore_headed(stored: Stored, restore_tower: Callable[[Stored], Adapter]) -> HeadedAdapter:
    """The adapter of a card and its tensors.

    Args:
        restore_tower: restores the adapter of the image tower from the tensors that are not the head's.

    Raises ConceptBenchError when the head's tensors are not those of the card's classes.
    """
    own = {name: value for name, value in stored.tensors.items() if name.startswith(PREFIX)}
    tower = restore_tower(replace(stored, tensors={k: v for k, v in stored.tensors.items() if k not in own}))
    head = LinearHead(len(stored.card["classes"]), stored.backbone.embed_dim)
    expected = {f"{PREFIX}{name}": tuple(value.shape) for name, value in head.state_dict().items()}
    require_tensors(own, expected, stored.source)
    head.load_state_dict({name.removeprefix(PREFIX): value for name, value in own.items()}, strict=True)
    return headed(tower, head.to(stored.backbone.device))
