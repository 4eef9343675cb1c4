"""Fetching: pinned by commit and digest, and never another model; the hub is a folder of this machine here."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import open_clip
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from test_backbones_names import REDUCED_TRUNK, REDUCED_VISION, build

from conceptbench.backbones import fetch, load_backbone, names
from conceptbench.backbones.fetch import fetch_backbone
from conceptbench.backbones.load import export_backbone
from conceptbench.backbones.names import preprocess_config
from conceptbench.backbones.trunks import register_trunk
from conceptbench.config.named_backbones import IMAGENET_MEAN, IMAGENET_STD, NamedBackbone
from conceptbench.errors import ConceptBenchError

COMMITS = ("a" * 40, "b" * 40)
CLIP = NamedBackbone("open_clip", "reduced-clip", "tag", "owner/reduced-clip", 3, 48, 4, 1, 0.1, image_size=32)
DINO = NamedBackbone(
    "timm",
    "vit_base_patch14_reg4_dinov2",
    "lvd142m",
    "timm/reduced",
    3,
    64,
    4,
    5,
    0.1,
    text=False,
    pool="token",
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
    image_size=32,
)
CONFIG = {
    "embed_dim": 24,
    "vision_cfg": REDUCED_VISION,
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


class Hub:
    """A hub with one repository at two commits."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.newest, self.asked = folder, COMMITS[0], []

    def put(self, commit: str, name: str, source: Path | bytes) -> None:
        target = self.folder / commit / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(source if isinstance(source, bytes) else source.read_bytes())

    def snapshot(self, repository: str, revision: str | None, allow_patterns: list[str]) -> str:
        self.asked.append((repository, revision))
        commit = revision or self.newest
        if not (self.folder / commit).is_dir():
            raise OSError("no such revision")
        return str(self.folder / commit)


def weights_of(config: dict[str, Any], path: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    save_file({name: tensor.clone() for name, tensor in build(config).state_dict().items()}, path)
    return path


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    made = Hub(tmp_path / "hub")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", made.snapshot)
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "reduced-clip", CONFIG)
    settings = {"mean": CLIP.mean, "std": CLIP.std, "interpolation": "bicubic", "resize_mode": "shortest"}
    monkeypatch.setattr(open_clip, "get_pretrained_cfg", lambda *_: {**settings, "hf_hub": "owner/reduced-clip/"})
    monkeypatch.setitem(names.NAMED, "reduced-clip", CLIP)
    for seed, commit in enumerate(COMMITS):
        weights_of(CONFIG, tmp_path / "weights", seed)
        made.put(commit, "open_clip_model.safetensors", tmp_path / "weights")
    return made


def fetched(tmp_path: Path, **options: Any) -> tuple[Any, dict[str, Any]]:
    return fetch_backbone({"name": "mine", **options}, tmp_path / "work", tmp_path / "locks")


NAMED_SPEC = {"kind": "named", "model": "reduced-clip"}
TAG_SPEC = {"kind": "open_clip", "model": "reduced-clip", "pretrained": "tag"}


@pytest.mark.parametrize("options", [NAMED_SPEC, TAG_SPEC])
def test_first_fetch_writes_a_lock_and_later_ones_keep_to_it(hub: Hub, tmp_path: Path, options: dict[str, Any]) -> None:
    backbone, facts = fetched(tmp_path, **options)
    lock = json.loads((tmp_path / "locks" / "owner--reduced-clip.json").read_text())
    assert facts["lock"] == lock and lock["revision"] == COMMITS[0]
    assert list(lock["files"]) == ["open_clip_model.safetensors"]
    hub.newest = COMMITS[1]
    again, _ = fetched(tmp_path, **options)
    assert hub.asked == [("owner/reduced-clip", None), ("owner/reduced-clip", COMMITS[0])]
    assert again.digest == backbone.digest
    original = load_file(hub.folder / COMMITS[0] / "open_clip_model.safetensors")
    assert torch.equal(backbone.model.visual.proj, original["visual.proj"])


