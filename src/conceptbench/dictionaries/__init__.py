"""Sparse dictionaries over activations: learn them, encode tokens into sparse codes, evaluate and store them.

Names are loaded on first use, so that readers of codes do not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conceptbench.dictionaries.checkpoint import CheckpointPolicy
    from conceptbench.dictionaries.code_writer import CodesWriter
    from conceptbench.dictionaries.codes import Codes
    from conceptbench.dictionaries.dictionary import Dictionary
    from conceptbench.dictionaries.evaluate import evaluate
    from conceptbench.dictionaries.normaliser import Normaliser
    from conceptbench.dictionaries.specs import DictionarySpec, Pca, Random, Raw, ReluL1, TopK, specify
    from conceptbench.dictionaries.storage import load_dictionary
    from conceptbench.dictionaries.train import learn, learn_many

__all__ = [
    "CheckpointPolicy",
    "Codes",
    "CodesWriter",
    "Dictionary",
    "DictionarySpec",
    "Normaliser",
    "Pca",
    "Random",
    "Raw",
    "ReluL1",
    "TopK",
    "evaluate",
    "learn",
    "learn_many",
    "load_dictionary",
    "specify",
]

_HOME = {
    "CheckpointPolicy": "checkpoint",
    "Codes": "codes",
    "CodesWriter": "code_writer",
    "Dictionary": "dictionary",
    "evaluate": "evaluate",
    "Normaliser": "normaliser",
    "DictionarySpec": "specs",
    "Pca": "specs",
    "Random": "specs",
    "Raw": "specs",
    "ReluL1": "specs",
    "TopK": "specs",
    "specify": "specs",
    "load_dictionary": "storage",
    "learn": "train",
    "learn_many": "train",
}


def __getattr__(name: str) -> Any:
    """Load a public name from the module that defines it."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
