"""What the pages say of planted adaptations."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pandas as pd
import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"
GAIN = (("gain", "coverage"), ("gain", "bias"), ("gain", "coverage_of_all"))


@pytest.fixture(scope="module")
def plant_tables() -> ModuleType:
    sys.path.insert(0, str(DOCS))
    try:
        return importlib.import_module("plant_tables")
    finally:
        sys.path.remove(str(DOCS))


def plants_of(coverage: float, asked: str, models: int = 1) -> pd.DataFrame:
    head = {"models": models, "outcome": "accuracy", "low": 0.0, "high": 1.0, "n": 100, "seed": "all", "note": ""}
    rows = [
        {"plant": plant, "part": part, "statistic": statistic, "estimate": coverage, "asked": asked} | head
        for plant in ("amplify", "recruit-any")
        for part, statistic in (
            ("gain", "coverage"),
            ("gain", "bias"),
            ("gain", "coverage_of_all"),
            ("all", "coverage"),
        )
    ]
    claims = (("recruitment_by_recruited", "false_positive_rate", "amplify"), ("recruitment", "power", "recruit-any"))
    rows += [
        {"plant": plant, "part": part, "statistic": statistic, "estimate": 0.1, "asked": "compatible"} | head
        for part, statistic, plant in claims
    ]
    worst = {"plant": "amplify", "part": "all", "statistic": "worst_coverage", "estimate": 0.89, "asked": asked}
    return pd.DataFrame([*rows, worst | head | {"note": "gain"}])


def test_plants_are_weighed_part_by_part_and_the_untuned_one_apart(plant_tables: ModuleType) -> None:
    plants = pd.concat([plants_of(0.8, "below"), plants_of(0.8, "below", models=3)])
    text = "\n".join(plant_tables.planted(plants))
    assert "| amplify | 0.800 (0.000 to 1.000) *below* |" in text
    assert "Not compatible with what is asked for: amplify, gain: coverage 0.80 (below)." in text
    assert "| recruit-any | 0.800 (0.000 to 1.000) *below* |" in text and "outside of the pass line" in text
    assert "(100 repetitions of each plant" in text
    assert "gain: 0.890" in text and "Pooled over gain" in text and "three models pooled as studies" in text
    assert "| amplify | false |  |  | 0.100 (0.000 to 1.000) |  |" in text
    assert "| recruit-any | power | 0.100 (0.000 to 1.000) |  |  |  |" in text
    fine = "\n".join(plant_tables.planted(plants_of(0.95, "compatible")))
    assert "no coverage and no rate of false claims is incompatible" in fine and "this experiment has fewer" in fine
