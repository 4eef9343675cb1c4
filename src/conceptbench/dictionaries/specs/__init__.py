"""What is to be learnt: one frozen specification per method, and the closed union of them all.

The field names are those of the configuration, so that a section of it becomes a specification by keyword:
`specify(name="topk", method="topk", width=1024, k=8)`.
"""

from collections.abc import Mapping
from dataclasses import MISSING, asdict, fields
from difflib import get_close_matches
from typing import Any, Final, TypeAlias

import numpy as np

from conceptbench.dictionaries.specs.autoencoders import (
    Archetypal,
    BatchTopK,
    Frozen,
    JumpRelu,
    Matryoshka,
    ReluL1,
    TopK,
)
from conceptbench.dictionaries.specs.base import Revived, Selecting, Start, Trained
from conceptbench.dictionaries.specs.classical import Ica, KMeans, KMeansPursuit, SemiNmf
from conceptbench.dictionaries.specs.kinds import kind_fault
from conceptbench.dictionaries.specs.nulls import Pca, Random, Raw
from conceptbench.dictionaries.specs.own import Own
from conceptbench.dictionaries.specs.pursuit import KSvd
from conceptbench.errors import ConceptBenchError

__all__ = [
    "METHODS",
    "Archetypal",
    "BatchTopK",
    "DictionarySpec",
    "Frozen",
    "Ica",
    "JumpRelu",
    "KMeans",
    "KMeansPursuit",
    "KSvd",
    "Matryoshka",
    "Own",
    "Pca",
    "Random",
    "Raw",
    "ReluL1",
    "Revived",
    "Selecting",
    "SemiNmf",
    "Start",
    "TopK",
    "Trained",
    "describe",
    "specify",
]

_Autoencoder: TypeAlias = TopK | ReluL1 | BatchTopK | Matryoshka | JumpRelu | Archetypal | Frozen
_Classical: TypeAlias = KSvd | KMeans | KMeansPursuit | Ica | SemiNmf
_Null: TypeAlias = Random | Raw | Pca
DictionarySpec: TypeAlias = _Autoencoder | _Classical | _Null | Own

METHODS: Final[dict[str, type[_Autoencoder | _Classical | _Null]]] = {
    TopK.method: TopK,
    ReluL1.method: ReluL1,
    BatchTopK.method: BatchTopK,
    Matryoshka.method: Matryoshka,
    JumpRelu.method: JumpRelu,
    Archetypal.method: Archetypal,
    Frozen.method: Frozen,
    KSvd.method: KSvd,
    KMeans.method: KMeans,
    KMeansPursuit.method: KMeansPursuit,
    Ica.method: Ica,
    SemiNmf.method: SemiNmf,
    Random.method: Random,
    Raw.method: Raw,
    Pca.method: Pca,
}
"""The specification of each method, by its name in the configuration; a name with a colon is an own method."""


def specify(*, name: str, method: str, **options: Any) -> DictionarySpec:
    """Build the specification of `method` from plain values; `preset` of relu-l1 names a recipe that they override.

    Raises:
        ConceptBenchError: for an unknown method or option (the nearest valid name is given), a missing one, or a
            value out of range.
    """
    if not isinstance(method, str):
        raise ConceptBenchError(f"Dictionary '{name}': method is {method}, it must be text; correct it.")
    if ":" in method:
        return _build(Own, name, method, {"method": method, **options})
    kind = METHODS.get(method)
    if kind is None:
        raise ConceptBenchError(f"Dictionary '{name}': unknown method '{method}'{_nearest(method, METHODS)}.")
    return _build(kind, name, method, _with_preset(name, options) if kind is ReluL1 else options)


def _build(kind: type[DictionarySpec], name: str, method: str, options: Mapping[str, Any]) -> DictionarySpec:
    known = {field.name: field for field in fields(kind)}
    for option in options:
        if option not in known:
            raise ConceptBenchError(
                f"Dictionary '{name}' ({method}): unknown option '{option}'{_nearest(option, known)}."
            )
    required = [each for each, field in known.items() if field.default is MISSING and field.default_factory is MISSING]
    if missing := [each for each in required if each not in {"name", *options}]:
        listed = ", ".join(f"'{each}'" for each in missing)
        raise ConceptBenchError(f"Dictionary '{name}' ({method}) is incomplete: it needs {listed}.")
    if fault := kind_fault(kind, options):
        raise ConceptBenchError(f"Dictionary '{name}' ({method}): {fault}; correct it in the configuration.")
    plain = {option: value.item() if isinstance(value, np.generic) else value for option, value in options.items()}
    return kind(name=name, **plain)


def _with_preset(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a preset, overridden by the others."""
    given = {option: value for option, value in options.items() if option != "preset"}
    preset = options.get("preset")
    if preset is None:
        return given
    # only users of presets need the typed configuration, which takes a while to import
    from conceptbench.config.presets import PRESETS

    if preset not in PRESETS:
        raise ConceptBenchError(f"Dictionary '{name}': unknown preset '{preset}'{_nearest(str(preset), PRESETS)}.")
    return {**PRESETS[preset], **given}


def describe(spec: DictionarySpec) -> dict[str, Any]:
    """Return the plain values of a specification, the method among them; `specify` takes them back."""
    return {"method": spec.method, **asdict(spec)}


def _nearest(word: str, known: Mapping[str, Any]) -> str:
    close = get_close_matches(word, known, n=1)
    return f"; did you mean '{close[0]}'?" if close else f"; choose from {', '.join(sorted(known))}"
