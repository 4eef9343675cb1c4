"""Adaptation: fit a backbone to a task from a few images a class, and score it on base and novel classes.

Importing this package is light; torch and scikit-learn are imported by its modules, on first use of a name.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conceptbench.adaptation.adapter import Adapter, predict
    from conceptbench.adaptation.evaluation import evaluate
    from conceptbench.adaptation.features import PlainFeatures
    from conceptbench.adaptation.protocol import adapt
    from conceptbench.adaptation.specs import (
        ClipLoraSpec,
        CoCoOpSpec,
        CoOpSpec,
        IvlpSpec,
        LinearProbeSpec,
        MapleSpec,
        MethodSpec,
        PromptSrcSpec,
        TipAdapterFSpec,
        TipAdapterSpec,
        VptSpec,
        ZeroShotSpec,
        method_spec,
        moves_images,
    )
    from conceptbench.adaptation.storage import load_adapter, move_adapters, save_adapter

_HOME = {
    "Adapter": "adapter",
    "ClipLoraSpec": "specs",
    "CoCoOpSpec": "specs",
    "CoOpSpec": "specs",
    "IvlpSpec": "specs",
    "LinearProbeSpec": "specs",
    "MapleSpec": "specs",
    "MethodSpec": "specs",
    "PlainFeatures": "features",
    "PromptSrcSpec": "specs",
    "TipAdapterFSpec": "specs",
    "TipAdapterSpec": "specs",
    "VptSpec": "specs",
    "ZeroShotSpec": "specs",
    "adapt": "protocol",
    "evaluate": "evaluation",
    "load_adapter": "storage",
    "method_spec": "specs",
    "move_adapters": "storage",
    "moves_images": "specs",
    "predict": "adapter",
    "save_adapter": "storage",
}

__all__ = [
    "Adapter",
    "ClipLoraSpec",
    "CoCoOpSpec",
    "CoOpSpec",
    "IvlpSpec",
    "LinearProbeSpec",
    "MapleSpec",
    "MethodSpec",
    "PlainFeatures",
    "PromptSrcSpec",
    "TipAdapterFSpec",
    "TipAdapterSpec",
    "VptSpec",
    "ZeroShotSpec",
    "adapt",
    "evaluate",
    "load_adapter",
    "method_spec",
    "move_adapters",
    "moves_images",
    "predict",
    "save_adapter",
]


def __getattr__(name: str) -> Any:
    """Import the module that defines `name` when it is first asked for."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
