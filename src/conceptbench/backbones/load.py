"""Open a backbone by name or folder, and refuse every way in which it could silently be another model."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import open_clip
import torch
from torch import nn

from conceptbench.backbones import hub_tokenizer, trunks  # noqa: F401  (trunks makes timm's other sizes known)
from conceptbench.backbones.backbone import Backbone, Tokenizer
from conceptbench.backbones.folder import (
    CARD_FILE,
    WEIGHTS_FILE,
    backbone_digest,
    check_folder,
    check_shapes,
    check_weights,
    read_card,
    save_backbone_folder,
    uses_quick_gelu,
)
from conceptbench.backbones.tokenizer import MERGES_FILE, load_tokenizer, vocabulary_size
from conceptbench.errors import ConceptBenchError
from conceptbench.tables import write_json

LOCAL_PREFIX = "local-dir:"
"""open_clip's prefix of a folder."""

HUB_PREFIX = "hf-hub:"
"""open_clip's prefix of a repository on the Hugging Face hub."""

_CLIP_VOCABULARY = 49408
_LOOK = ("mean", "std", "interpolation", "resize_mode")


def load_backbone(
    source: Path | str, device: torch.device | str = "cpu", *, pretrained: str | None = None, name: str | None = None
) -> Backbone:
    """Load a backbone with its weights; never a model without them.

    `source` is a folder in open_clip's layout (plain or as `local-dir:<folder>`), `hf-hub:<owner>/<repository>`, or
    the name of a built-in open_clip model with its `pretrained` tag (also as `<model>:<tag>`). `name` is what the
    backbone is called from then on; by default the folder's, repository's or model's name.

    Raises ConceptBenchError when the model or its weights are missing or do not fit each other, when the weights
    hold values that are not finite, when they were trained with another activation function (quickgelu) than the
    configuration builds, or when the image tower cannot be cut at a block.
    """
    text = str(source)
    if pretrained is not None and (text.startswith((HUB_PREFIX, LOCAL_PREFIX)) or Path(text).is_dir()):
        raise ConceptBenchError(
            f"{text}: brings its own weights, so pretrained={pretrained!r} has no meaning here; leave it out."
        )
    if text.startswith(HUB_PREFIX):
        return _load_hub(text, device, name)
    if text.startswith(LOCAL_PREFIX) or Path(text).is_dir():
        return _load_folder(Path(text.removeprefix(LOCAL_PREFIX)), device, name)
    if pretrained is None and ":" in text:
        text, pretrained = text.split(":", 1)
    return _load_builtin(text, pretrained, device, name)


def load_builtin_file(model_name: str, tag: str, weights: Path, *, name: str) -> Backbone:
    """Load a model that open_clip knows by name with the weights of `tag` from a file that is here.

    A tokenizer with files of its own is read from the folder of the weights.

    Raises ConceptBenchError as `load_backbone` does.
    """
    config, settings = _builtin(model_name, tag)
    look = {key: settings[key] for key in _LOOK if key in settings}
    options = {"pretrained": str(weights), "require_pretrained": True, "force_preprocess_cfg": look}
    model = _create(model_name, f"{model_name}:{tag} from {weights}", **options)
    check_shapes(weights, model)
    return _finish(model, model_name, config, name, "cpu", folder=weights.parent)


def load_hub_folder(folder: Path, repository: str, *, name: str) -> Backbone:
    """Load a repository of the Hugging Face hub in open_clip's layout whose files are here.

    Raises ConceptBenchError as `load_backbone` does.
    """
    source = f"{LOCAL_PREFIX}{folder}"
    model = _create(source, f"{HUB_PREFIX}{repository}", require_pretrained=True)
    return _finish_hub(model, source, repository, "cpu", name, folder)


def export_backbone(backbone: Backbone, folder: Path | str, card: dict[str, Any] | None = None) -> None:
    """Write a loaded backbone as a folder that `load_backbone` opens without a network, with the same digest.

    `card` is added to the folder's card, which names the digest. A tokenizer with files of its own goes beside the
    weights: its files are copied where they are known, else it is made and saved.

    Raises ConceptBenchError when the tokenizer has to be made and cannot be.
    """
    facts = {"name": backbone.name, "text": backbone.has_text, **(card or {}), "digest": backbone.digest}
    if backbone.tokenizer_files is not None:
        hub_tokenizer.copy_files(backbone.tokenizer_files, Path(folder))
    elif backbone.has_text and hub_tokenizer.hub_tokenizer_name(backbone.model_config["text_cfg"]):
        Path(folder).mkdir(parents=True, exist_ok=True)
        tokenizer: Any = backbone.tokenizer
        tokenizer.save_pretrained(str(folder))
    save_backbone_folder(
        folder, backbone.model, backbone.model_config, backbone.preprocess_config, facts, merges=backbone.merges
    )


