"""A method of the user's own: a class named by its path, fed with batches, asked for plain arrays."""

import importlib
from collections.abc import Mapping
from typing import Any, Final, Protocol

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from conceptbench.dictionaries.dictionary import Dictionary
from conceptbench.dictionaries.learner import Setting
from conceptbench.dictionaries.rules import CodeRule, KeepAbove, KeepLargest, Pursue
from conceptbench.dictionaries.specs import Own
from conceptbench.errors import ConceptBenchError

ARRAYS: Final = ("atoms", "encoder", "encoder_bias", "decoder_bias")
RULES: Final = ("k", "thresholds", "pursue")


class Method(Protocol):
    """What a class of the user's own has; it inherits nothing (docs/extend.md)."""

    def partial_fit(self, tokens: Float32[np.ndarray, "token feature"]) -> object:
        """Learn from one batch of normalised tokens."""

    def result(self) -> Mapping[str, Any]:
        """Return `atoms` and one of `RULES`; optional are `encoder`, `encoder_bias` and `decoder_bias`."""


class OwnLearner:
    """Makes the object, hands batches to it, and turns its result into a dictionary."""

    def __init__(self, spec: Own, setting: Setting) -> None:
        """Import the class and make the object."""
        self._spec, self._setting = spec, setting
        kind = load(spec.method, spec.name)
        seed = int(torch.randint(2**31 - 1, (), generator=setting.generator))
        try:
            self._method: Method = kind(width=spec.width, seed=seed, **spec.options)
        except TypeError as error:
            raise ConceptBenchError(
                f"Dictionary '{spec.name}' ({spec.method}) does not take its options ({error}); correct them."
            ) from error
        for name in ("partial_fit", "result"):
            if not callable(getattr(self._method, name, None)):
                raise ConceptBenchError(
                    f"Dictionary '{spec.name}': {spec.method} has no method '{name}'; see docs/extend.md."
                )

    def step(self, x: Float[Tensor, "token feature"]) -> None:
        """Hand over one batch; a copy, which the method may keep or change."""
        self._method.partial_fit(x.detach().cpu().numpy().copy())

    def finish(self) -> Dictionary:
        """Return the dictionary.

        Raises:
            ConceptBenchError: when the result is not what docs/extend.md asks for.
        """
        where = f"Dictionary '{self._spec.name}': the result of {self._spec.method}"
        result = self._method.result()
        if not isinstance(result, Mapping) or result.get("atoms") is None:
            raise ConceptBenchError(f"{where} is no mapping with 'atoms'; see docs/extend.md.")
        if unknown := sorted(set(result) - {*ARRAYS, *RULES}):
            known = ", ".join((*ARRAYS, *RULES))
            raise ConceptBenchError(f"{where} has the unknown entry '{unknown[0]}'; valid names are {known}.")
        arrays = {name: _array(result[name], f"{where} has {name}") for name in ARRAYS if result.get(name) is not None}
        expected = (self._spec.width, self._setting.sample.shape[1])
        if arrays["atoms"].shape != expected:
            shape = arrays["atoms"].shape
            raise ConceptBenchError(f"{where} has atoms of shape {shape}, not (width, features) = {expected}.")
        defaults = {
            "encoder": arrays["atoms"].copy(),
            "encoder_bias": np.zeros(expected[0], np.float32),
            "decoder_bias": np.zeros(expected[1], np.float32),
        }
        try:
            tensors: dict[str, Any] = {**defaults, **arrays}
            return Dictionary(**tensors, normaliser=self._setting.normaliser, rule=_rule(result, where))
        except ConceptBenchError as error:
            raise ConceptBenchError(f"{where} does not fit: {error}") from error


def load(path: str, name: str) -> Any:
    """Return the class at `package.module:Class`, looked for on Python's path and in the working folder.

    Raises:
        ConceptBenchError: when the module or the class does not exist.
    """
    module, _, kind = path.partition(":")
    # only users of own methods need the typed configuration, which takes a while to import
    from conceptbench.config.sources import source_of

    source_of(path)
    try:
        return getattr(importlib.import_module(module), kind)
    except ModuleNotFoundError as error:
        raise ConceptBenchError(
            f"Dictionary '{name}': {path} imports '{error.name}', which is not found; install it."
        ) from error
    except AttributeError as error:
        raise ConceptBenchError(f"Dictionary '{name}': the module '{module}' has no class '{kind}'.") from error


def _array(values: Any, what: str) -> Float32[np.ndarray, "..."]:
    """Return a copy as float32."""
    try:
        return np.array(values, np.float32, order="C")
    except (TypeError, ValueError) as error:
        raise ConceptBenchError(f"{what} that are no array of numbers ({error}); see docs/extend.md.") from error


def _rule(result: Mapping[str, Any], where: str) -> CodeRule:
    given = [name for name in RULES if result.get(name) is not None]
    if len(given) != 1:
        raise ConceptBenchError(f"{where} must have one of 'k', 'thresholds' and 'pursue', it has {given or 'none'}.")
    if given == ["thresholds"]:
        return KeepAbove(_array(result["thresholds"], f"{where} has thresholds"))
    value, width = result[given[0]], len(result["atoms"])
    if not isinstance(value, int | np.integer) or not 1 <= value <= width:
        raise ConceptBenchError(f"{where} has {given[0]} {value}, which must be a whole number in 1..{width}.")
    k = int(value)
    return KeepLargest(k) if given == ["k"] else Pursue(k, "positive")
