"""What an adaptation method is made of: one frozen specification per method, with the published recipe as default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from difflib import get_close_matches
from typing import Any, Literal

from conceptbench.errors import ConceptBenchError

Setting = Literal["base-to-novel", "all-classes"]
"""Train on the base half and test on each half with its own candidates, or train and test on all classes."""

DEFAULT_TEMPLATE = "a photo of a {}."
"""Prompt of a class when none is given."""


@dataclass(frozen=True)
class Recipe:
    """Few-shot training by SGD, shared by the prompt methods (defaults: MaPLe, base-to-novel)."""

    epochs: int = 5
    batch_size: int = 4
    lr: float = 0.0035
    warmup_lr: float = 1e-5
    """Constant learning rate of the first epoch."""
    momentum: float = 0.9
    weight_decay: float = 5e-4

    def __post_init__(self) -> None:
        """Refuse what cannot be trained with."""
        if self.epochs < 1 or self.batch_size < 1:
            raise ConceptBenchError("an adaptation needs epochs >= 1 and batch_size >= 1; correct the configuration.")
        if not self.lr > 0 or not self.warmup_lr >= 0:
            raise ConceptBenchError("an adaptation needs lr > 0 and warmup_lr >= 0; correct the configuration.")


@dataclass(frozen=True)
class ZeroShotSpec:
    """The backbone as it is: one prompt per class."""

    name: str = "zero-shot"
    method: Literal["zero-shot"] = "zero-shot"
    template: str | None = None
    """Prompt with `{}` for the class name, usually the one of the data set; None takes `DEFAULT_TEMPLATE`."""

    def __post_init__(self) -> None:
        """Refuse a template without a place for the class name."""
        if self.template is not None and "{}" not in self.template:
            raise ConceptBenchError(
                f"{self.name}: the template {self.template!r} has no {{}} for the class name; add it."
            )


@dataclass(frozen=True)
class LinearProbeSpec:
    """Logistic regression on frozen image features, L2 strength chosen on the validation shots (CLIP's recipe)."""

    name: str = "linear-probe"
    method: Literal["linear-probe"] = "linear-probe"
    max_iter: int = 1000
    search_steps: int = 8
    """Halvings of the interval around the best C of the coarse grid."""


@dataclass(frozen=True)
class MapleSpec(Recipe):
    """Multi-modal prompt learning (MaPLe, Khattak et al. 2023): text prompts and their images in the image tower."""

    name: str = "maple"
    method: Literal["maple"] = "maple"
    n_ctx: int = 2
    """Learned tokens per tower and position."""
    depth: int = 9
    """Blocks with learned tokens at their input: one shallow position and `depth - 1` deep ones."""
    context: str = "a photo of a"
    """Text before the class name; its first `n_ctx` tokens become learnable. Empty: a random start."""

    def __post_init__(self) -> None:
        """Refuse an empty prompt."""
        super().__post_init__()
        if self.n_ctx < 1 or self.depth < 1:
            raise ConceptBenchError(f"{self.name}: n_ctx and depth must be at least 1; correct the configuration.")


MethodSpec = ZeroShotSpec | LinearProbeSpec | MapleSpec
"""Every method of this package."""

_SPECS: dict[str, type[MethodSpec]] = {
    "zero-shot": ZeroShotSpec,
    "linear-probe": LinearProbeSpec,
    "maple": MapleSpec,
}


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
    """The specification as plain values, the inverse of `method_spec`."""
    return asdict(spec)


def _nearest(word: str, valid: Mapping[str, Any] | set[str]) -> str:
    """A hint at the valid words, the nearest first."""
    near = get_close_matches(word, sorted(valid), n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; valid are {', '.join(sorted(valid))}"
