"""Presets of the ReLU autoencoder: reached from the configuration, overridden by it, and resolved in the stamp."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from conceptbench.config import load_config, stage_spec
from conceptbench.config.describe import json_schema
from conceptbench.config.presets import PRESETS
from conceptbench.dictionaries import specify
from conceptbench.dictionaries.specs import describe
from conceptbench.errors import ConceptBenchError

ROOT = Path(__file__).parents[2]
BASE = ROOT / "config.yaml"


def stamp_of(options: dict[str, Any]) -> dict[str, Any]:
    """What the rule that learns is given of a dictionary `x` of the configuration."""
    config = load_config(BASE, {"dictionaries": {"methods": {"x": {"method": "relu-l1", **options}}}})
    methods: dict[str, Any] = stage_spec(config, "learn_dictionaries", backbone="clip-tiny")["methods"]
    return methods["x"]


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_the_stamp_holds_the_values_of_a_preset(preset: str) -> None:
    stamp = stamp_of({"preset": preset})
    assert "preset" not in stamp
    assert {name: stamp[name] for name in PRESETS[preset]} == PRESETS[preset]
    by_hand = specify(name="x", method="relu-l1", preset=preset)
    assert specify(name="x", **stamp) == by_hand
    assert specify(**describe(by_hand)) == by_hand, "a card holds the values too"


def test_given_options_override_a_preset() -> None:
    stamp = stamp_of({"preset": "patchsae", "width": 64, "ghost_gradients": False})
    assert (stamp["width"], stamp["ghost_gradients"], stamp["init"]) == (64, False, "kaiming")
    spec = specify(name="x", method="relu-l1", preset="patchsae", width=64)
    assert (describe(spec)["width"], describe(spec)["l1"]) == (64, 8e-5)


def test_without_a_preset_nothing_changes() -> None:
    assert stamp_of({"width": 64, "l1": 0.5, "preset": None}) == stamp_of({"width": 64, "l1": 0.5})
    with pytest.raises(ConceptBenchError, match=r"methods\.x.*width"):
        stamp_of({"l1": 0.5})
    with pytest.raises(ConceptBenchError, match="preset"):
        stamp_of({"preset": "patchsea"})


def test_a_list_of_presets_is_a_grid() -> None:
    methods = {"x": {"method": "relu-l1", "preset": ["patchsae", "sae-v"], "width": 64}}
    config = load_config(BASE, {"dictionaries": {"methods": methods}})
    learnt = stage_spec(config, "learn_dictionaries", backbone="clip-tiny")["methods"]
    assert learnt["x-preset-patchsae"]["normalise"] is False and learnt["x-preset-sae-v"]["norm_divided"] is False


def test_the_schema_asks_for_a_preset_or_what_it_stands_for() -> None:
    section = {**json_schema()["$defs"]["ReluL1"], "$defs": json_schema()["$defs"]}
    jsonschema.validate({"method": "relu-l1", "preset": "sae-v"}, section)
    jsonschema.validate({"method": "relu-l1", "width": 8, "l1": 1}, section)
    for lacking in ({"method": "relu-l1", "width": 8}, {"method": "relu-l1", "preset": "x"}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(lacking, section)


def test_the_published_protocol_uses_its_preset() -> None:
    written = yaml.safe_load((ROOT / "examples" / "paper.yaml").read_text(encoding="utf-8"))
    assert written["dictionaries"]["methods"]["patchsae"] == {"method": "relu-l1", "preset": "patchsae"}
    paper = load_config(BASE, ROOT / "examples" / "paper.yaml")
    learnt = stage_spec(paper, "learn_dictionaries", backbone="clip-b16")["methods"]["patchsae"]
    assert (learnt["width"], learnt["batch_size"], learnt["dead_tokens"]) == (768 * 64, 25_216, 1_613_824)