def test_exported_backbone_carries_its_lock_and_opens_without_a_network(hub: Hub, tmp_path: Path) -> None:
    backbone, facts = fetched(tmp_path, **NAMED_SPEC)
    export_backbone(backbone, tmp_path / "out", facts)
    shutil.rmtree(hub.folder)
    card = json.loads((tmp_path / "out" / "card.json").read_text())
    assert card["lock"]["repository"] == "owner/reduced-clip" and card["quick_gelu"] is False
    assert load_backbone(tmp_path / "out", name="mine").digest == backbone.digest


def test_changed_file_of_a_pinned_commit_is_refused(hub: Hub, tmp_path: Path) -> None:
    fetched(tmp_path, **NAMED_SPEC)
    hub.put(COMMITS[0], "open_clip_model.safetensors", hub.folder / COMMITS[1] / "open_clip_model.safetensors")
    with pytest.raises(ConceptBenchError, match=r"has the sha256 [0-9a-f]{64} instead of [0-9a-f]{64}, which .*locks"):
        fetched(tmp_path, **NAMED_SPEC)


def test_commit_of_the_configuration_is_asked_for_and_must_agree_with_the_lock(hub: Hub, tmp_path: Path) -> None:
    fetched(tmp_path, **NAMED_SPEC, revision=COMMITS[1])
    assert hub.asked == [("owner/reduced-clip", COMMITS[1])]
    with pytest.raises(
        ConceptBenchError, match=f"pins owner/reduced-clip at {COMMITS[1]}, but .* asks for {COMMITS[0]}"
    ):
        fetched(tmp_path, **NAMED_SPEC, revision=COMMITS[0])


def test_repository_that_cannot_be_had(hub: Hub, tmp_path: Path) -> None:
    shutil.rmtree(hub.folder)
    with pytest.raises(ConceptBenchError, match=r"cannot be fetched from the hub .*kind: local"):
        fetched(tmp_path, **NAMED_SPEC)
    hub.put(COMMITS[0], "README.md", b"nothing else")
    with pytest.raises(ConceptBenchError, match=r"has none of open_clip_model\.safetensors"):
        fetched(tmp_path, **NAMED_SPEC)
    assert not (tmp_path / "locks").exists()


@pytest.mark.parametrize(
    ("vision", "message"),
    [
        ({"width": 64}, "cannot be loaded"),
        ({"layers": 2}, "cannot be loaded"),
        ({"image_size": 48}, "weights of another model .*positional_embedding is"),
    ],
)
def test_weights_of_another_model_are_refused(hub: Hub, tmp_path: Path, vision: dict[str, int], message: str) -> None:
    weights_of({**CONFIG, "vision_cfg": {**REDUCED_VISION, **vision}}, tmp_path / "weights")
    hub.put(COMMITS[0], "open_clip_model.safetensors", tmp_path / "weights")
    with pytest.raises(ConceptBenchError, match=message):
        fetched(tmp_path, **NAMED_SPEC)


