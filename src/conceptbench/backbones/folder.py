"""A backbone's folder: open_clip's local directory, plus a card and, when the vocabulary is its own, `merges.txt.gz`.

The layout is read by open_clip itself (`local-dir:<folder>`): `open_clip_config.json` holds `model_cfg` and
`preprocess_cfg`, `open_clip_model.safetensors` the weights. `card.json` is ours: `text` (false for an image tower
that was saved as a CLIP but whose text tower means nothing), `quick_gelu` (the activation the weights were trained
with) and whatever the maker of the weights wants to record.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from open_clip.timm_model import TimmModel
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from conceptbench import tables
from conceptbench.backbones.tokenizer import MERGES_FILE
from conceptbench.errors import ConceptBenchError

CONFIG_FILE = "open_clip_config.json"
"""Model and preprocessing configuration, open_clip's name."""

WEIGHTS_FILE = "open_clip_model.safetensors"
"""Weights, open_clip's name."""

CARD_FILE = "card.json"
"""What is known about the weights."""

_RESHAPED_BY_OPEN_CLIP = ("logit_scale", "logit_bias")


def save_backbone_folder(
    folder: Path | str,
    model: nn.Module,
    model_config: Mapping[str, Any],
    preprocess_config: Mapping[str, Any],
    card: Mapping[str, Any],
    *,
    merges: Path | str | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Write `model` as a folder that `load_backbone` (and open_clip) opens.

    `model_config` is open_clip's `model_cfg`, `preprocess_config` its `preprocess_cfg`; `merges` is a vocabulary of
    `write_vocabulary` to copy into the folder; `dtype` rounds floating-point weights (half precision halves the
    file). Weights are written last, so that a folder with weights is complete.
    """
    target = Path(folder)
    state = {name: _stored(tensor, dtype) for name, tensor in model.state_dict().items()}
    tables.write_json(
        {"model_cfg": dict(model_config), "preprocess_cfg": dict(preprocess_config)}, target / CONFIG_FILE
    )
    tables.write_json({"quick_gelu": uses_quick_gelu(model), **card}, target / CARD_FILE)
    if merges is not None:
        content = Path(merges).read_bytes()
        with tables.atomic_write(target / MERGES_FILE) as partial:
            partial.write_bytes(content)
    with tables.atomic_write(target / WEIGHTS_FILE) as partial:
        save_file(state, partial, metadata={"format": "pt"})


def read_card(folder: Path) -> dict[str, Any]:
    """The folder's card; empty for a folder of open_clip that has none."""
    path = folder / CARD_FILE
    card: dict[str, Any] = tables.read_json(path) if path.is_file() else {}
    return card


def check_folder(folder: Path) -> None:
    """Raise ConceptBenchError unless the folder has a configuration and weights that open_clip will find."""
    if not folder.is_dir():
        raise ConceptBenchError(f"{folder}: no such folder; give the folder that holds {CONFIG_FILE}.")
    config_path = folder / CONFIG_FILE
    if not config_path.is_file():
        raise ConceptBenchError(f"{config_path}: missing, so this is no open_clip folder; save the model as one.")
    config = tables.read_json(config_path)
    model_config = config.get("model_cfg") if isinstance(config, dict) else None
    if not isinstance(model_config, dict) or not {"embed_dim", "vision_cfg", "text_cfg"} <= model_config.keys():
        raise ConceptBenchError(
            f"{config_path}: needs model_cfg with embed_dim, vision_cfg and text_cfg; copy them from open_clip's "
            "configuration of the model."
        )
    if not (folder / WEIGHTS_FILE).is_file():
        raise ConceptBenchError(
            f"{folder / WEIGHTS_FILE}: the weights are missing, and random weights are never used in their place; "
            "restore the file, or save the weights under this name."
        )


def check_weights(folder: Path, model: nn.Module) -> None:
    """Raise ConceptBenchError when a tensor of the file is missing, extra or of another shape than the model's.

    open_clip would resample position embeddings of another grid and fill in a missing logit bias without a word.
    """
    path = folder / WEIGHTS_FILE
    expected = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    found = _shapes(path)
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    faults = [f"missing {_some(missing)}"] * bool(missing) + [f"unexpected {_some(extra)}"] * bool(extra)
    faults += _reshaped(expected, found)
    if faults:
        raise ConceptBenchError(
            f"{path}: the weights do not fit {CONFIG_FILE} ({'; '.join(faults)}); use the configuration the weights "
            "were saved with."
        )


def check_shapes(path: Path, model: nn.Module) -> None:
    """Raise ConceptBenchError when a tensor of a published safetensors file has another shape than the model's.

    Names are compared by open_clip itself, after its conversions. Files of other formats are passed over.
    """
    if path.suffix != ".safetensors":
        return
    faults = _reshaped({name: list(tensor.shape) for name, tensor in model.state_dict().items()}, _shapes(path))
    if faults:
        raise ConceptBenchError(f"{path}: these are the weights of another model ({faults[0]}); restore the file.")


def _shapes(path: Path) -> dict[str, list[int]]:
    """Shapes of the tensors of a safetensors file."""
    try:
        with safe_open(path, framework="pt") as file:
            return {name: list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ConceptBenchError(f"{path}: not a readable safetensors file ({error}); restore it.") from error


def _reshaped(expected: Mapping[str, list[int]], found: Mapping[str, list[int]]) -> list[str]:
    """The first tensor whose shape differs, in words; empty when none does."""
    names = sorted(
        name
        for name in expected.keys() & found.keys()
        if expected[name] != found[name] and name not in _RESHAPED_BY_OPEN_CLIP
    )
    return [f"{name} is {found[name]} instead of {expected[name]}" for name in names[:1]]


def uses_quick_gelu(model: nn.Module) -> bool:
    """Whether the model's own transformers compute x * sigmoid(1.702 x), as OpenAI's weights need, instead of GELU.

    A timm image tower is judged by its own activation, the towers of open_clip by theirs.
    """
    visual = model.get_submodule("visual")
    tower = visual.trunk if isinstance(visual, TimmModel) else visual
    return any(type(module).__name__ == "QuickGELU" for module in tower.modules())


def backbone_digest(
    model: nn.Module, model_config: Mapping[str, Any], preprocess_config: Mapping[str, Any], merges: Path | None
) -> str:
    """sha256 over tensor names, dtypes, shapes and bytes, the configuration, the preprocessing and the vocabulary."""
    weights = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        weights.update(f"{name}:{values.dtype}:{list(values.shape)}\n".encode())
        weights.update(values.reshape(-1).view(torch.uint8).numpy().data)
    return tables.digest(
        {
            "weights": weights.hexdigest(),
            "model_cfg": dict(model_config),
            "preprocess_cfg": dict(preprocess_config),
            "vocabulary": tables.sha256_file(merges) if merges is not None else None,
        }
    )


def _stored(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    """A copy fit for a file: on the CPU, contiguous, floating-point values rounded to `dtype` if one is given."""
    kept = tensor.detach().cpu()
    return (kept.to(dtype) if dtype is not None and kept.is_floating_point() else kept).contiguous().clone()


def _some(names: list[str]) -> str:
    """The first few of many names."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
