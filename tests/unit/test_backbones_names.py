"""Backbones by name: facts as open_clip and timm state them, and for each an exact cut at reduced size."""

from pathlib import Path
from typing import Any

import open_clip
import pytest
import timm
import torch
from backbones_reduced import CORPUS, N_MERGES, VOCABULARY

from conceptbench.backbones import Backbone, inference, load_backbone, write_vocabulary
from conceptbench.backbones.cut import describe_tower
from conceptbench.backbones.folder import save_backbone_folder
from conceptbench.backbones.names import image_only_config, named_backbone, preprocess_config, require_named
from conceptbench.backbones.trunks import register_trunk, trunk_name
from conceptbench.config.named_backbones import NAMED, NamedBackbone
from conceptbench.errors import ConceptBenchError

REDUCED_TRUNK = {"img_size": 32, "patch_size": 8, "embed_dim": 64, "depth": 3, "num_heads": 2}
REDUCED_VISION = {"image_size": 32, "layers": 3, "width": 48, "patch_size": 8, "head_width": 16}
REDUCED_TEXT = {"context_length": 12, "vocab_size": VOCABULARY, "width": 32, "heads": 2, "layers": 2}
ASKED_FOR = ("openai", "laion2b", "datacomp", "siglip-", "siglip2-", "dinov2", "-reg", "aimv2", "bioclip")


def full_config(spec: NamedBackbone) -> dict[str, Any]:
    return image_only_config(spec) if spec.library == "timm" else open_clip.get_model_config(spec.model)


def reduced_config(spec: NamedBackbone) -> dict[str, Any]:
    """The architecture of a backbone with few and narrow blocks, everything else as it is."""
    config = full_config(spec)
    vision = config["vision_cfg"]
    if "timm_model_name" in vision:
        base = vision["timm_model_name"]
        register_trunk(f"{base}_reduced", base, **REDUCED_TRUNK)
        config["vision_cfg"] = {**vision, "timm_model_name": f"{base}_reduced", "image_size": 32}
        config["embed_dim"] = 64
    else:
        config["vision_cfg"] = {**vision, **REDUCED_VISION}
        config["embed_dim"] = 24
    if spec.text:
        text = {key: value for key, value in config["text_cfg"].items() if not key.startswith(("hf_", "tokenizer_"))}
        config["text_cfg"] = {**text, **REDUCED_TEXT}
    return config


def build(config: dict[str, Any]) -> torch.nn.Module:
    options = {key: value for key, value in config.items() if key != "custom_text"}
    return (open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP)(**options)


def save_reduced(spec: NamedBackbone, folder: Path) -> Path:
    config = reduced_config(spec)
    torch.manual_seed(0)
    model = build(config)
    with torch.no_grad():
        for parameter in model.parameters():  # also what starts near zero and would hide a block
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    if spec.text:
        write_vocabulary(CORPUS, N_MERGES, folder / "merges.txt.gz")
    save_backbone_folder(folder, model, config, preprocess_config(spec), {"text": spec.text})
    return folder


@pytest.fixture(scope="module", params=list(NAMED))
def reduced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[NamedBackbone, Backbone]:
    spec = NAMED[request.param]
    return spec, load_backbone(save_reduced(spec, tmp_path_factory.mktemp("named") / request.param))


def test_halves_have_the_bits_of_the_whole(reduced: tuple[NamedBackbone, Backbone]) -> None:
    spec, backbone = reduced
    pixels = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    for context in (inference, torch.enable_grad):
        with context():
            whole = backbone.encode_image(pixels)
            assert whole.shape == (3, backbone.embed_dim) and whole.std(dim=0).min() > 0
            earlier = None
            for block in range(backbone.n_blocks):
                tokens = backbone.lower(pixels, block)
                assert tokens.shape == (3, spec.n_prefix + 16, backbone.width)
                assert earlier is None or not torch.allclose(tokens, earlier)
                assert torch.equal(backbone.upper(tokens, block), whole)
                earlier = tokens


def test_preprocessing_and_activation_go_through_the_loader(reduced: tuple[NamedBackbone, Backbone]) -> None:
    spec, backbone = reduced
    assert backbone.preprocess_config["mean"] == list(spec.mean)
    assert backbone.preprocess_config["std"] == list(spec.std)
    assert backbone.preprocess_config["resize_mode"] == spec.resize
    assert backbone.has_text == spec.text and backbone.n_prefix == spec.n_prefix
    names = {type(module).__name__ for module in backbone.tower.visual.modules()}
    assert ("QuickGELU" in names) == spec.quick_gelu


@pytest.mark.parametrize("name", list(NAMED))
def test_shape_of_the_full_size(name: str) -> None:
    spec = NAMED[name]
    with torch.device("meta"):
        model = build(full_config(spec))
    tower = describe_tower(model.visual, name)
    assert (len(tower.blocks), tower.width, tower.n_prefix) == (spec.blocks, spec.width, spec.n_prefix)
    assert tower.grid == (spec.grid, spec.grid)
    counted = model if spec.text else model.visual
    assert sum(parameter.numel() for parameter in counted.parameters()) / 1e6 == pytest.approx(spec.millions, abs=0.06)


@pytest.mark.parametrize("name", [name for name, spec in NAMED.items() if spec.library == "open_clip"])
def test_facts_agree_with_open_clip(name: str) -> None:
    spec = NAMED[name]
    settings = open_clip.get_pretrained_cfg(spec.model, spec.tag)
    assert settings["hf_hub"].strip("/") == spec.repository
    assert (tuple(settings["mean"]), tuple(settings["std"])) == (spec.mean, spec.std)
    assert (settings["interpolation"], settings["resize_mode"]) == ("bicubic", spec.resize)
    trained, built = settings.get("quick_gelu", False), open_clip.get_model_config(spec.model).get("quick_gelu", False)
    assert trained == built == spec.quick_gelu


@pytest.mark.parametrize("name", [name for name, spec in NAMED.items() if spec.library == "timm"])
def test_facts_agree_with_timm(name: str) -> None:
    spec = NAMED[name]
    settings = timm.get_pretrained_cfg(f"{spec.model}.{spec.tag}")
    assert settings.hf_hub_id == spec.repository
    assert (tuple(settings.mean), tuple(settings.std)) == (spec.mean, spec.std)
    assert (settings.interpolation, settings.crop_pct, spec.resize) == ("bicubic", 1.0, "shortest")
    assert timm.is_model(trunk_name(spec))


def test_every_family_that_was_asked_for_has_a_name() -> None:
    assert all(any(part in name for name in NAMED) for part in ASKED_FOR)
    assert {spec.repository for spec in NAMED.values() if spec.library == "hub"} == {"imageomics/bioclip"}
    with pytest.raises(ConceptBenchError, match="did you mean 'siglip2-vit-b16'"):
        named_backbone("siglip2-b16")


def test_another_model_under_a_name_is_refused(reduced: tuple[NamedBackbone, Backbone]) -> None:
    spec, backbone = reduced
    with pytest.raises(
        ConceptBenchError, match=rf"is another model .*width is {backbone.width} instead of {spec.width}"
    ):
        require_named(backbone, spec)
