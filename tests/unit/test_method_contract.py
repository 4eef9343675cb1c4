"""Every method of the project keeps the contract that foreign methods are checked by."""

import json
from typing import Any

import numpy as np
import pytest

from conceptbench.dictionaries import specify
from conceptbench.dictionaries.contract import OPTIONS, Contract, matched_cosine, planted_atoms
from conceptbench.dictionaries.specs import describe
from conceptbench.errors import ConceptBenchError


@pytest.mark.parametrize("method", sorted(OPTIONS))
def test_every_method_keeps_the_contract(method: str) -> None:
    findings = {finding.check: finding for finding in Contract(method).run()}
    assert len(findings) == 8
    assert not [f"{finding.check}: {finding.detail}" for finding in findings.values() if not finding.passed]


def test_matching_uses_the_sign_and_each_atom_once() -> None:
    atoms = planted_atoms()
    assert matched_cosine(atoms, atoms[::-1]) == pytest.approx(1)
    assert matched_cosine(atoms[:4], -atoms[:4]) < 0.5, "an opposite atom is no match for codes >= 0"
    assert matched_cosine(atoms[:2], np.stack([atoms[0], atoms[0]])) < 0.9, "one atom cannot stand for two"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"method": "batch-topk", "width": 8, "k": 0}, "k is 0"),
        ({"method": "batch-topk", "width": 8, "k": 9}, "width 8 is smaller than k 9"),
        ({"method": "batch-topk", "width": 8, "kk": 2}, "unknown option 'kk'; did you mean 'k'"),
        ({"method": "batch-topk", "width": 8}, "is incomplete: .*'k'"),
        ({"method": "matryoshka", "width": 8, "k": 2, "prefixes": [0.5]}, r"prefixes are \[0.5\], they must rise"),
        ({"method": "matryoshka", "width": 8, "k": 2, "prefixes": [0.5, 0.5, 1]}, "they must rise"),
        ({"method": "matryoshka", "width": 8, "k": 2, "prefixes": [0.01, 1]}, "prefix 0.01 of 8 is empty"),
        ({"method": "jump-relu", "width": 8, "sparsity": -1}, "sparsity is -1, it must not be negative"),
        ({"method": "jump-relu", "width": 8, "sparsity": 1, "bandwidth": 0}, "bandwidth is 0, it must be positive"),
        ({"method": "jump-relu", "width": 8, "sparsity": 1, "penalty": "target"}, "needs k from 1 to the width"),
        ({"method": "jump-relu", "width": 8, "sparsity": 1, "penalty": "l1"}, "it must be one of l0, target, tanh"),
        ({"method": "archetypal", "width": 8, "k": 2, "relaxation": -0.1}, "relaxation is -0.1"),
        ({"method": "k-means", "width": 8, "sample": 4}, "sample 4 is smaller than width 8"),
        ({"method": "k-means-omp", "width": 8, "k": 9}, "k is 9, it must lie in 1..8"),
        ({"method": "ica", "k": 4, "components": 2}, "components 2 is smaller than k 4"),
        ({"method": "semi-nmf", "width": 8, "k": 2, "iterations": 0}, "iterations is 0"),
        ({"method": "topk", "width": 8, "k": 2.5}, "k is 2.5, it must be a whole number"),
        ({"method": "topk", "width": 8, "k": "3"}, "k is '3', it must be a whole number"),
        ({"method": "topk", "width": 8, "k": True}, "k is True, it must be a whole number"),
        ({"method": "topk", "width": 8, "k": None}, "k is None, it must be a whole number"),
        ({"method": "topk", "width": 8, "k": 2, "aux_k": 1.5}, "aux_k is 1.5, it must be a whole number or null"),
        ({"method": "topk", "width": 8, "k": 2, "lr": float("nan")}, "lr is nan, it must be a finite number"),
        ({"method": "topk", "width": 8, "k": 2, "normalise": "no"}, "normalise is 'no', it must be true or false"),
        ({"method": "topk", "width": 8, "k": 2, "decay": 3}, "decay is 3, it must be text"),
        ({"method": "matryoshka", "width": 8, "k": 2, "prefixes": 1.0}, "prefixes is 1.0, it must be a list of num"),
        ({"method": "matryoshka", "width": 8, "k": 2, "prefixes": ["a"]}, "it must be a list of numbers"),
        ({"method": "a:C", "width": 8, "options": [1]}, "it must be a mapping"),
        ({"method": 3, "width": 8}, "method is 3, it must be text"),
        ({"method": "a b:C", "width": 8}, "named 'package.module:Class'"),
        ({"method": "a:C", "width": 8, "options": {"seed": 1}}, "options may not hold seed"),
    ],
)
def test_bad_options_end_in_one_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConceptBenchError, match=sentence):
        specify(name="x", **options)


@pytest.mark.parametrize("method", sorted(OPTIONS))
def test_numbers_of_other_types_are_taken(method: str) -> None:
    """Whole numbers and fractions of NumPy, and whole numbers where fractions may be."""
    taken = {k: np.int64(v) if type(v) is int else v for k, v in OPTIONS[method].items()}
    spec = specify(name="x", method=method, **taken)
    assert spec == specify(name="x", method=method, **OPTIONS[method])
    assert json.loads(json.dumps(describe(spec))).keys() == describe(spec).keys()


@pytest.mark.parametrize("method", sorted(OPTIONS))
def test_a_specification_survives_its_card(method: str) -> None:
    spec = specify(name="x", method=method, **OPTIONS[method])
    assert specify(**describe(spec)) == spec
