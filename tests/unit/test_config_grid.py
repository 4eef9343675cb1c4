"""Grids of dictionaries, methods of one's own, and every method's section against the library's specification."""

from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import pytest

from conceptbench.config import load_config
from conceptbench.config.describe import json_schema
from conceptbench.config.dictionaries import SECTIONS
from conceptbench.config.names import slug
from conceptbench.errors import ConceptBenchError

ROOT = Path(__file__).parents[2]
DEFAULT = ROOT / "config.yaml"


def methods_of(methods: dict[str, Any]) -> dict[str, Any]:
    config = load_config(DEFAULT, {"dictionaries": {"methods": methods}})
    return dict(config.dictionaries.methods)


def test_a_list_is_one_dictionary_for_each_combination() -> None:
    grid = methods_of({"grid": {"method": "topk", "width": [512, 64], "k": [4, 8], "lr": 0.01}})
    cells = {name: (grid[name].k, grid[name].width) for name in grid if name.startswith("grid")}
    expected = {f"grid-k{k}-width{width}": (k, width) for k in (4, 8) for width in (512, 64)}
    assert cells == expected
    assert all(grid[name].lr == 0.01 for name in cells) and "topk" in grid


def test_options_that_are_lists_by_nature_stay_lists() -> None:
    grid = methods_of({"nest": {"method": "matryoshka", "width": [64, 128], "k": 2, "prefixes": [0.5, 1]}})
    assert grid["nest-width64"].prefixes == grid["nest-width128"].prefixes == (0.5, 1.0)
    own = methods_of({"own": {"method": "json.tool:main", "width": [8, 16], "options": {"sizes": [1, 2]}}})
    assert own["own-width8"].options == {"sizes": [1, 2]}


@pytest.mark.parametrize(
    ("option", "value", "part"),
    [
        ("k", 8, "k8"),
        ("l1", 0.002, "l1-0p002"),
        ("lr", 1e-05, "lr1e-05"),
        ("aux_k", 16, "aux-k16"),
        ("components", None, "components-null"),
        ("normalise", True, "normalise-true"),
        ("penalty", "tanh", "penalty-tanh"),
    ],
)
def test_parts_of_names(option: str, value: object, part: str) -> None:
    assert slug(option, value) == part


@pytest.mark.parametrize(
    ("methods", "sentence"),
    [
        ({"grid": {"method": "topk", "width": 64, "k": []}}, r"methods\.grid\.k' is an empty list"),
        ({"grid": {"method": "topk", "width": 64, "k": [4, 4]}}, "makes a second 'grid-k4'"),
        ({"grid": {"method": "topk", "width": 64, "k": [4, 80]}}, r"methods\.grid-k80': width 64 is smaller than k 80"),
        ({"grid": {"method": "topk", "width": 64, "kk": [4]}}, r"unknown key .*methods\.grid\.kk'; did you mean 'k'"),
        ({"mine": {"method": "json.tool:main", "widht": 8}}, r"unknown key .*mine\.widht'; did you mean 'width'"),
        ({"mine": {"method": "no_such_module:main", "width": 8}}, "there is no module 'no_such_module'"),
        ({"mine": {"method": "a b:c", "width": 8}}, r"methods\.mine\.method' is 'a b:c'"),
        ({"jump": {"method": "jump-relu", "width": 8, "sparsity": 1, "penalty": "target"}}, "target needs k"),
    ],
)
def test_mistakes_are_one_sentence(methods: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConceptBenchError, match=sentence):
        methods_of(methods)


def test_the_schema_allows_a_value_or_a_list() -> None:
    definitions = json_schema()["$defs"]
    kinds = [option["type"] for option in definitions["TopK"]["properties"]["k"]["anyOf"]]
    assert kinds == ["integer", "array"]
    assert definitions["Matryoshka"]["properties"]["prefixes"]["type"] == "array"
    assert definitions["Own"]["properties"]["options"]["type"] == "object"


@pytest.mark.parametrize("method", sorted(SECTIONS))
def test_sections_have_the_fields_and_defaults_of_the_library(method: str) -> None:
    from conceptbench.dictionaries.specs import METHODS, Own

    assert set(SECTIONS) == {*METHODS, "own"}
    ours = {
        name: field for name, field in SECTIONS[method].model_fields.items() if not field.exclude and name != "method"
    }
    library = {field.name: field for field in fields(METHODS.get(method, Own)) if field.name not in ("name", "method")}
    assert set(ours) == set(library)
    for name, field in library.items():
        required = field.default is MISSING and field.default_factory is MISSING
        assert ours[name].is_required() == required, name
        if field.default is not MISSING:
            assert ours[name].default == field.default, name


def test_the_dictionary_study_compares_every_method() -> None:
    config = load_config(DEFAULT, ROOT / "examples" / "dictionaries.yaml")
    assert {method.method for method in config.dictionaries.methods.values()} == set(SECTIONS) - {"own"}
    assert config.adaptations.tasks == () and config.measures.dictionary in config.dictionaries.methods
