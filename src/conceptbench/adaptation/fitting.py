"""What every method gets: everything to learn from, and everything to come back from disk."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from conceptbench.adaptation.features import PlainFeatures
from conceptbench.adaptation.tasks import Task

if TYPE_CHECKING:
    from conceptbench.backbones import Backbone


@dataclass(frozen=True, eq=False)
class Fitting:
    """What a method learns from."""

    backbone: Backbone
    task: Task
    card: dict[str, Any]
    """The card of the adapter to be; the method adds its record of the training."""
    features: PlainFeatures
    """Image features of the plain backbone, shared by all that asks for them."""
    progress: bool = True


@dataclass(frozen=True, eq=False)
class Stored:
    """What an adapter is restored from."""

    backbone: Backbone
    card: dict[str, Any]
    tensors: dict[str, Tensor]
    source: str
    """The file of the tensors, for messages."""
