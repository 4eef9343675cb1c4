"""Synthetic activations whose atoms and codes are known: sparse non-negative sums of unit atoms, and noise.

    x = sum_i m_i a_i + noise,   m_i = |1 + spread * normal| where feature i fires, else 0

The generator follows the parts of SynthSAEBench (Chanin and Garriga-Alonso, arXiv 2602.14687): firing probabilities by
Zipf's law, folded-normal magnitudes, firings correlated by a low-rank Gaussian copula, children that fire only where
their parent does. Every random stream depends on (experiment seed, name of the world, seed of the draw, its use), so
tokens are the same however many of them are asked for.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64
from scipy import sparse
from scipy.special import ndtri

from conceptbench.errors import ConceptBenchError
from conceptbench.seeds import rng
from conceptbench.tables import digest

CHUNK: Final = 8192
"""Tokens drawn at a time; part of the definition of the streams."""
MOST_OFTEN: Final = 0.5
"""Largest firing probability: the head of Zipf's law is cut here."""
SPREADING_STEPS: Final = 2000
SPREADING_RATE: Final = 0.5
SPREADING_MARGIN: Final = 0.98
"""Cosines are pushed below this share of the bound, so that the last steps do not creep towards it."""


@dataclass(frozen=True, kw_only=True)
class WorldSpec:
    """What a world is drawn from."""

    name: str
    """Name of the world; part of its random streams."""
    features: int = 256
    """True features, that is atoms."""
    d: int = 64
    """Features of a token."""
    l0: float = 4.0
    """True features that fire on a token, on average."""
    exponent: float = 0.5
    """Firing probabilities fall with the rank to this power (Zipf); 0 makes them equal."""
    spread: float = 0.25
    """Magnitudes are |1 + spread * normal|."""
    coherence: float | None = None
    """Largest absolute cosine of two atoms; None leaves random directions as they are drawn."""
    correlation: float = 0.0
    """Share of common factors in the normal variable whose threshold makes a feature fire."""
    rank: int = 8
    """Number of these common factors."""
    parents: int = 0
    """Features with children, the first ones; 0 means no hierarchy."""
    children: int = 4
    """Children of each parent."""
    depth: int = 1
    """Generations of children."""
    noise: float = 0.1
    """Expected norm of the isotropic noise of a token (root mean square)."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        self._require(self.features >= 2 and self.d >= 2, "features and d must be at least 2")
        self._require(0 < self.l0 <= MOST_OFTEN * self.features, f"l0 {self.l0} must lie in (0, {MOST_OFTEN} features]")
        self._require(min(self.exponent, self.spread, self.noise) >= 0, "exponent, spread and noise are not negative")
        self._require(0 <= self.correlation < 1 and self.rank >= 1, "correlation must lie in [0, 1) and rank from 1")
        self._require(
            not self.parents or self.exponent > 0, "a hierarchy needs an exponent above 0: children are rarer"
        )
        self._require(self.in_hierarchy <= self.features, f"its hierarchy has {self.in_hierarchy} features")
        welch = np.sqrt(max(0.0, (self.features - self.d) / (self.d * (self.features - 1))))
        bound = self.coherence is None or welch / SPREADING_MARGIN <= self.coherence <= 1
        self._require(bound, f"coherence {self.coherence} is below the Welch bound {welch:.3f}")

    @property
    def in_hierarchy(self) -> int:
        """Features that are parents or descendants."""
        return self.parents * sum(int(self.children**generation) for generation in range(self.depth + 1))

    @property
    def digest(self) -> str:
        """SHA-256 of the specification."""
        return digest(asdict(self))

    def _require(self, holds: bool, what: str) -> None:
        if not holds:
            raise ConceptBenchError(f"Synthetic world '{self.name}': {what}; correct it in the configuration.")


@dataclass(frozen=True, eq=False)
class Tokens:
    """Activations and the codes that made them; a code's entries are magnitudes of unit atoms."""

    x: Float32[np.ndarray, "token d"]
    codes: sparse.csr_array
    """[token, feature], float32."""


