"""A change re-runs exactly the rules that it affects."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from .affected import (
    ADAPTED,
    DRAW,
    LAST,
    LATENTS,
    LEARNT,
    OUTPUTS,
    OVERLAP,
    STABILITY,
    SYNTHETIC,
    UNCERTAIN,
    nested,
)
from .workspace import Workspace

pytestmark = pytest.mark.workflow

CHANGES: dict[str, tuple[Any, set[str]]] = {
    "figures.dpi": (60, DRAW),
    "figures.latents": (3, {"draw_exemplars"}),
    "measures.resamples": (120, UNCERTAIN),
    "measures.overlap_k": ([3], {*OVERLAP, "collect_metrics"}),
    "measures.exemplars": (5, LATENTS),
    "dictionaries.methods.topk.k": (6, LEARNT),
    "adaptations.methods.maple.lr": (0.01, ADAPTED),
    "datasets.flora.images_per_class": (
        14,
        {"prepare_dataset", "record_activations", "encode_codes", *LATENTS, *ADAPTED},
    ),
    "synthetic.tokens": (9000, SYNTHETIC),
    "seeds": (
        [0],
        LEARNT - STABILITY | OUTPUTS | SYNTHETIC | ADAPTED | UNCERTAIN - {"measure_backbones", "draw_zero_shot"},
    ),
    "device": ("cpu", set()),
}


@contextmanager
def edited(path: Path) -> Iterator[None]:
    """Give a source file one more line; put it back with its time afterwards."""
    text, moment = path.read_text(), path.stat().st_mtime_ns
    path.write_text(f"{text}\n# another line\n")
    try:
        yield
    finally:
        path.write_text(text)
        os.utime(path, ns=(moment, moment))


ONLY_JOBS = {
    "adaptations.methods.maple.lr": {"adapt": 1},
    "datasets.flora.images_per_class": {"prepare_dataset": 1, "record_activations": 1, "encode_codes": 1},
}
"""Of rules with several jobs, how many a change affects."""


@pytest.mark.parametrize("key", CHANGES)
def test_changed_parameter(finished: Workspace, key: str) -> None:
    value, rules = CHANGES[key]
    plan = finished.planned(overlay=nested(key, value))
    assert set(plan) == (rules | LAST if rules else set())
    assert {rule: plan[rule] for rule in ONLY_JOBS.get(key, {})} == ONLY_JOBS.get(key, {})


def test_changing_a_parameter_back_needs_nothing(workspace: Workspace) -> None:
    workspace.snakemake("--dry-run", "--quiet", overlay=nested("measures.exemplars", 5))
    assert workspace.planned() == {}


def test_code_counts_by_content_not_by_time(workspace: Workspace) -> None:
    file = workspace.folder / "src" / "conceptbench" / "measures" / "overlap.py"
    os.utime(file)
    assert workspace.planned() == {}
    with edited(file):
        assert set(workspace.planned()) == {*OVERLAP, "collect_metrics", *LAST}
    os.utime(file)
    assert workspace.planned() == {}


@pytest.mark.parametrize(
    ("file", "rules"),
    [
        ("dictionaries/topk.py", LEARNT | OUTPUTS | SYNTHETIC | LAST),
        ("adaptation/maple.py", ADAPTED | LAST),
        ("figures/accuracy.py", {"draw_accuracy"} | LAST),
        ("figures/style.py", DRAW | LAST),
    ],
)
def test_edited_code_runs_the_rules_that_list_it(finished: Workspace, file: str, rules: set[str]) -> None:
    path = finished.folder / "src" / "conceptbench" / file
    with edited(path):
        assert set(finished.planned()) == rules
