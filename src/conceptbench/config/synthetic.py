"""Synthetic worlds of the configuration; the fields and defaults are those of `conceptbench.dictionaries.synthetic`."""

from collections.abc import Mapping
from itertools import product
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from conceptbench.config.dictionaries import DictionaryMethod
from conceptbench.config.sections import Count, Counts, Index, Indices, Name, NonNegative, Positive, Section


class World(Section):
    """Activations that are sparse sums of known atoms."""

    features: Annotated[int, Field(ge=2)] = 256
    """True features, that is atoms."""
    d: Annotated[int, Field(ge=2)] = 64
    """Features of a token: the dimension of the activations."""
    l0: Positive = 4.0
    """True features that fire on a token, on average."""
    exponent: NonNegative = 0.5
    """Firing probabilities fall with the rank to this power (Zipf); 0 makes them equal."""
    spread: NonNegative = 0.25
    """Magnitudes are |1 + spread * normal|: the folded normal distribution."""
    coherence: Annotated[float, Field(gt=0, le=1)] | None = None
    """Largest absolute cosine of two atoms; null leaves random directions as they are drawn."""
    correlation: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of common factors in what makes features fire (Gaussian copula); 0 makes them independent."""
    rank: Count = 8
    """Number of these common factors."""
    parents: Index = 0
    """Features with children: a child fires only where its parent fires; 0 means no hierarchy."""
    children: Count = 4
    """Children of each parent."""
    depth: Count = 1
    """Generations of children."""
    noise: NonNegative = 0.1
    """Expected norm of the isotropic noise of a token, in units of one feature's magnitude."""

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Self:
        if self.l0 > self.features / 2:
            raise ValueError(f"l0 {self.l0} is more than half of the {self.features} features")
        members = self.parents * sum(self.children**generation for generation in range(self.depth + 1))
        if members > self.features:
            raise ValueError(f"its hierarchy has {members} features, more than the {self.features} of the world")
        if self.parents and not self.exponent:
            raise ValueError("a hierarchy needs an exponent above 0, because children are rarer than their parents")
        return self


class Synthetic(Section):
    """Recovery of known atoms: dictionaries learnt on synthetic worlds; without worlds nothing is computed."""

    worlds: dict[Name, World] = Field(default_factory=dict)
    """Worlds by name; the first gives the plain keys of metrics.json."""
    seeds: Indices = (0, 1, 2)
    """Draws of each world; `seeds` of the experiment repeat the learning on each."""
    tokens: Count = 131_072
    """Training tokens of each draw."""
    held_out: Count = 8192
    """Tokens of split A (where features and latents are matched), and as many of split B (where they are scored)."""
    methods: tuple[Name, ...] | None = None
    """Names among `dictionaries.methods`; null means all."""
    widths: Counts | None = None
    """Every method with a width is learnt with each of these; null keeps its own."""
    ks: Counts | None = None
    """Every method with a k is learnt with each of these; null keeps its own."""


def swept_methods(
    chosen: Synthetic, methods: Mapping[str, DictionaryMethod]
) -> dict[str, tuple[DictionaryMethod, str]]:
    """Return (method, its name in `dictionaries.methods`) by the name of the dictionary on the synthetic worlds.

    With one value of `widths` and of `ks` a dictionary keeps its name; with several it is
    `<name>-k<k>-width<width>`, as a grid of `dictionaries.methods` would name it.

    Raises:
        ValueError: when a method does not take a value, for instance a width smaller than k.
    """
    swept: dict[str, tuple[DictionaryMethod, str]] = {}
    for name in methods if chosen.methods is None else chosen.methods:
        method = methods[name]
        fields = type(method).model_fields
        grid: dict[str, tuple[int, ...]] = {
            option: values
            for option, values in (("k", chosen.ks), ("width", chosen.widths))
            if values is not None and option in fields
        }
        for values in product(*grid.values()):
            changed: dict[str, Any] = dict(zip(grid, values, strict=True))
            suffix = "".join(f"-{option}{value}" for option, value in changed.items() if len(grid[option]) > 1)
            swept[name + suffix] = (type(method).model_validate({**method.model_dump(), **changed}), name)
    return swept
