"""Pages made of finished experiments: numbers stand where they belong, and the claims page has today's statements."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

from conceptbench.measures.claims import STATEMENTS

DOCS = Path(__file__).resolve().parents[2] / "docs"
METRICS = {
    "adaptation.maple.flora.base": 0.8671,
    "adaptation.maple.flora.base.low": 0.85,
    "adaptation.maple.flora.base.high": 0.88,
    "adaptation.zero-shot.flora.base": 0.5,
    "stability.topk-k4.mcc": 0.25,
    "stability.topk-k4@clip-tiny/block2.mcc": 0.1,
}


@pytest.fixture(scope="module")
def pages() -> ModuleType:
    sys.path.insert(0, str(DOCS))
    try:
        return importlib.import_module("pages")
    finally:
        sys.path.remove(str(DOCS))


def test_cells_are_the_metrics_of_their_row_and_column(pages: ModuleType) -> None:
    rows = [("flora", "zero-shot"), ("flora", "maple")]
    text = pages.grid(METRICS, pages.Grid(rows, ("task", "adaptation"), {"base": "adaptation.{1}.{0}.base"}))
    assert text.splitlines() == [
        "| task | adaptation | base |",
        "| --- | --- | --- |",
        "| flora | maple | 0.867 (0.850 to 0.880) |",
        "| flora | zero-shot | 0.500 |",
    ]


def test_a_metric_that_does_not_exist_is_an_empty_cell(pages: ModuleType) -> None:
    assert pages.interval(METRICS, "adaptation.maple.flora.novel") == ""


def test_names_are_those_of_the_main_hook_point(pages: ModuleType) -> None:
    assert pages.named(METRICS, r"stability\.(.+)\.mcc") == ["topk-k4"]


def test_dictionaries_stand_by_sparsity_and_then_by_signal(pages: ModuleType) -> None:
    found = {"weak": (4.1, 0.2), "strong": (3.9, 0.6), "dense": (8.0, 0.9)}
    statistics = [("l0", 0), ("recovered_energy", 1), ("recovered_norm", 1)]
    rows = [
        {"dictionary": name, "statistic": statistic, "estimate": values[at], "seed": seed}
        for name, values in found.items()
        for statistic, at in statistics
        for seed in ("0", "all")
    ]
    assert list(pages.at_equal_l0(pd.DataFrame(rows))["dictionary"]) == ["strong", "weak", "dense"]


@pytest.mark.skipif(not (DOCS / "claims.md").is_file(), reason="the page is made by a run of examples/remapping.yaml")
@pytest.mark.parametrize("statement", STATEMENTS, ids=lambda statement: statement.id)
def test_the_published_page_has_todays_statements(statement: object) -> None:
    """When this fails, run examples/remapping.yaml again, then `make docs`."""
    text = (DOCS / "claims.md").read_text(encoding="utf-8")
    for part in ("text", "paper", "rule", "control"):
        assert getattr(statement, part) in text