def seal_backbone(folder: Path) -> str:
    """Enter the digest of the backbone in `folder` in its card and return it.

    Users of its activations compare it with that of a store; `load_backbone` refuses other weights from then on.

    Raises ConceptBenchError as `load_backbone` does.
    """
    digest = load_backbone(folder).digest
    write_json({**read_card(folder), "digest": digest}, folder / CARD_FILE)
    return digest


def _load_folder(folder: Path, device: torch.device | str, name: str | None) -> Backbone:
    """A folder in open_clip's layout, perhaps with a card and a vocabulary of its own."""
    check_folder(folder)
    card = read_card(folder)
    source = f"{LOCAL_PREFIX}{folder}"
    model = _create(source, str(folder), require_pretrained=True)
    check_weights(folder, model)
    expected = card.get("quick_gelu", True if "openai" in folder.name.lower() else None)
    _require_activation(model, expected, str(folder), 'set "quick_gelu" in open_clip_config.json\'s model_cfg')
    config = open_clip.get_model_config(source)
    has_text = bool(card.get("text", True))
    merges = folder / MERGES_FILE if (folder / MERGES_FILE).is_file() else None
    if has_text:
        _require_vocabulary(config, merges, folder)
    label = name or folder.resolve().name
    backbone = _finish(model, source, config, label, device, has_text=has_text, merges=merges, folder=folder)
    sealed = str(card.get("digest", backbone.digest))
    if sealed != backbone.digest:
        raise ConceptBenchError(
            f"{folder / WEIGHTS_FILE}: these are not the weights, configuration or preprocessing of {CARD_FILE} "
            f"(digest {sealed[:12]}, found {backbone.digest[:12]}); restore them, or make the folder again."
        )
    return backbone


def _load_hub(source: str, device: torch.device | str, name: str | None) -> Backbone:
    """A repository on the Hugging Face hub."""
    repository = source.removeprefix(HUB_PREFIX)
    model = _create(source, source, require_pretrained=True)
    return _finish_hub(model, source, repository, device, name or repository.rsplit("/", 1)[-1])


def _finish_hub(
    model: nn.Module, source: str, repository: str, device: torch.device | str, name: str, folder: Path | None = None
) -> Backbone:
    """Check the activation against open_clip's own table, and describe the model; `folder` holds its files, if any."""
    remedy = "use the built-in model name with its tag instead"
    _require_activation(model, _hub_quick_gelu(repository), f"{HUB_PREFIX}{repository}", remedy)
    return _finish(model, source, open_clip.get_model_config(source), name, device, folder=folder)


def _load_builtin(model_name: str, tag: str | None, device: torch.device | str, name: str | None) -> Backbone:
    """A model that open_clip knows by name, with the weights of a tag."""
    config, _ = _builtin(model_name, tag)
    model = _create(model_name, f"{model_name}:{tag}", pretrained=tag, require_pretrained=True)
    return _finish(model, model_name, config, name or model_name, device)


