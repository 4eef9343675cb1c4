"""Every adaptation of the configuration is one of the library, and what cannot work is refused before any job."""

from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from conceptbench.adaptation import method_spec, moves_images
from conceptbench.config import load_config, stage_spec
from conceptbench.config.adaptations import AdaptationMethod
from conceptbench.errors import ConceptBenchError

ROOT = Path(__file__).parents[2]
SECTIONS = {
    get_args(section.model_fields["method"].annotation)[0]: section
    for section in get_args(get_args(AdaptationMethod)[0])
}


def overlaid(tmp_path: Path, overlay: dict[str, Any]) -> Any:
    path = tmp_path / "overlay.yaml"
    path.write_text(yaml.safe_dump(overlay))
    return load_config(ROOT / "config.yaml", path)


@pytest.mark.parametrize("method", SECTIONS)
def test_fields_and_defaults_are_those_of_the_library(method: str) -> None:
    ours = {name: field.default for name, field in SECTIONS[method].model_fields.items() if name != "method"}
    library = {f.name: f.default for f in fields(method_spec({"method": method})) if f.name not in ("name", "method")}
    assert ours == library


def test_all_methods_reach_the_library_through_their_stamps() -> None:
    config = load_config(ROOT / "config.yaml", ROOT / "examples" / "remapping.yaml")
    assert {spec.method for spec in config.adaptations.methods.values()} == set(SECTIONS)
    for name in config.adaptations.methods:
        options = stage_spec(config, "adapt", task="terra", method=name)["method"]
        spec = method_spec({"name": name, **options})
        assert spec.name == name
        if name in ("zero-shot", "tip-adapter", "tip-adapter-f", "clip-lora"):
            assert options["template"] == "a centered satellite photo of {}."
    moving = [name for name, spec in config.adaptations.methods.items() if moves_images(spec.model_dump())]
    assert set(moving) == {"maple", "vpt-deep", "ivlp", "promptsrc", "clip-lora"}


@pytest.mark.parametrize("method", sorted(set(SECTIONS) - {"linear-probe", "vpt-deep"}))
def test_methods_with_text_on_an_image_only_backbone(tmp_path: Path, method: str) -> None:
    adaptations = {"backbone": "image-tiny", "methods": {"zero-shot": None, "maple": None, "tried": {"method": method}}}
    message = r"tried' needs a text tower, but .* has none; use linear-probe, vpt-deep or clip-lora with towers: image"
    with pytest.raises(ConceptBenchError, match=message):
        overlaid(tmp_path, {"adaptations": adaptations, "measures": {"block": 4}})


def test_methods_with_a_linear_head_on_an_image_only_backbone(tmp_path: Path) -> None:
    methods: dict[str, Any] = {"zero-shot": None, "maple": None, "linear-probe": {"method": "linear-probe"}}
    methods |= {"vpt": {"method": "vpt-deep", "depth": 6}, "lora": {"method": "clip-lora", "towers": "image"}}
    config = overlaid(tmp_path, {"adaptations": {"backbone": "image-tiny", "methods": methods}})
    assert set(config.adaptations.methods) == {"linear-probe", "vpt", "lora"}
    methods["vpt"]["depth"] = 7
    with pytest.raises(ConceptBenchError, match=r"vpt\.depth' is 7, but 'image-tiny' has 6 blocks in its image tower"):
        overlaid(tmp_path, {"adaptations": {"backbone": "image-tiny", "methods": methods}})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "vpt-deep"}, "tried.depth' is 12, but 'clip-tiny' has 6 blocks in its image tower; lower it"),
        ({"method": "ivlp", "image_depth": 6}, "tried.text_depth' is 12, but 'clip-tiny' has 3 blocks in its smaller"),
        (
            {"method": "promptsrc", "text_depth": 3},
            "tried.image_depth' is 9, but 'clip-tiny' has 6 blocks in its image",
        ),
        ({"method": "maple", "depth": 4}, "tried.depth' is 4, but 'clip-tiny' has 3 blocks in its smaller tower"),
        ({"method": "vpt-deep", "depth": 2, "template": "a flower"}, "template"),
        ({"method": "clip-lora", "towers": "vision"}, "towers"),
        ({"method": "tip-adapter", "beta_max": 0.1}, "beta_max"),
        ({"method": "coop", "epoch": 3}, "unknown key .*epoch.*; did you mean 'epochs'"),
    ],
)
def test_options_that_cannot_be(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConceptBenchError, match=message):
        overlaid(tmp_path, {"adaptations": {"methods": {"tried": options}}})
