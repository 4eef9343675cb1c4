"""docs/extend.md, followed: its class passes the contract, and its configuration is valid."""

import re
import sys
from pathlib import Path

import pytest
import yaml

from conceptbench.cli import main
from conceptbench.config import load_config, stage_spec
from conceptbench.config.sources import source_of
from conceptbench.dictionaries.contract import OPTIONS
from conceptbench.dictionaries.specs import METHODS
from conceptbench.errors import ConceptBenchError

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extend.md").read_text(encoding="utf-8")
FAULTY = """
import numpy as np

class Ignores:
    def __init__(self, width, seed, where="seed"):
        self.width, self.where = width, where
        self.random = np.random.default_rng(seed if where == "seed" else None)
    def partial_fit(self, tokens):
        self.d = tokens.shape[1]
    def result(self):
        random = np.random.default_rng(7) if self.where == "constant" else self.random
        return {"atoms": random.standard_normal((self.width, self.d)) / 10, "k": 3}

class Wrong(Ignores):
    def result(self):
        return {"atoms": np.ones((3, 3)), "k": 3}

class Both(Ignores):
    def result(self):
        return {"atoms": np.ones((self.width, self.d)), "k": 3, "thresholds": np.ones(self.width)}

class Extra(Ignores):
    def result(self):
        return {"atoms": np.ones((self.width, self.d)), "kk": 3}

class Empty(Ignores):
    def result(self):
        return {"atoms": None, "k": 3}

class Half(Ignores):
    def result(self):
        return {"atoms": np.ones((self.width, self.d)), "k": 2.5}

class Ragged(Ignores):
    def result(self):
        return {"atoms": [[1.0], [1.0, 2.0]], "k": 3}

class Nothing:
    def __init__(self, width, seed): pass
"""


def block(language: str) -> str:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)[0]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the module of the page and some faulty ones, forgotten afterwards."""
    (tmp_path / "my_method.py").write_text(block("python"), encoding="utf-8")
    (tmp_path / "faulty.py").write_text(FAULTY, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("my_method", "faulty"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return tmp_path


def test_the_class_of_the_page_passes_the_contract(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(block("python").splitlines()) <= 24
    assert main(["check-method", "my_method:SphericalKMeans", "--option", "k=3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line[:4] for line in lines[1:-1]] == ["pass"] * 8 and lines[-1] == "all checks passed"
    assert "options={'k': 3}" in lines[0]


def test_the_page_names_every_check_and_its_configuration_is_valid(folder: Path) -> None:
    config = load_config(ROOT / "config.yaml", yaml.safe_load(block("yaml")))
    assert {"spherical-width512", "spherical-width1024"} <= set(config.dictionaries.methods)
    stamp = stage_spec(config, "learn_dictionaries", backbone="clip-tiny")
    (folder / "my_method.py").write_text(block("python") + "\n# changed\n", encoding="utf-8")
    changed = stage_spec(config, "learn_dictionaries", backbone="clip-tiny")
    assert stamp["sources"].keys() == changed["sources"].keys() == {"spherical-width512", "spherical-width1024"}
    assert stamp != changed and "my_method" not in sys.modules


@pytest.mark.parametrize(
    ("path", "options", "failing"),
    [
        ("faulty:Ignores", [], {"positive control"}),
        ("faulty:Ignores", ["-o", "where=nowhere"], {"same seed, same result", "positive control"}),
        ("faulty:Ignores", ["-o", "where=constant"], {"negative control", "positive control"}),
        ("random", ["-o", "k=1"], set()),
        ("relu-l1", ["-o", "preset=patchsae", "-o", "l1=0.002", "-o", "epochs=20"], set()),
        ("relu-l1", ["-o", "preset=sae-v", "-o", "l1=0.5", "-o", "epochs=20"], set()),
    ],
)
def test_the_contract_catches_what_it_is_there_for(
    folder: Path, capsys: pytest.CaptureFixture[str], path: str, options: list[str], failing: set[str]
) -> None:
    """Random atoms are no finding; without a seed nothing repeats; equal atoms from different noise are a fault."""
    status = main(["check-method", path, *options])
    lines = capsys.readouterr().out.splitlines()
    assert {line[4:].split("  ")[1] for line in lines if line.startswith("FAIL")} == failing
    assert status == bool(failing)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["topkk"], "unknown method 'topkk'; did you mean 'topk'"),
        (["topk", "-o", "kk=3"], "unknown option 'kk'; did you mean 'k'"),
        (["topk", "-o", "k"], "not of the form NAME=VALUE"),
        (["nowhere:Method"], "there is no module 'nowhere'"),
        (["json.decoder.more:Method"], "'json.decoder' is a module, not a package"),
        (["faulty:Missing"], "has no class 'Missing'"),
        (["faulty:Nothing", "-o", "k=3"], "does not take its options"),
        (["faulty:Nothing"], "has no method 'partial_fit'"),
        (["faulty:Wrong"], r"atoms of shape \(3, 3\), not \(width, features\) = \(64, 48\)"),
        (["faulty:Both"], r"must have one of 'k', 'thresholds' and 'pursue', it has \['k', 'thresholds'\]"),
        (["faulty:Extra"], "unknown entry 'kk'"),
        (["faulty:Empty"], "the result of faulty:Empty is no mapping with 'atoms'"),
        (["faulty:Half"], "has k 2.5, which must be a whole number in 1..64"),
        (["faulty:Ragged"], "has atoms that are no array of numbers"),
        (["relu-l1", "-o", "preset=patch-sae"], "unknown preset 'patch-sae'; did you mean 'patchsae'"),
        (["topk", "-o", "preset=patchsae"], "unknown option 'preset'"),
        (["topk", "-o", "k=2.5"], "k is 2.5, it must be a whole number"),
    ],
)
def test_bad_input_is_one_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], sentence: str
) -> None:
    assert main(["check-method", *arguments]) == 2
    errors = capsys.readouterr().err.strip()
    assert re.search(sentence, errors) and errors.endswith(".") and "\n" not in errors


def test_a_module_is_found_without_importing_it(folder: Path) -> None:
    package = folder / "heavy"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    (package / "method.py").write_text("")
    assert source_of("heavy.method:Class") == package / "method.py"
    with pytest.raises(ConceptBenchError, match=r"no module 'heavy\.other'"):
        source_of("heavy.other:Class")


def test_every_method_has_options_for_its_contract() -> None:
    assert set(OPTIONS) == set(METHODS)
