"""Loading: a folder goes through open_clip's own loader, and no model is silently another one."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from backbones_reduced import CLIP, CORPUS, MODELS, SIGLIP_PREPROCESS, build, save
from safetensors.torch import load_file, save_file

from conceptbench.backbones import load_backbone, write_vocabulary
from conceptbench.backbones.folder import save_backbone_folder
from conceptbench.backbones.load import export_backbone, seal_backbone
from conceptbench.errors import ConceptBenchError

WEIGHTS = "open_clip_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save("clip", tmp_path / "clip")


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "open_clip_config.json"
    config = json.loads(path.read_text())
    config["model_cfg"].update(changes)
    path.write_text(json.dumps(config))


def change_weights(folder: Path, **tensors: torch.Tensor | None) -> None:
    state = {**load_file(folder / WEIGHTS), **tensors}
    save_file({name: tensor for name, tensor in state.items() if tensor is not None}, folder / WEIGHTS)


@pytest.mark.parametrize("kind", list(MODELS))
def test_folder_gives_the_model_that_was_saved(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        backbone = load_backbone(save(kind, tmp_path / kind))
    assert caplog.records == []
    original = build(kind).eval().requires_grad_(False)
    array = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    pixels = backbone.preprocess(array)
    assert torch.equal(backbone.encode_image(pixels), original.encode_image(pixels))
    ids = backbone.tokenize(["a red circle"])
    assert torch.equal(backbone.encode_text(ids), original.encode_text(ids))
    assert backbone.logit_scale == pytest.approx(1 / 0.07, rel=1e-5)
    assert backbone.preprocess_config["mean"] == MODELS[kind][1]["mean"]
    assert backbone.name == kind and kind in repr(backbone)


def test_folder_is_one_that_open_clip_opens(folder: Path) -> None:
    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}")
    backbone = load_backbone(f"local-dir:{folder}")
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, backbone.model.state_dict()[name])
    assert transform.transforms[-1].mean == pytest.approx(backbone.preprocess_config["mean"])


def test_digest_follows_weights_configuration_preprocessing_and_vocabulary(folder: Path, tmp_path: Path) -> None:
    digests = [load_backbone(folder).digest, load_backbone(str(folder), name="other").digest]
    assert digests[0] == digests[1] and len(digests[0]) == 64
    save_backbone_folder(tmp_path / "pre", build("clip"), CLIP, SIGLIP_PREPROCESS, {}, merges=folder / "merges.txt.gz")
    digests.append(load_backbone(tmp_path / "pre").digest)
    write_vocabulary([*CORPUS, "zebra zebra zebra zebra zebra"], 40, folder / "merges.txt.gz")
    digests.append(load_backbone(folder).digest)
    change_config(folder, init_logit_scale=2.0)
    digests.append(load_backbone(folder).digest)
    change_weights(folder, logit_scale=torch.tensor(1.0))
    digests.append(load_backbone(folder).digest)
    assert len(set(digests)) == 5


def test_export_keeps_the_digest(folder: Path, tmp_path: Path) -> None:
    backbone = load_backbone(folder)
    export_backbone(backbone, tmp_path / "copy", {"origin": "here"})
    assert load_backbone(tmp_path / "copy").digest == backbone.digest
    assert json.loads((tmp_path / "copy/card.json").read_text())["origin"] == "here"


def test_a_sealed_folder_names_its_digest_and_refuses_other_weights(folder: Path, tmp_path: Path) -> None:
    digest = seal_backbone(folder)
    card = json.loads((folder / "card.json").read_text())
    assert card["digest"] == digest == load_backbone(folder).digest
    export_backbone(load_backbone(folder), tmp_path / "copy")
    assert json.loads((tmp_path / "copy/card.json").read_text())["digest"] == digest
    change_weights(folder, logit_scale=torch.tensor(1.0))
    with pytest.raises(ConceptBenchError, match=rf"not the weights.* of card.json \(digest {digest[:12]}, found"):
        load_backbone(folder)


def test_options_without_a_meaning_are_errors(folder: Path) -> None:
    with pytest.raises(ConceptBenchError, match="brings its own weights"):
        load_backbone(folder, pretrained="openai")
    if not torch.cuda.is_available():
        with pytest.raises(ConceptBenchError, match="clip: cannot be moved to device cuda"):
            load_backbone(folder, "cuda")


def test_half_precision_weights_are_read_as_float32(tmp_path: Path) -> None:
    save_backbone_folder(
        tmp_path / "half", build("clip"), CLIP, SIGLIP_PREPROCESS, {"text": False}, dtype=torch.float16
    )
    backbone = load_backbone(tmp_path / "half")
    assert backbone.dtype == torch.float32
    assert load_file(tmp_path / "half" / WEIGHTS)["visual.proj"].dtype == torch.float16


def test_image_tower_without_text(tmp_path: Path) -> None:
    backbone = load_backbone(save("clip", tmp_path / "image-tiny", text=False))
    assert not backbone.has_text
    assert backbone.embed_images(torch.zeros(1, 3, 32, 32)).shape == (1, 24)
    for use in (lambda: backbone.embed_text(["a"]), lambda: backbone.text, lambda: backbone.tokenize(["a"])):
        with pytest.raises(ConceptBenchError, match="image-tiny has no text tower"):
            use()


def test_missing_files_are_errors(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConceptBenchError, match="gone: no such folder"):
        load_backbone(f"local-dir:{tmp_path / 'gone'}")
    (folder / "merges.txt.gz").unlink()
    with pytest.raises(ConceptBenchError, match=r"merges\.txt\.gz: missing"):
        load_backbone(folder)
    (folder / WEIGHTS).unlink()
    with pytest.raises(ConceptBenchError, match="weights are missing, and random weights are never used"):
        load_backbone(folder)
    (folder / "open_clip_config.json").write_text("{}")
    with pytest.raises(ConceptBenchError, match="needs model_cfg"):
        load_backbone(folder)
    (folder / "open_clip_config.json").unlink()
    with pytest.raises(ConceptBenchError, match=r"open_clip_config\.json: missing"):
        load_backbone(folder)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"ln_final.weight": None}, r"clip: .*ln_final\.weight"),
        ({"extra": torch.zeros(1)}, "extra"),
        ({"visual.proj": torch.zeros(48, 25)}, r"visual\.proj"),
        ({"visual.positional_embedding": torch.randn(26, 48)}, r"positional_embedding is \[26, 48\] instead of"),
        ({"positional_embedding": torch.randn(20, 32)}, r"positional_embedding is \[20, 32\] instead of"),
        ({"visual.proj": torch.full((48, 24), float("nan"))}, r"visual\.proj are not finite"),
    ],
)
def test_weights_that_do_not_fit_are_errors(folder: Path, tensors: dict, message: str) -> None:
    change_weights(folder, **tensors)
    with pytest.raises(ConceptBenchError, match=message) as caught:
        load_backbone(folder)
    assert "\n" not in str(caught.value)


def test_missing_logit_bias_is_an_error(tmp_path: Path) -> None:
    folder = save("siglip", tmp_path / "siglip")
    change_weights(folder, logit_bias=None)
    with pytest.raises(ConceptBenchError, match="missing logit_bias"):
        load_backbone(folder)


def test_truncated_weights_are_an_error(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[:-100])
    with pytest.raises(ConceptBenchError, match="cannot be loaded"):
        load_backbone(folder)


def test_vocabulary_of_another_model_is_an_error(folder: Path) -> None:
    write_vocabulary(CORPUS, 10, folder / "merges.txt.gz")
    with pytest.raises(ConceptBenchError, match="has 524 entries but the model's token table has 554 rows"):
        load_backbone(folder)


def test_other_activation_function_is_an_error(folder: Path, tmp_path: Path) -> None:
    change_config(folder, quick_gelu=False)
    with pytest.raises(ConceptBenchError, match=r"trained with QuickGELU, but the configuration builds .* plain GELU"):
        load_backbone(folder)
    (folder / "card.json").unlink()
    load_backbone(folder)
    openai = folder.rename(tmp_path / "vit_base_patch16_clip_224.openai")
    with pytest.raises(ConceptBenchError, match="trained with QuickGELU"):
        load_backbone(openai)


def test_built_in_names_are_checked_before_anything_is_downloaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_clip, "create_model", lambda *_, **__: pytest.fail("nothing may be built"))
    with pytest.raises(ConceptBenchError, match="plain GELU; use ViT-B-16-quickgelu"):
        load_backbone("ViT-B-16", pretrained="openai")
    with pytest.raises(ConceptBenchError, match="use ViT-B-16-quickgelu"):
        load_backbone("ViT-B-16:openai")
    with pytest.raises(ConceptBenchError, match=r"no pretrained weights named 'laion2b_s34b_b88k'.*openai"):
        load_backbone("ViT-B-16-quickgelu", pretrained="laion2b_s34b_b88k")
    with pytest.raises(ConceptBenchError, match="no pretrained weights named None"):
        load_backbone("ViT-B-16")
    with pytest.raises(ConceptBenchError, match="did you mean ViT-B-16"):
        load_backbone("ViT-B16")


def test_plain_weights_in_a_quickgelu_model_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: {"url": "somewhere"})
    with pytest.raises(ConceptBenchError, match=r"trained with plain GELU, .* with QuickGELU; use ViT-B-16"):
        load_backbone("ViT-B-16-quickgelu", pretrained="openai")


def test_weights_that_cannot_be_had_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def offline(*_: object, **__: object) -> None:
        raise RuntimeError("Failed to download weights\nfor tag")

    monkeypatch.setattr(open_clip, "create_model", offline)
    with pytest.raises(ConceptBenchError, match="ViT-B-16-quickgelu:openai: the backbone cannot be loaded"):
        load_backbone("ViT-B-16-quickgelu:openai")
    with pytest.raises(ConceptBenchError, match="hf-hub:owner/model: the backbone cannot be loaded"):
        load_backbone("hf-hub:owner/model")


def test_tower_without_transformer_blocks_is_an_error(tmp_path: Path) -> None:
    vision = {"layers": [1, 1, 1, 1], "width": 8, "head_width": 16, "image_size": 32, "patch_size": None}
    config = {**CLIP, "vision_cfg": vision, "quick_gelu": False}
    model = open_clip.CLIP(**config)
    save_backbone_folder(tmp_path / "resnet", model, config, SIGLIP_PREPROCESS, {"text": False})
    with pytest.raises(ConceptBenchError, match="ModifiedResNet"):
        load_backbone(tmp_path / "resnet")


def test_importing_the_package_is_light() -> None:
    code = "import sys, conceptbench.backbones; print(sum(m in sys.modules for m in ('torch', 'open_clip', 'timm')))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "0"
