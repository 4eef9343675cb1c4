"""Data sets and backbones by name in the configuration."""

from pathlib import Path
from typing import Any

import pytest

from conceptbench.config import load_config, stage_spec
from conceptbench.config.datasets import TEMPLATES, has_classes, is_published, train_images_per_class
from conceptbench.config.load import read_yaml
from conceptbench.config.model import Config
from conceptbench.config.named_backbones import NAMED
from conceptbench.data.spec import DatasetSpec
from conceptbench.errors import ConceptBenchError

ROOT = Path(__file__).parents[2]
DEFAULT = read_yaml(ROOT / "config.yaml")


def with_dataset(**options: Any) -> Config:
    return load_config(DEFAULT, {"data_root": "data", "datasets": {"probe": options}})


@pytest.mark.parametrize("kind", list(TEMPLATES))
def test_published_data_set_can_be_a_task_with_its_own_prompt(kind: str) -> None:
    config = load_config(
        DEFAULT, {"data_root": "data", "datasets": {"probe": {"kind": kind}}, "adaptations": {"tasks": ["probe"]}}
    )
    assert config.datasets["probe"].template == TEMPLATES[kind]
    assert stage_spec(config, "adapt", task="probe", method="zero-shot")["method"]["template"] == TEMPLATES[kind]
    assert with_dataset(kind=kind, template="a {}.").datasets["probe"].template == "a {}."


@pytest.mark.parametrize(
    "options",
    [
        *({"kind": kind} for kind in (*TEMPLATES, "eurosat", "flowers", "coco", "ade20k")),
        {"kind": "captions", "path": "photos", "captions": "photos.csv"},
        {"kind": "captions", "path": "/photos", "captions": "photos.csv"},
        {"kind": "folder", "path": "photos"},
    ],
)
def test_data_below_data_root_needs_it(options: dict[str, str]) -> None:
    config = with_dataset(**options, limit_per_class=20)
    section = config.datasets["probe"]
    assert is_published(section) == ("path" not in options)
    assert train_images_per_class(section) == 20
    stamp = stage_spec(config, "prepare_dataset", dataset="probe")
    spec = DatasetSpec.of(stamp.pop("name"), {key: value for key, value in stamp.items() if key != "seed"})
    assert spec.kind == options["kind"] and spec.limit_per_class == 20
    with pytest.raises(ConceptBenchError, match="'probe' is looked for under 'data_root', which is not set"):
        load_config(DEFAULT, {"datasets": {"probe": options}})


@pytest.mark.parametrize("kind", ["coco", "ade20k", "captions"])
def test_data_without_classes_is_no_task(kind: str) -> None:
    options = {"kind": kind, **({"path": "/photos", "captions": "/photos.csv"} if kind == "captions" else {})}
    assert not has_classes(with_dataset(**options).datasets["probe"])
    overlay = {"data_root": "data", "datasets": {"probe": options}, "adaptations": {"tasks": ["probe"]}}
    with pytest.raises(ConceptBenchError, match="'probe', a data set without classes"):
        load_config(DEFAULT, overlay)


def test_only_the_kind_says_what_is_fetched() -> None:
    short, full = with_dataset(kind="dtd", limit_per_class=3), with_dataset(kind="dtd", template="{}!")
    assert stage_spec(short, "fetch_dataset", dataset="probe") == stage_spec(full, "fetch_dataset", dataset="probe")


@pytest.mark.parametrize("name", list(NAMED))
def test_named_backbones_have_known_blocks(name: str) -> None:
    named = NAMED[name]

    def hooked(block: int) -> Config:
        overlay = {"backbones": {"published": {"kind": "named", "model": name}}, "hooks": {"published": [block]}}
        return load_config(DEFAULT, overlay)

    assert hooked(named.blocks - 1).hooks["published"] == (named.blocks - 1,)
    with pytest.raises(ConceptBenchError, match=f"its blocks are 0 to {named.blocks - 1}"):
        hooked(named.blocks)


def test_backbone_without_text_cannot_be_prompted() -> None:
    overlay = {
        "backbones": {"dino": {"kind": "named", "model": "dinov2-vit-b14"}},
        "hooks": {"dino": [4]},
        "adaptations": {"backbone": "dino"},
    }
    with pytest.raises(ConceptBenchError, match="needs a text tower, but the backbone 'dino' has none"):
        load_config(DEFAULT, overlay)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "named", "model": "siglip-vit-b61"}, "did you mean 'siglip-vit-b16'"),
        ({"kind": "named", "model": "dinov2-vit-b14", "revision": "main"}, "'backbones.probe.revision' is 'main'"),
        ({"kind": "named", "model": "dinov2-vit-b14", "pretrained": "x"}, "unknown key 'backbones.probe.pretrained'"),
    ],
)
def test_wrong_names_are_refused(options: dict[str, str], message: str) -> None:
    with pytest.raises(ConceptBenchError, match=message):
        load_config(DEFAULT, {"backbones": {"probe": options}})
