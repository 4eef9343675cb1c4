"""What an adaptation method is made of: one frozen specification per method, with the published recipe as default.

Nothing here imports torch, so the workflow can ask which methods change the image tower while it reads its rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from difflib import get_close_matches
from typing import Any

from conceptbench.adaptation.specs.base import DEFAULT_TEMPLATE, Recipe, Setting
from conceptbench.adaptation.specs.frozen import LinearProbeSpec, TipAdapterFSpec, TipAdapterSpec, ZeroShotSpec
from conceptbench.adaptation.specs.lora import ClipLoraSpec
from conceptbench.adaptation.specs.prompts import (
    CoCoOpSpec,
    CoOpSpec,
    IvlpSpec,
    MapleSpec,
    PromptSrcSpec,
    VptSpec,
)
from conceptbench.errors import ConceptBenchError

__all__ = [
    "DEFAULT_TEMPLATE",
    "ClipLoraSpec",
    "CoCoOpSpec",
    "CoOpSpec",
    "IvlpSpec",
    "LinearProbeSpec",
    "MapleSpec",
    "MethodSpec",
    "PromptSrcSpec",
    "Recipe",
    "Setting",
    "TipAdapterFSpec",
    "TipAdapterSpec",
    "VptSpec",
    "ZeroShotSpec",
    "method_spec",
    "moves_images",
    "spec_values",
]

PromptSpec = CoOpSpec | CoCoOpSpec | VptSpec | IvlpSpec | MapleSpec | PromptSrcSpec
"""Methods that learn prompts."""

MethodSpec = ZeroShotSpec | LinearProbeSpec | TipAdapterSpec | TipAdapterFSpec | PromptSpec | ClipLoraSpec
"""Every method of this package."""

_SPECS: dict[str, type[MethodSpec]] = {
    "zero-shot": ZeroShotSpec,
    "linear-probe": LinearProbeSpec,
    "tip-adapter": TipAdapterSpec,
    "tip-adapter-f": TipAdapterFSpec,
    "coop": CoOpSpec,
    "cocoop": CoCoOpSpec,
    "vpt-deep": VptSpec,
    "ivlp": IvlpSpec,
    "maple": MapleSpec,
    "promptsrc": PromptSrcSpec,
    "clip-lora": ClipLoraSpec,
}

_MOVING = (VptSpec, IvlpSpec, MapleSpec, PromptSrcSpec)


def method_spec(values: Mapping[str, Any] | MethodSpec) -> MethodSpec:
    """The specification described by `values` (`method` and its options; `name` defaults to the method).

    Raises ConceptBenchError for an unknown method or option, with the nearest valid one.
    """
    if not isinstance(values, Mapping):
        return values
    method = str(values.get("method"))
    if method not in _SPECS:
        raise ConceptBenchError(f"unknown adaptation method {method!r}{_nearest(method, _SPECS)}.")
    known = {field.name for field in fields(_SPECS[method])}
    for option in values:
        if option not in known:
            raise ConceptBenchError(f"adaptation {method!r} has no option {option!r}{_nearest(option, known)}.")
    return _SPECS[method](**values)


def spec_values(spec: MethodSpec) -> dict[str, Any]:
    """The specification as plain JSON values, the inverse of `method_spec`."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(spec).items()}


def moves_images(spec: Mapping[str, Any] | MethodSpec) -> bool:
    """Whether the method changes what the image tower computes; the others see the backbone's own activations."""
    chosen = method_spec(spec)
    if isinstance(chosen, ClipLoraSpec):
        return chosen.towers != "text"
    return isinstance(chosen, _MOVING)


def _nearest(word: str, valid: Iterable[str]) -> str:
    """A hint at the valid words, the nearest first."""
    names = sorted(valid)
    near = get_close_matches(word, names, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; valid are {', '.join(names)}"
