"""Linear probe: logistic regression on frozen image features (Radford et al. 2021, appendix A.3).

The L2 strength is chosen by accuracy on the validation shots: first on a grid of C seven decades wide in steps of two,
then by halving, on a logarithmic scale, the interval one decade to each side of the best grid value.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from conceptbench.adaptation.adapter import Logits
from conceptbench.adaptation.fitting import Fitting, Stored
from conceptbench.adaptation.head import TrainedClassesAdapter
from conceptbench.adaptation.specs import LinearProbeSpec
from conceptbench.adaptation.storage import require_tensors
from conceptbench.errors import ConceptBenchError

if TYPE_CHECKING:
    from conceptbench.backbones import Backbone

GRID = (1e6, 1e4, 1e2, 1.0, 1e-2, 1e-4, 1e-6)
"""First values of C; among equally accurate ones the first is kept."""


@dataclass(frozen=True, eq=False)
class LinearProbeAdapter(TrainedClassesAdapter):
    """Weights [class, embed] and intercepts [class]."""

    weight: Tensor
    bias: Tensor

    @property
    def _what(self) -> str:
        return "a linear probe"

    def tensors(self) -> dict[str, Tensor]:
        """`weight` and `bias`."""
        return {"weight": self.weight, "bias": self.bias}

    def classify(
        self, backbone: Backbone, features: Float[Tensor, "image embed"], class_names: Sequence[str]
    ) -> Logits:
        """Affine logits of image features; `class_names` must all be trained classes."""
        self.require_backbone(backbone)
        chosen = self._places(class_names)
        weight, bias = self.weight.to(features), self.bias.to(features)
        return features @ weight[chosen].T + bias[chosen]


def fit_linear_probe(spec: LinearProbeSpec, fitting: Fitting) -> LinearProbeAdapter:
    """Fit the probe to the training shots, with C chosen on the validation shots.

    Raises ConceptBenchError when a class has no validation images, or there are fewer than two classes.
    """
    task = fitting.task
    task.require_validation("choose a probe's C")
    if len(task.class_names) < 2:
        raise ConceptBenchError(f"data set {task.dataset.name!r}: a linear probe needs at least two trained classes.")
    rows = np.concatenate([task.train_rows, task.val_rows])
    features = fitting.features(rows).cpu().double().numpy()
    train, val = features[: len(task.train_rows)], features[len(task.train_rows) :]

    def accuracy(c: float) -> float:
        weight, bias = _regression(train, task.train_targets, c, spec.max_iter)
        return float(np.mean(np.argmax(val @ weight.T + bias, axis=1) == task.val_targets))

    c, score = search_c(accuracy, spec.search_steps)
    weight, bias = _regression(train, task.train_targets, c, spec.max_iter)
    training = {"c": c, "val_accuracy": score, "n_train": len(task.train_rows), "n_val": len(task.val_rows)}
    return LinearProbeAdapter(
        spec, fitting.card | {"training": training}, torch.from_numpy(weight).float(), torch.from_numpy(bias).float()
    )


def search_c(accuracy: Callable[[float], float], steps: int) -> tuple[float, float]:
    """The C with the best validation accuracy found by the grid and the interval search, and that accuracy.

    Of the two ends of the interval the better stays (the lower C on a tie) and the other moves to the middle.
    """
    scores = [accuracy(c) for c in GRID]
    best = math.log10(GRID[int(np.argmax(scores))])
    low, high = best - 1, best + 1
    chosen, score = 10.0**best, max(scores)
    for _ in range(steps):
        at_low, at_high = accuracy(10.0**low), accuracy(10.0**high)
        chosen, score = (10.0**high, at_high) if at_high > at_low else (10.0**low, at_low)
        middle = (low + high) / 2
        low, high = (middle, high) if at_high > at_low else (low, middle)
    return chosen, score


def restore_linear_probe(spec: LinearProbeSpec, stored: Stored) -> LinearProbeAdapter:
    """The adapter of a card and its tensors."""
    n_classes = len(stored.card["classes"])
    expected = {"weight": (n_classes, stored.backbone.embed_dim), "bias": (n_classes,)}
    require_tensors(stored.tensors, expected, stored.source)
    return LinearProbeAdapter(spec, stored.card, stored.tensors["weight"], stored.tensors["bias"])


def _regression(
    features: NDArray[np.float64], targets: NDArray[np.int64], c: float, max_iter: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights [class, embed] and intercepts [class] of an L2-penalised multinomial logistic regression.

    For two classes the one row that scikit-learn fits becomes two, with the same probabilities.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        # Very large C does not converge within the recipe's iterations; the recipe scores it as it stands.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=c, solver="lbfgs", max_iter=max_iter).fit(features, targets)
    weight, bias = np.asarray(model.coef_), np.asarray(model.intercept_)
    if len(weight) == 1:
        return np.concatenate([np.zeros_like(weight), weight]), np.concatenate([np.zeros_like(bias), bias])
    return weight, bias
