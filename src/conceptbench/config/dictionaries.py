"""Dictionaries of the configuration: which methods there are, and what all of them share."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, TypeAlias

from pydantic import Discriminator, Field, Tag

from conceptbench.config.dictionary_methods import (
    Archetypal,
    BatchTopK,
    Frozen,
    Ica,
    JumpRelu,
    KMeans,
    KMeansPursuit,
    KSvd,
    Matryoshka,
    Own,
    Pca,
    Random,
    Raw,
    ReluL1,
    SemiNmf,
    TopK,
)
from conceptbench.config.sections import Count, Name, Section

_Autoencoder: TypeAlias = TopK | ReluL1 | BatchTopK | Matryoshka | JumpRelu | Archetypal | Frozen
_Classical: TypeAlias = KSvd | KMeans | KMeansPursuit | Ica | SemiNmf
_Null: TypeAlias = Random | Raw | Pca
_Named: TypeAlias = Annotated[_Autoencoder | _Classical | _Null, Field(discriminator="method")]


def _whose(section: Any) -> str:
    """Tell a method of the user's own, which has a colon in its path, from those of the project."""
    method = section.get("method") if isinstance(section, Mapping) else getattr(section, "method", None)
    return "own" if isinstance(method, str) and ":" in method else "named"


DictionaryMethod: TypeAlias = Annotated[
    Annotated[_Named, Tag("named")] | Annotated[Own, Tag("own")], Discriminator(_whose)
]
"""Every method, told apart by `method`."""

SECTIONS: Final[dict[str, type[Section]]] = {
    "topk": TopK,
    "relu-l1": ReluL1,
    "batch-topk": BatchTopK,
    "matryoshka": Matryoshka,
    "jump-relu": JumpRelu,
    "archetypal": Archetypal,
    "frozen": Frozen,
    "k-svd": KSvd,
    "k-means": KMeans,
    "k-means-omp": KMeansPursuit,
    "ica": Ica,
    "semi-nmf": SemiNmf,
    "random": Random,
    "raw": Raw,
    "pca": Pca,
    "own": Own,
}
"""The section of each method by its name; `own` for those with a path."""


class Dictionaries(Section):
    """Sparse dictionaries, learnt for every hook point of every backbone."""

    train_on: Name
    """Data set whose train split the dictionaries learn from; its val split is held out for their metrics."""
    images: Count | None = None
    """Use only this many training images; null uses all."""
    live: bool = False
    """Learn from the backbone itself, a pass over the images for each block and epoch, instead of from stored
    activations; of the train split nothing is stored then, and memory and disk do not grow with it."""
    gpus: Count = 1
    """GPUs of one machine that learn the dictionaries of a backbone together, a process on each; the result does not
    depend on it beyond the order of sums. TopK and ReLU-L1 are divided among them, other methods are not."""
    methods: Annotated[dict[Name, DictionaryMethod], Field(min_length=1)]
    """Dictionaries by name."""
    halves: tuple[Name, ...] = ()
    """Dictionaries that are also learnt on two disjoint halves of the training images, for their stability."""
