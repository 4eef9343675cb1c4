"""Backbones: load a pretrained model, cut it at a block and run either half.

Importing this package is light; torch and open_clip are imported by its modules, on first use of a name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conceptbench.backbones.backbone import Backbone, inference
    from conceptbench.backbones.load import export_backbone, load_backbone, seal_backbone
    from conceptbench.backbones.tokenizer import load_tokenizer, vocabulary_size, write_vocabulary

_HOME = {
    "Backbone": "backbone",
    "export_backbone": "load",
    "inference": "backbone",
    "load_backbone": "load",
    "load_tokenizer": "tokenizer",
    "seal_backbone": "load",
    "vocabulary_size": "tokenizer",
    "write_vocabulary": "tokenizer",
}

__all__ = [
    "Backbone",
    "export_backbone",
    "inference",
    "load_backbone",
    "load_tokenizer",
    "seal_backbone",
    "vocabulary_size",
    "write_vocabulary",
]


def __getattr__(name: str) -> Any:
    """Import the module that defines `name` when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
