"""Shipped backbones: copied while nothing that defines them has changed, else trained again."""

import json
from pathlib import Path
from types import ModuleType

import pytest
from pretrain_tools import tiny, vocabulary

from conceptbench.backbones import shipped
from conceptbench.backbones.__main__ import main
from conceptbench.backbones.pretrain import first_losses
from conceptbench.backbones.recipes import RECIPES, code_digest
from conceptbench.backbones.shipped import (
    NAMES,
    SHIPPED,
    definition_digest,
    provide_trained,
    recipe_of,
    renew_shipped,
    replace_folder,
)
from conceptbench.errors import ConceptBenchError
from conceptbench.tables import read_json

SOURCE = '''
"""What it does."""
from dataclasses import dataclass

@dataclass
class Pair:
    """Two numbers."""
    left: int
    right: int = 2

def add(a: int, *rest: int, scale: float = 1.0) -> float:
    """Add them."""  # a comment
    total: float = a * scale
    return total + sum(rest)
'''


@pytest.fixture
def reduced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes that train in a moment."""
    for kind in NAMES.values():
        monkeypatch.setitem(shipped.RECIPES, kind, tiny(kind))
    monkeypatch.setattr(shipped, "zero_shot_probe", lambda: lambda model, tokenize: {"shape": 0.5})


def module(folder: Path, name: str, source: str) -> ModuleType:
    made = ModuleType(name)
    made.__file__ = str(folder / f"{name}.py")
    (folder / f"{name}.py").write_text(source)
    return made


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_fitting_backbone_is_copied_and_another_recipe_trained(
    reduced: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = provide_trained("clip-tiny", "clip", tmp_path / "s" / "clip-tiny", work=tmp_path / "w", shipped=tmp_path)
    assert "training 96 pictures" in capsys.readouterr().err
    changed = provide_trained(
        "clip-tiny", "clip", tmp_path / "other", work=tmp_path / "w", images=32, shipped=tmp_path / "s"
    )
    assert changed["definition"] != first["definition"]
    assert sum(phase["images"] for phase in changed["recipe"]["phases"]) == 32
    monkeypatch.setattr(shipped, "train_backbone", lambda *_, **__: pytest.fail("trained although the digest fits"))
    copied = provide_trained("clip-tiny", "clip", tmp_path / "out", work=tmp_path / "w", shipped=tmp_path / "s")
    assert copied == first
    assert contents(tmp_path / "out") == contents(tmp_path / "s" / "clip-tiny")
    assert not (tmp_path / "w").exists()


def test_the_definition_covers_recipe_code_model_and_vocabulary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary(tmp_path)
    merges = tmp_path / "merges.txt.gz"
    found = {definition_digest(tiny("random", **options), merges) for options in ({}, {"seed": 1}, {"blocks": 3})}
    assert len(found) == 3
    monkeypatch.setattr(shipped.recipes, "code_digest", lambda *_: "other code")
    found.add(definition_digest(tiny("random"), merges))
    monkeypatch.setattr(shipped, "model_config", lambda *_: {"patch_size": 4})
    found.add(definition_digest(tiny("random"), merges))
    monkeypatch.setattr(shipped, "sha256_file", lambda _: "other words")
    found.add(definition_digest(tiny("random"), merges))
    monkeypatch.setattr(shipped, "_data_digest", lambda *_: "other pictures")
    found.add(definition_digest(tiny("random"), merges))
    assert len(found) == 7


def test_the_code_digest_ignores_what_does_not_run(tmp_path: Path) -> None:
    original = code_digest(module(tmp_path, "original", SOURCE))
    same = SOURCE.replace("What it does.", "Other words.").replace("  # a comment", "").replace('"""Add them."""', "")
    same = same.replace("a: int, *rest: int", "a, *rest: object").replace("total: float =", "total =")
    same = same.replace("left: int\n", 'left: "int"\n').replace("\n\n", "\n\n\n")
    assert code_digest(module(tmp_path, "same", same)) == original
    changes = (("1.0", "2.0"), ("a * scale", "a + scale"), ("right: int = 2", "right: int = 3"), ("left", "up"))
    changed = [
        code_digest(module(tmp_path, f"changed{i}", SOURCE.replace(*change))) for i, change in enumerate(changes)
    ]
    assert len({original, *changed}) == 5


def test_pictures_change_in_proportion() -> None:
    recipe = recipe_of("clip", seed=3, images=RECIPES["clip"].images // 4)
    assert recipe.seed == 3 and recipe.schedule_images == RECIPES["clip"].schedule_images // 4
    assert [4 * phase.images for phase in recipe.phases] == [phase.images for phase in RECIPES["clip"].phases]
    assert recipe_of("clip") == RECIPES["clip"] and recipe_of("random", images=500) == RECIPES["random"]


def test_renewing_replaces_the_folder_and_describes_the_run(reduced: None, tmp_path: Path) -> None:
    out = tmp_path / "shipped" / "clip-tiny"
    out.mkdir(parents=True)
    (out / "stale").write_text("old")
    card = renew_shipped("clip-tiny", out, work=tmp_path / "w")
    assert set(contents(out)) == {
        "card.json",
        "merges.txt.gz",
        "open_clip_config.json",
        "open_clip_model.safetensors",
    }
    assert card == read_json(out / "card.json") and card["name"] == "clip-tiny"
    assert card["first_losses"] == first_losses(tiny("clip")) and len(card["first_losses"]) == 3
    assert card["log"][-1]["shape"] == 0.5 and card["machine"]["cpu"] and card["versions"]["torch"]
    assert not (tmp_path / "w").exists()
    copied = provide_trained("clip-tiny", "clip", tmp_path / "o", work=tmp_path / "w", shipped=tmp_path / "shipped")
    assert copied == card


def test_the_command_trains_or_explains(reduced: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = ["--out", str(tmp_path / "out"), "--work", str(tmp_path / "w")]
    assert main(["train", "random-tiny", *places]) == 0
    assert read_json(tmp_path / "out" / "card.json")["first_losses"] == []
    assert main(["train", "clip-huge", *places]) == 1
    assert "no shipped backbone 'clip-huge'; train one of clip-tiny" in capsys.readouterr().err


def test_a_damaged_folder_is_not_copied(tmp_path: Path) -> None:
    source, out = tmp_path / "source", tmp_path / "out"
    for folder in (source, out):
        folder.mkdir()
        (folder / "card.json").write_text(json.dumps({"name": folder.name}))
    with pytest.raises(ConceptBenchError, match=r"source cannot be copied to .*out .*; restore its files"):
        replace_folder(source, out)
    assert read_json(out / "card.json") == {"name": "out"}
    assert not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_shipped_is_what_the_code_of_today_would_make(name: str, tmp_path: Path) -> None:
    vocabulary(tmp_path)
    card = read_json(SHIPPED / name / "card.json")
    merges = tmp_path / "merges.txt.gz"
    assert card["definition"] == definition_digest(recipe_of(NAMES[name]), merges), (
        f"what defines {name} has changed: train it again with `make train-backbones`"
    )
    assert (SHIPPED / name / "merges.txt.gz").read_bytes() == merges.read_bytes()


@pytest.mark.parametrize(("name", "steps"), [("clip-tiny", 2), ("image-tiny", 1)])
def test_what_is_shipped_comes_from_its_recipe(name: str, steps: int) -> None:
    card = read_json(SHIPPED / name / "card.json")
    if "first_losses" not in card:
        pytest.skip(f"the card of {name} has no first_losses")
    assert first_losses(recipe_of(NAMES[name]), steps) == pytest.approx(card["first_losses"][:steps], abs=1e-2)
