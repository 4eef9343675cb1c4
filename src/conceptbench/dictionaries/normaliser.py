"""The affine map between raw activations and what a dictionary is fitted to."""

from dataclasses import dataclass
from typing import Self

import numpy as np
from jaxtyping import Float32

from conceptbench.errors import ConceptBenchError


@dataclass(frozen=True, eq=False)
class Normaliser:
    """`apply(x) = (x - mean) / scale`: one vector and one number, so that directions keep their angles."""

    mean: Float32[np.ndarray, "feature"]
    scale: float

    @classmethod
    def identity(cls, d: int) -> Self:
        """Return the map that changes nothing."""
        return cls(np.zeros(d, np.float32), 1.0)

    @classmethod
    def fit(cls, tokens: Float32[np.ndarray, "token feature"]) -> Self:
        """Fit the mean of `tokens` and the root of their variance averaged over features.

        Raises:
            ConceptBenchError: when all tokens are equal.
        """
        values = tokens.astype(np.float64)
        mean = values.mean(0)
        scale = float(np.sqrt(np.square(values - mean).mean()))
        if not scale > 0:
            raise ConceptBenchError("The training tokens are all equal; record activations of several images.")
        return cls(mean.astype(np.float32), float(np.float32(scale)))

    def apply(self, x: Float32[np.ndarray, "*rows feature"]) -> Float32[np.ndarray, "*rows feature"]:
        """Map raw activations to normalised ones."""
        normalised: np.ndarray = (x - self.mean) / np.float32(self.scale)
        return normalised

    def invert(self, x: Float32[np.ndarray, "*rows feature"]) -> Float32[np.ndarray, "*rows feature"]:
        """Map normalised activations back to raw ones."""
        raw: np.ndarray = x * np.float32(self.scale) + self.mean
        return raw