def test_hub_repository_in_open_clips_layout(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = {"model_cfg": CONFIG, "preprocess_cfg": preprocess_config(CLIP)}
    hub.put(COMMITS[0], "open_clip_config.json", json.dumps(config).encode())
    monkeypatch.setattr(open_clip, "list_pretrained", lambda: [])
    backbone, facts = fetched(tmp_path, kind="open_clip", model="hf-hub:owner/reduced-clip", pretrained=None)
    assert set(facts["lock"]["files"]) == {"open_clip_config.json", "open_clip_model.safetensors"}
    assert backbone.tokenize(["a bird"]).shape == (1, 77)
    hub.put(COMMITS[0], "open_clip_config.json", json.dumps({**config, "note": "changed"}).encode())
    with pytest.raises(ConceptBenchError, match=r"open_clip_config\.json has the sha256"):
        fetched(tmp_path, kind="open_clip", model="hf-hub:owner/reduced-clip", pretrained=None)


def test_local_folder_has_no_lock(hub: Hub, tmp_path: Path) -> None:
    backbone, facts = fetched(tmp_path, **NAMED_SPEC)
    export_backbone(backbone, tmp_path / "out", facts)
    local, nothing = fetched(tmp_path, kind="local", path=str(tmp_path / "out"))
    assert nothing == {} and local.digest == backbone.digest and local.name == "mine"


def with_hub_tokenizer(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    text = {**CONFIG["text_cfg"], "hf_tokenizer_name": "owner/reduced-clip", "tokenizer_kwargs": {"clean": "lower"}}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "reduced-clip", {**CONFIG, "text_cfg": text})
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        hub.put(COMMITS[0], name, f'{{"file": "{name}"}}'.encode())


@pytest.mark.parametrize("options", [NAMED_SPEC, TAG_SPEC])
def test_tokenizer_of_the_hub_travels_as_files_where_its_library_is_missing(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    with_hub_tokenizer(hub, monkeypatch)
    monkeypatch.setitem(sys.modules, "transformers", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    backbone, facts = fetched(tmp_path, **options)
    export_backbone(backbone, tmp_path / "out", facts)
    original = {path.name: path.read_bytes() for path in (hub.folder / COMMITS[0]).glob("*.json")}
    assert len(original) == 3
    assert {name: (tmp_path / "out" / name).read_bytes() for name in original} == original
    opened = load_backbone(tmp_path / "out", name="mine")
    pixels = torch.randn(2, 3, 32, 32)
    assert torch.equal(opened.encode_image(pixels), backbone.encode_image(pixels))
    with pytest.raises(ConceptBenchError, match=r"texts need the library transformers.*'conceptbench\[siglip\]'"):
        opened.tokenize(["a bird"])
    export_backbone(opened, tmp_path / "again", facts)
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() == original["tokenizer.json"]


def test_tokenizer_of_the_hub_is_made_of_the_files_beside_the_weights(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_hub_tokenizer(hub, monkeypatch)
    asked: list[tuple[Any, ...]] = []

    class Library:
        def __init__(self, name: str, length: int, **options: Any) -> None:
            asked.append((name, length, options))

        def __call__(self, texts: list[str]) -> torch.Tensor:
            return torch.zeros(len(texts), asked[-1][1], dtype=torch.long)

    monkeypatch.setattr(open_clip.tokenizer, "HFTokenizer", Library)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "found")
    backbone, facts = fetched(tmp_path, **NAMED_SPEC)
    export_backbone(backbone, tmp_path / "out", facts)
    assert asked == []
    assert load_backbone(tmp_path / "out").tokenize(["a bird"]).shape == (1, 77)
    assert asked == [(str(tmp_path / "out"), 77, {"tokenizer_mode": None, "clean": "lower"})]


def test_image_tower_of_timm_keeps_its_weights(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    register_trunk("vit_base_patch14_reg4_dinov2_at_32", DINO.model, **REDUCED_TRUNK)
    narrow = {key: value for key, value in REDUCED_TRUNK.items() if key != "img_size"}
    source = timm.create_model(DINO.model, num_classes=0, img_size=48, **narrow)
    save_file({name: tensor.clone() for name, tensor in source.state_dict().items()}, tmp_path / "weights")
    hub.put(COMMITS[0], "model.safetensors", tmp_path / "weights")
    monkeypatch.setitem(names.NAMED, "reduced-dino", DINO)
    made = []

    def narrow_model(name: str, **options: Any) -> Any:
        made.append(timm.create_model(name, **options, **narrow))
        return made[-1]

    monkeypatch.setattr(fetch, "timm", SimpleNamespace(create_model=narrow_model))
    backbone, facts = fetched(tmp_path, kind="named", model="reduced-dino")
    assert facts["lock"]["repository"] == "timm/reduced" and not backbone.has_text
    pixels = torch.randn(2, 3, 32, 32)
    assert torch.equal(backbone.encode_image(pixels), made[0].eval()(pixels))
    trunk = backbone.model.visual.trunk
    assert torch.equal(trunk.blocks[1].mlp.fc1.weight, source.blocks[1].mlp.fc1.weight)
    assert list(source.pos_embed.shape) == [1, 36, 64] and list(trunk.pos_embed.shape) == [1, 16, 64]
    assert fetched(tmp_path, kind="named", model="reduced-dino")[0].digest == backbone.digest
