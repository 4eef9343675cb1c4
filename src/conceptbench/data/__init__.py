"""Images with labels, captions, factors, masks and splits (docs/formats.md, "Dataset").

The names below are imported on first use, so that looking at a manifest does not start the renderers' compiler.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from conceptbench.data.coop import base_novel, few_shot
    from conceptbench.data.dataset import Dataset, open_dataset
    from conceptbench.data.pairs import counterfactual_pairs
    from conceptbench.data.prepare import prepare_dataset
    from conceptbench.data.provide import provide_dataset
    from conceptbench.data.spec import DatasetSpec
    from conceptbench.data.truth import factor_table, object_table, patch_masks

__all__ = [
    "Dataset",
    "DatasetSpec",
    "base_novel",
    "counterfactual_pairs",
    "factor_table",
    "few_shot",
    "object_table",
    "open_dataset",
    "patch_masks",
    "prepare_dataset",
    "provide_dataset",
]

_HOME = {
    "Dataset": "dataset",
    "DatasetSpec": "spec",
    "base_novel": "coop",
    "counterfactual_pairs": "pairs",
    "factor_table": "truth",
    "few_shot": "coop",
    "object_table": "truth",
    "open_dataset": "dataset",
    "patch_masks": "truth",
    "prepare_dataset": "prepare",
    "provide_dataset": "provide",
}


def __getattr__(name: str) -> Any:
    """Import a public name from its module."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
