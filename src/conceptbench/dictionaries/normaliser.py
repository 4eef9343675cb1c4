"""The affine map between raw activations and what a dictionary is fitted to."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from jaxtyping import Float32, Float64

from conceptbench.errors import ConceptBenchError

PART: Final = 4_096


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
        mean = np.sum([part.sum(0) for part in _parts(tokens)], axis=0) / len(tokens)
        variance = sum(float(np.square(part - mean).sum()) for part in _parts(tokens)) / tokens.size
        scale = math.sqrt(variance)
        if not scale > 0:
            raise ConceptBenchError("The training tokens are all equal; record activations of several images.")
        return cls(mean.astype(np.float32), float(np.float32(scale)))

    def apply(self, x: Float32[np.ndarray, "*rows feature"]) -> Float32[np.ndarray, "*rows feature"]:
        """Map raw activations to normalised ones."""
        normalised: np.ndarray = x - self.mean
        normalised /= np.float32(self.scale)
        return normalised

    def invert(self, x: Float32[np.ndarray, "*rows feature"]) -> Float32[np.ndarray, "*rows feature"]:
        """Map normalised activations back to raw ones."""
        raw: np.ndarray = x * np.float32(self.scale)
        raw += self.mean
        return raw


def _parts(tokens: Float32[np.ndarray, "token feature"]) -> Iterator[Float64[np.ndarray, "part feature"]]:
    """Yield the tokens in double precision, a few at a time, so that a large sample is not copied as a whole."""
    for start in range(0, len(tokens), PART):
        yield tokens[start : start + PART].astype(np.float64)
