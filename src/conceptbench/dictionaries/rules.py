"""From pre-activations to codes: the closed union of the rules by which a dictionary chooses what fires."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from jaxtyping import Float32

from conceptbench.errors import ConceptBenchError


@dataclass(frozen=True)
class KeepLargest:
    """At most `k` latents fire on a token: the largest pre-activations, where they are positive."""

    k: int


@dataclass(frozen=True, eq=False)
class KeepAbove:
    """A latent fires where its pre-activation exceeds its threshold, and keeps its full value (ReLU when all are 0)."""

    thresholds: Float32[np.ndarray, "latent"]


@dataclass(frozen=True)
class Assign:
    """One latent fires, that of the largest pre-activation, with the value 1: the token is its atom."""


Sign: TypeAlias = Literal["positive", "split"]
"""Coefficients of a pursuit: never negative, or of both signs, which two latents an atom keep apart."""


@dataclass(frozen=True)
class Pursue:
    """At most `k` atoms fire on a token, those of an orthogonal matching pursuit (`omp.omp_encode`).

    With `split` the second half of the atoms is the negated first half; the pursuit works on the first half with
    coefficients of both signs, and a negative one is a firing of the second half. Encoder and its bias are not used.
    """

    k: int
    sign: Sign


CodeRule: TypeAlias = KeepLargest | KeepAbove | Assign | Pursue


def describe_rule(rule: CodeRule) -> dict[str, Any]:
    """Return the rule as the card records it; thresholds themselves are a tensor of the dictionary's file."""
    match rule:
        case KeepLargest(k=k):
            return {"rule": "keep-largest", "k": k}
        case KeepAbove():
            return {"rule": "keep-above"}
        case Assign():
            return {"rule": "assign"}
        case Pursue(k=k, sign=sign):
            return {"rule": "pursue", "k": k, "sign": sign}


def restore_rule(record: dict[str, Any], thresholds: Float32[np.ndarray, "latent"] | None, where: str) -> CodeRule:
    """Return the rule that a card records.

    Raises:
        ConceptBenchError: when card and tensors do not fit.
    """
    match record, thresholds:
        case {"rule": "keep-largest", "k": int(k)}, None:
            return KeepLargest(k)
        case {"rule": "keep-above"}, np.ndarray():
            return KeepAbove(thresholds)
        case {"rule": "assign"}, None:
            return Assign()
        case {"rule": "pursue", "k": int(k), "sign": "positive" | "split" as sign}, None:
            return Pursue(k, sign)
    raise ConceptBenchError(
        f"{where}: the code rule {record} does not fit the stored tensors; learn the dictionary again."
    )