def _builtin(model_name: str, tag: str | None) -> tuple[dict[str, Any], dict[str, Any]]:
    """open_clip's configuration of a model and its settings of a tag, after a check that they belong together."""
    known = open_clip.list_models()
    if model_name not in known:
        near = difflib.get_close_matches(model_name, known, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "see open_clip.list_models()."
        raise ConceptBenchError(f"Backbone {model_name!r} is neither a folder nor a model of open_clip; {hint}")
    tags = open_clip.list_pretrained_tags_by_model(model_name)
    settings = open_clip.get_pretrained_cfg(model_name, tag) if tag else {}
    if not settings:
        raise ConceptBenchError(
            f"Backbone {model_name} has no pretrained weights named {tag!r}; choose one of "
            f"{', '.join(tags) or '(none)'}, or give an open_clip folder, which also brings its preprocessing."
        )
    config = open_clip.get_model_config(model_name)
    _require_builtin_activation(model_name, str(tag), bool(config.get("quick_gelu")), bool(settings.get("quick_gelu")))
    return config, settings


def _create(source: str, label: str, **options: Any) -> nn.Module:
    """open_clip's constructor; whatever it raises becomes one sentence."""
    try:
        model: nn.Module = open_clip.create_model(source, **options)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise ConceptBenchError(
            f"{label}: the backbone cannot be loaded ({reason}); use weights and a configuration that belong together."
        ) from error
    return model


def _finish(
    model: nn.Module,
    source: str,
    config: dict[str, Any],
    name: str,
    device: torch.device | str,
    *,
    has_text: bool = True,
    merges: Path | None = None,
    folder: Path | None = None,
) -> Backbone:
    """Check the weights' values, take the digest, and describe the model as a `Backbone`.

    `folder` is where the weights lie; a tokenizer of the hub may lie beside them.
    """
    for tensor_name, tensor in model.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise ConceptBenchError(f"{source}: the weights {tensor_name} are not finite; restore or retrain them.")
    visual: Any = model.get_submodule("visual")
    named = has_text and folder is not None and hub_tokenizer.hub_tokenizer_name(config["text_cfg"])
    files = folder if named and folder is not None and hub_tokenizer.files_of(folder) else None
    backbone = Backbone(
        model,
        name=name,
        digest="",
        model_config=config,
        preprocess_config=visual.preprocess_cfg,
        make_tokenizer=_tokenizer_maker(source, config["text_cfg"], merges, files),
        has_text=has_text,
        merges=merges,
        tokenizer_files=files,
    )
    backbone.digest = backbone_digest(model, config, backbone.preprocess_config, merges)
    try:
        model.to(device)
    except (AssertionError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConceptBenchError(f"{name}: cannot be moved to device {device} ({reason}); use the CPU.") from error
    return backbone


def _tokenizer_maker(
    source: str, text_config: dict[str, Any], merges: Path | None, files: Path | None
) -> Callable[[], Tokenizer]:
    """How to make the tokenizer when it is first needed."""
    context_length = int(text_config.get("context_length", open_clip.tokenizer.DEFAULT_CONTEXT_LENGTH))

    def make() -> Tokenizer:
        """The tokenizer of the merges file, of the files beside the weights, or of open_clip."""
        if merges is not None:
            return cast(Tokenizer, load_tokenizer(merges, context_length))
        if hub_tokenizer.hub_tokenizer_name(text_config):
            hub_tokenizer.require_library(source)
        try:
            if files is not None:
                return hub_tokenizer.make_tokenizer(files, text_config, context_length)
            return cast(Tokenizer, open_clip.get_tokenizer(source))
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise ConceptBenchError(
                f"{source}: its tokenizer cannot be made ({reason}); keep the tokenizer's files beside the weights."
            ) from error

    return make


def _require_vocabulary(config: dict[str, Any], merges: Path | None, folder: Path) -> None:
    """Raise ConceptBenchError unless the token table has one row for each entry of the vocabulary."""
    text_config = config["text_cfg"]
    rows = int(text_config.get("vocab_size", _CLIP_VOCABULARY))
    if merges is not None:
        entries = vocabulary_size(merges)
        if entries != rows:
            raise ConceptBenchError(
                f"{merges}: has {entries} entries but the model's token table has {rows} rows; restore the vocabulary "
                "the model was trained with."
            )
    elif rows < _CLIP_VOCABULARY and not (text_config.get("hf_tokenizer_name") or text_config.get("hf_model_name")):
        raise ConceptBenchError(
            f"{folder / MERGES_FILE}: missing, and CLIP's own vocabulary does not fit a token table of {rows} rows; "
            "restore the file."
        )


def _require_builtin_activation(model_name: str, tag: str, built: bool, trained: bool) -> None:
    """Raise ConceptBenchError, naming the right model, when the tag's weights need the other activation function."""
    if built == trained:
        return
    other = f"{model_name}-quickgelu" if trained else model_name.removesuffix("-quickgelu")
    remedy = f"use {other}" if other in open_clip.list_models() else "choose another tag"
    raise ConceptBenchError(
        f"Backbone {model_name}: the weights {tag!r} were trained {_with(trained)}, but this model is built "
        f"{_with(built)}; {remedy}."
    )


def _require_activation(model: nn.Module, trained: bool | None, label: str, remedy: str) -> None:
    """Raise ConceptBenchError when it is known that the weights need the other activation function."""
    built = uses_quick_gelu(model)
    if trained is not None and bool(trained) != built:
        raise ConceptBenchError(
            f"{label}: the weights were trained {_with(bool(trained))}, but the configuration builds the model "
            f"{_with(built)}; {remedy}."
        )


def _hub_quick_gelu(repository: str) -> bool | None:
    """What open_clip's own table says about the weights of a hub repository; None when it does not list it."""
    for model_name, tag in open_clip.list_pretrained():
        settings = open_clip.get_pretrained_cfg(model_name, tag)
        if str(settings.get("hf_hub", "")).strip("/") == repository.strip("/"):
            return bool(settings.get("quick_gelu", False))
    return True if "openai" in repository.lower() else None


def _with(quick_gelu: bool) -> str:
    return "with QuickGELU" if quick_gelu else "with plain GELU"
