"""Specification of a method of the user's own, named by its dotted path."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from conceptbench.dictionaries.specs.base import Named

PATH: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
"""`package.module:Class`."""


@dataclass(frozen=True, kw_only=True)
class Own(Named):
    """A class of the user's own, `package.module:Class`; see docs/extend.md for what it must have."""

    method: str
    """Where the class is: `package.module:Class`."""
    width: int
    """Number of latents, handed to the class."""
    epochs: int = 1
    """Passes over the training tokens."""
    batch_size: int = 2048
    """Tokens in each call of `partial_fit`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further keyword arguments of the class."""

    def __post_init__(self) -> None:
        """Refuse what names no class."""
        self.require(PATH.fullmatch(self.method) is not None, "an own method is named 'package.module:Class'")
        self.require(self.width >= 1, f"width is {self.width}, it must be at least 1")
        self.require(self.epochs >= 1, f"epochs is {self.epochs}, it must be at least 1")
        self.require(self.batch_size >= 2, f"batch_size is {self.batch_size}, it must be at least 2")
        clash = sorted({"width", "seed"} & set(self.options))
        self.require(not clash, f"options may not hold {', '.join(clash)}, which the benchmark hands over itself")
