"""Fetch published weights once, pinned: by the commit of their repository and the SHA-256 of every file.

What is not known beforehand is noted at the first fetch in a **lock**, one small JSON for each repository in a folder
that is kept with the project. Later fetches ask for that commit and compare every file with it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
import open_clip
import timm
import torch

from conceptbench import tables
from conceptbench.backbones import hub_tokenizer
from conceptbench.backbones.backbone import Backbone
from conceptbench.backbones.folder import save_backbone_folder
from conceptbench.backbones.load import HUB_PREFIX, load_backbone, load_builtin_file, load_hub_folder
from conceptbench.backbones.names import image_only_config, named_backbone, preprocess_config, require_named
from conceptbench.config.named_backbones import NamedBackbone
from conceptbench.data.hub import require_pinned
from conceptbench.errors import ConceptBenchError

OPEN_CLIP_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
"""Weights of an open_clip model on the hub, the preferred name first."""

TIMM_FILES = ("model.safetensors",)
"""Weights of a timm model on the hub."""

_BESIDE = ("open_clip_config.json", "config.json", *hub_tokenizer.PATTERNS)
"""Configuration and tokenizer."""


def fetch_backbone(spec: Mapping[str, Any], work: Path, locks: Path) -> tuple[Backbone, dict[str, Any]]:
    """Load the backbone of an entry of the configuration with its published weights.

    Args:
        spec: `name`, `kind` (named, open_clip or local) and the options of the kind.
        work: folder for weights on their way into open_clip's layout. locks: folder of the locks.

    Returns:
        the backbone and facts for its card: `lock` with repository, revision and files, empty for a local folder.

    Raises:
        ConceptBenchError: when weights cannot be had, are not those of the lock, or are those of another model.
    """
    name = str(spec["name"])
    match spec["kind"]:
        case "local":
            return load_backbone(spec["path"], name=name), {}
        case "named":
            return _fetch_named(named_backbone(spec["model"]), name, spec.get("revision"), work, locks)
        case _:
            return _fetch_open_clip(spec, name, locks)


def _fetch_named(
    spec: NamedBackbone, name: str, revision: str | None, work: Path, locks: Path
) -> tuple[Backbone, dict[str, Any]]:
    """A published backbone, checked against what its name promises."""
    files = TIMM_FILES if spec.library == "timm" else OPEN_CLIP_FILES
    weights, lock = _pinned(spec.repository, files, revision or spec.revision, locks)
    match spec.library:
        case "timm":
            backbone = _load_timm(spec, weights, name, work)
        case "hub":
            backbone = load_hub_folder(weights.parent, spec.repository, name=name)
        case "open_clip":
            backbone = load_builtin_file(spec.model, spec.tag, weights, name=name)
    require_named(backbone, spec)
    return backbone, {"lock": lock, "parameters": _parameters(backbone)}


def _fetch_open_clip(spec: Mapping[str, Any], name: str, locks: Path) -> tuple[Backbone, dict[str, Any]]:
    """A model by its name in open_clip with a tag, or a repository of the hub in open_clip's layout."""
    model, tag, revision = str(spec["model"]), spec.get("pretrained"), spec.get("revision")
    if model.startswith(HUB_PREFIX):
        repository = model.removeprefix(HUB_PREFIX)
        weights, lock = _pinned(repository, OPEN_CLIP_FILES, revision, locks)
        return load_hub_folder(weights.parent, repository, name=name), {"lock": lock}
    settings = open_clip.get_pretrained_cfg(model, tag) if tag else {}
    repository = str(settings.get("hf_hub", "")).strip("/")
    if not repository:
        return load_backbone(model, pretrained=tag, name=name), {}
    weights, lock = _pinned(repository, OPEN_CLIP_FILES, revision, locks)
    return load_builtin_file(model, str(tag), weights, name=name), {"lock": lock}


def _load_timm(spec: NamedBackbone, weights: Path, name: str, work: Path) -> Backbone:
    """An image tower of timm with weights from a file, by way of a folder in open_clip's layout.

    timm itself converts the file and resamples position embeddings to the size that is asked for.
    """
    options: dict[str, Any] = {"num_classes": 0, "global_pool": spec.pool, "img_size": spec.image_size}
    source = {"file": str(weights), "source": "timm"}
    try:
        trunk = timm.create_model(f"{spec.model}.{spec.tag}", pretrained=True, pretrained_cfg_overlay=source, **options)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ConceptBenchError(
            f"{weights}: these are no weights of {spec.model} ({reason}); restore the file of {spec.repository}."
        ) from error
    config = image_only_config(spec)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of the text tower that nothing uses: one digest on every machine
        model = open_clip.CustomTextCLIP(**{key: value for key, value in config.items() if key != "custom_text"})
    model.visual.trunk.load_state_dict(trunk.state_dict())
    save_backbone_folder(work, model, config, preprocess_config(spec), {"text": False})
    return load_backbone(work, name=name)


def _pinned(
    repository: str, weights: tuple[str, ...], revision: str | None, locks: Path
) -> tuple[Path, dict[str, Any]]:
    """The file of the weights, the first of its names that the repository has, and the lock it agrees with."""
    path = locks / f"{repository.replace('/', '--')}.json"
    lock: dict[str, Any] = tables.read_json(path) if path.is_file() else {}
    require_pinned(lock, repository, revision, path)
    wanted = revision or lock.get("revision")
    for name in weights:
        folder = _snapshot(repository, wanted, [*_BESIDE, name])
        if (folder / name).is_file():
            break
    else:
        raise ConceptBenchError(f"{repository} has none of {', '.join(weights)}; its weights cannot be used.")
    digests = {file.name: tables.sha256_file(file) for file in sorted(folder.iterdir()) if file.is_file()}
    found = {"repository": repository, "revision": folder.name, "files": digests}
    if not lock:
        tables.write_json(found, path)
        return folder / name, found
    _require_locked(lock, found, name, path)
    return folder / name, lock


def _snapshot(repository: str, revision: str | None, patterns: list[str]) -> Path:
    """The hub's files of one commit, from its cache where they are there; the folder has the commit's name."""
    try:
        return Path(huggingface_hub.snapshot_download(repository, revision=revision, allow_patterns=patterns))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise ConceptBenchError(
            f"{repository} cannot be fetched from the hub ({reason}); without a network, save the model with open_clip "
            "elsewhere and use it with `kind: local`."
        ) from error


def _require_locked(lock: dict[str, Any], found: dict[str, Any], weights: str, path: Path) -> None:
    """Raise ConceptBenchError when a file is not the one of the lock."""
    if found["revision"] != lock["revision"]:
        raise ConceptBenchError(
            f"{path} pins {lock['revision']}, but the hub gave {found['revision']}; fetch it again."
        )
    for name in sorted({weights, *(found["files"].keys() & lock["files"].keys())}):
        noted = lock["files"].get(name)
        if found["files"][name] != noted:
            raise ConceptBenchError(
                f"{found['repository']}: {name} has the sha256 {found['files'][name]} instead of {noted}, which "
                f"{path} pins; remove it from the hub's cache and run again."
            )


def _parameters(backbone: Backbone) -> int:
    """Parameters of both towers, or of the image tower where there is no text."""
    model = backbone.model if backbone.has_text else backbone.tower.visual
    return sum(parameter.numel() for parameter in model.parameters())