@dataclass(frozen=True, eq=False)
class World:
    """One draw of a specification."""

    spec: WorldSpec
    atoms: Float32[np.ndarray, "feature d"]
    """Unit rows, the most frequent feature first."""
    probabilities: Float64[np.ndarray, "feature"]
    """How often each feature fires (exactly where `correlation` is 0 or there is no hierarchy)."""
    parents: Int64[np.ndarray, "feature"]
    """The parent of each feature, -1 where there is none; a parent comes before its children."""
    loadings: Float64[np.ndarray, "feature rank"]
    """Unit rows: how a feature depends on the common factors."""
    stream: tuple[int, str, int]
    """Experiment seed, name, seed of the draw."""

    @classmethod
    def draw(cls, spec: WorldSpec, seed: int, experiment_seed: int = 0) -> Self:
        """Draw atoms and correlations.

        Raises:
            ConceptBenchError: when no atoms of so small a coherence are found.
        """
        stream = (experiment_seed, spec.name, seed)
        atoms = _unit(_rng(stream, "atoms").standard_normal((spec.features, spec.d)))
        if spec.coherence is not None:
            atoms = spread_atoms(atoms, spec.coherence)
        loadings = _unit(_rng(stream, "loadings").standard_normal((spec.features, spec.rank)))
        probabilities = firing_probabilities(spec.features, spec.l0, spec.exponent)
        return cls(spec, atoms.astype(np.float32), probabilities, parents_of(spec), loadings, stream)

    def batches(self, tokens: int) -> Callable[[int], Iterator[Float32[np.ndarray, "token d"]]]:
        """Return training tokens in the form of the training engine: epoch -> chunks, the same tokens in every epoch.

        The first epoch takes the chunks in the order in which they are drawn, later ones in a random order.
        """
        starts = np.arange(0, tokens, CHUNK)

        def epoch_of(epoch: int) -> Iterator[np.ndarray]:
            """Yield the chunks of one epoch."""
            order = np.arange(len(starts))
            if epoch > 0:
                _rng(self.stream, "order", epoch).shuffle(order)
            for chunk in order:
                yield self._chunk("train", int(chunk)).x[: tokens - starts[chunk]]

        return epoch_of

    def tokens(self, split: str, count: int) -> Tokens:
        """Draw the first `count` tokens of a split with their codes; splits are independent."""
        parts = [self._chunk(split, chunk) for chunk in range(-(-count // CHUNK))]
        x = np.concatenate([part.x for part in parts])[:count]
        return Tokens(x, sparse.csr_array(sparse.vstack([part.codes for part in parts])[:count]))

    def _chunk(self, split: str, chunk: int) -> Tokens:
        draw = _rng(self.stream, split, chunk)
        fires = self._fires(draw)
        row, feature = np.nonzero(fires)
        magnitudes = np.abs(1 + self.spec.spread * draw.standard_normal(len(row))).astype(np.float32)
        codes = sparse.csr_array((magnitudes, (row, feature)), shape=fires.shape)
        noise = draw.standard_normal((CHUNK, self.spec.d), np.float32) * np.float32(self.spec.noise / self.spec.d**0.5)
        return Tokens(codes @ self.atoms + noise, codes)

    def _fires(self, draw: np.random.Generator) -> Bool[np.ndarray, "token feature"]:
        """A feature fires where its normal variable exceeds the quantile of its probability given its parent."""
        share = self.spec.correlation
        normal = draw.standard_normal((CHUNK, self.spec.features), np.float32)
        if share > 0:
            common = draw.standard_normal((CHUNK, self.spec.rank), np.float32) @ self.loadings.T.astype(np.float32)
            normal = np.float32((1 - share) ** 0.5) * normal + np.float32(share**0.5) * common
        given = self.probabilities.copy()
        inside = self.parents >= 0
        given[inside] /= self.probabilities[self.parents[inside]]
        fires = normal > ndtri(1 - given).astype(np.float32)
        for feature in np.flatnonzero(inside):
            fires[:, feature] &= fires[:, self.parents[feature]]
        return np.asarray(fires)


def firing_probabilities(features: int, l0: float, exponent: float) -> Float64[np.ndarray, "feature"]:
    """Return p_i = min(MOST_OFTEN, c (i + 1)^-exponent) with the c that makes them sum to `l0`, descending."""
    weights = np.arange(1, features + 1, dtype=np.float64) ** -exponent
    capped = np.zeros(features, bool)
    while True:
        scale = (l0 - MOST_OFTEN * capped.sum()) / weights[~capped].sum() if not capped.all() else 0.0
        p = np.where(capped, MOST_OFTEN, scale * weights)
        over = p > MOST_OFTEN
        if not over.any():
            return np.asarray(p)
        capped |= over


def parents_of(spec: WorldSpec) -> Int64[np.ndarray, "feature"]:
    """Return the parent of every feature, -1 for none; the children of one parent stand together."""
    feature = np.arange(spec.features)
    child = (feature >= spec.parents) & (feature < spec.in_hierarchy)
    return np.where(child, (feature - spec.parents) // spec.children, -1)


def spread_atoms(atoms: Float[np.ndarray, "feature d"], coherence: float) -> Float64[np.ndarray, "feature d"]:
    """Move unit rows until no two have an absolute cosine above `coherence`: gradient steps on the squared excess.

    Raises:
        ConceptBenchError: when the bound is not reached.
    """
    rows = atoms.astype(np.float64)
    limit = SPREADING_MARGIN * coherence
    for _ in range(SPREADING_STEPS):
        gram = rows @ rows.T
        np.fill_diagonal(gram, 0.0)
        if np.abs(gram).max() <= coherence:
            return rows
        rows = _unit(rows - SPREADING_RATE * (gram - gram.clip(-limit, limit)) @ rows)
    raise ConceptBenchError(
        f"No {len(rows)} atoms in {rows.shape[1]} dimensions with a coherence of {coherence} were found; "
        "raise the coherence or lower the number of features."
    )


def world_spec(name: str, options: dict[str, Any]) -> WorldSpec:
    """Build a specification from a section of the configuration.

    Raises:
        ConceptBenchError: for values that cannot be drawn, or an unknown option.
    """
    try:
        return WorldSpec(name=name, **options)
    except TypeError as error:
        raise ConceptBenchError(f"Synthetic world '{name}': {error}; correct it in the configuration.") from error


def _unit(rows: np.ndarray) -> np.ndarray:
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def _rng(stream: tuple[int, str, int], *names: str | int) -> np.random.Generator:
    base, name, seed = stream
    return rng(base, "synthetic", name, seed, *names)
