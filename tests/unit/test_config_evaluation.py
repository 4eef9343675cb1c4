"""Configuration of the dictionary measures: who judges whom, what re-learns what, and refusals."""

import pytest
import yaml

from conceptbench.config import load_config, stage_spec
from conceptbench.errors import ConceptBenchError

TEXT = """
experiment: e
datasets: {scenes: {kind: scenes}}
backbones:
  a: {kind: trained, recipe: clip}
  b: {kind: trained, recipe: image}
  c: {kind: trained, recipe: random}
hooks: {a: [4], b: [4]}
dictionaries: {train_on: scenes, methods: {topk: {method: topk, width: 8, k: 2}, raw: {method: raw}}}
adaptations: {backbone: a}
measures: {dictionary: topk, block: 4}
"""


def made(**changes):
    plain = yaml.safe_load(TEXT)
    for path, value in changes.items():
        section, key = path.split("__")
        plain[section][key] = value
    return load_config(plain)


def test_the_first_other_backbone_with_hooks_judges():
    config = made(measures__embed_with=["c", "b", "a"])
    assert config.embedding_of("a") == "b" and config.embedding_of("b") == "a"
    spec = stage_spec(config, "measure_monosemanticity")
    assert spec["embedding_of"] == {"a": "b", "b": "a"} and spec["on"] == "scenes"


def test_nobody_judges_itself_and_nobody_is_asked_by_default():
    assert made(measures__embed_with=["a"]).embedding_of("a") is None
    assert made().embedding_of("b") is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"measures__embed_with": ["d"]}, "'measures.embed_with' names the backbone 'd'"),
        ({"dictionaries__halves": ["topkk"]}, "'dictionaries.halves' names the dictionary 'topkk'.*topk"),
    ],
)
def test_unknown_names_are_refused(change, message):
    with pytest.raises(ConceptBenchError, match=message):
        made(**change)


def test_halves_change_what_is_learnt_and_what_is_compared_and_nothing_else():
    plain, halved = made(), made(dictionaries__halves=["topk"])
    for stage, names in (("learn_dictionaries", {"backbone": "a"}), ("measure_stability", {})):
        assert stage_spec(plain, stage, **names) != stage_spec(halved, stage, **names), stage
    for stage, names in (
        ("encode_codes", {"backbone": "a", "dataset": "scenes"}),
        ("measure_monosemanticity", {}),
        ("measure_pareto", {}),
        ("measure_leaderboard", {}),
    ):
        assert stage_spec(plain, stage, **names) == stage_spec(halved, stage, **names), stage


def test_dictionaries_of_one_curve_differ_in_their_sparsity_alone():
    trained = {"method": "topk", "width": 64}
    methods = {
        "topk": {**trained, "k": [4, 8]},
        "long": {**trained, "k": [4, 8], "lr": [0.001, 0.003], "epochs": 5},
        "relu": {"method": "relu-l1", "width": 64, "l1": [1, "2e-3"]},
        "jump": {"method": "jump-relu", "width": 64, "sparsity": [0.5, 1.0]},
        "aimed": {"method": "jump-relu", "width": 64, "sparsity": 1.0, "penalty": "target", "k": [4, 8]},
        "two": {**trained, "k": [4, 8], "width": [32, 64]},
        "k-svd": {"method": "k-svd", "width": 64, "k": 8},
        "by-hand-k4": {**trained, "k": 4},
        "by-hand-k8": {**trained, "k": 8, "epochs": 2},
        "raw": {"method": "raw"},
    }
    config = made(dictionaries__methods=methods, measures__dictionary="topk-k8")
    for stage in ("measure_pareto", "measure_leaderboard"):
        spec = stage_spec(config, stage)
        assert spec["configured"] == {
            **{f"topk-k{k}": "topk" for k in (4, 8)},
            **{f"long-k{k}-lr0p00{lr}": f"long-lr0p00{lr}" for k in (4, 8) for lr in (1, 3)},
            **{"relu-l1-1": "relu", "relu-l1-2e-3": "relu"},
            **{"jump-sparsity0p5": "jump", "jump-sparsity1p0": "jump"},
            **{"aimed-k4": "aimed", "aimed-k8": "aimed"},
            **{f"two-k{k}-width{width}": f"two-width{width}" for k in (4, 8) for width in (32, 64)},
            **{name: name for name in ("k-svd", "by-hand-k4", "by-hand-k8", "raw")},
        }
        assert spec["configured"].keys() == spec["dictionaries"].keys()
