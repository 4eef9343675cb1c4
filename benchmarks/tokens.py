"""Tokens to train on: sparse sums of known directions, as activations are thought to be, with nothing to download."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import numpy as np
import scipy.sparse as sp
from jaxtyping import Float32

from conceptbench.seeds import rng
from conceptbench.tables import atomic_write, digest

CHUNK: Final = 4096


@dataclass(frozen=True, kw_only=True)
class Planted:
    """A world of directions that fire independently; tokens come out with mean 0 and variance 1 per coordinate.

    Firing rates fall with the rank (Zipf's law), so that a few directions are dense, as in real activations, and a
    dictionary learns something within the few steps a benchmark can afford. Magnitudes are 1 + |N(0, 1/2)|.
    """

    d: int = 768
    directions: int = 4096
    mean_firing: float = 24.0
    noise: float = 0.1
    """Share of the variance that is white noise: the lowest FVU there is to reach."""
    seed: int = 0


class World:
    """The directions of a specification, and tokens by chunk: chunk i is the same however many are drawn."""

    def __init__(self, spec: Planted) -> None:
        """Draw the directions."""
        self._spec = spec
        drawn = rng(spec.seed, "planted", "directions").standard_normal((spec.directions, spec.d), dtype=np.float32)
        self._directions = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
        falling = 1 / np.arange(1, spec.directions + 1)
        rates = spec.mean_firing * falling / falling.sum()
        self._cumulative = np.cumsum(rates) / rates.sum()
        magnitude = 1 + 0.5 * np.sqrt(2 / np.pi)
        self._mean = (rates * magnitude) @ self._directions
        self._scale = float(np.sqrt(np.square(self._signal(0)).mean() / (1 - spec.noise)))

    def chunk(self, index: int) -> Float32[np.ndarray, "token feature"]:
        """Return `CHUNK` tokens."""
        white = rng(self._spec.seed, "planted", "noise", index).standard_normal((CHUNK, self._spec.d), dtype=np.float32)
        tokens: np.ndarray = self._signal(index) / self._scale + np.float32(np.sqrt(self._spec.noise)) * white
        return tokens.astype(np.float32)

    def _signal(self, index: int) -> Float32[np.ndarray, "token feature"]:
        generator = rng(self._spec.seed, "planted", "codes", index)
        counts = generator.poisson(self._spec.mean_firing, CHUNK)
        total = int(counts.sum())
        columns = np.searchsorted(self._cumulative, generator.random(total), side="right")
        columns = np.minimum(columns, self._spec.directions - 1)
        values = (1 + np.abs(generator.normal(0, 0.5, total))).astype(np.float32)
        start = np.concatenate([[0], np.cumsum(counts)])
        codes = sp.csr_array((values, columns, start), shape=(CHUNK, self._spec.directions))
        signal: np.ndarray = codes @ self._directions - self._mean
        return signal.astype(np.float32)


def token_file(folder: Path, spec: Planted, chunks: int, first: int = 0) -> Path:
    """Return a flat float32 file of `chunks` chunks from `first` on, written unless it is there."""
    path = folder / f"{digest([asdict(spec), first, chunks])[:16]}.f32"
    if path.is_file() and path.stat().st_size == chunks * CHUNK * spec.d * 4:
        return path
    world = World(spec)
    with atomic_write(path) as temporary, temporary.open("wb") as handle:
        for index in range(first, first + chunks):
            world.chunk(index).tofile(handle)
    return path
