"""Error against sparsity: intervals over seeds, the front, the figure with many methods."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conceptbench.errors import ConceptBenchError
from conceptbench.figures.dictionary_rows import family_looks
from conceptbench.figures.pareto import draw_pareto, spread
from conceptbench.measures.pareto import measure_pareto

METHODS = {"topk": "topk", "topk-32": "topk", "relu": "relu-l1", "bad": "jump-relu", "pca": "pca"}


def cards(points: dict[str, tuple[float, float]], seeds=(0, 1, 2)) -> pd.DataFrame:
    rows = []
    for name, (l0, fvu) in points.items():
        for seed in seeds[:1] if name == "pca" else seeds:
            error = fvu + 0.01 * (seed - 1)
            ids = {"backbone": "b", "block": 1, "dictionary": name, "seed": str(seed)}
            rows.append({**ids, "method": METHODS[name], "width": 64, "l0": l0, "fvu": error, "recovered_norm": 0.5})
    return pd.DataFrame(rows)


POINTS = {"topk": (8.0, 0.2), "topk-32": (32.0, 0.1), "relu": (16.0, 0.15), "bad": (16.0, 0.3), "pca": (4.0, 0.01)}


@pytest.fixture
def table() -> pd.DataFrame:
    return measure_pareto(cards(POINTS), METHODS)


def pooled(table: pd.DataFrame, name: str, statistic: str) -> pd.Series:
    mine = (table["dictionary"] == name) & (table["statistic"] == statistic) & (table["seed"] == "all")
    return table[mine].iloc[0]


def test_rows_pool_seeds_with_a_t_interval(table: pd.DataFrame) -> None:
    row = pooled(table, "topk", "fvu")
    assert row["estimate"] == pytest.approx(0.2) and row["n"] == 3
    assert row["high"] - row["estimate"] == pytest.approx(4.302653 * 0.01 / np.sqrt(3), rel=1e-5)
    assert pooled(table, "topk", "recovered_energy")["estimate"] == pytest.approx(0.8)
    assert pooled(table, "pca", "fvu")["note"] == "one seed only"
    assert set(table.loc[table["dictionary"] == "topk", "seed"]) == {"0", "1", "2", "all"}


def test_front_holds_what_no_learned_dictionary_beats(table: pd.DataFrame) -> None:
    front = table.groupby("dictionary")["on_front"].first()
    assert front.to_dict() == {"bad": False, "pca": False, "relu": True, "topk": True, "topk-32": True}
    assert set(table.loc[table["role"] == "null", "dictionary"]) == {"pca"}


def test_cards_without_the_norm_say_so() -> None:
    table = measure_pareto(cards(POINTS).assign(recovered_norm=np.nan), METHODS)
    row = pooled(table, "topk", "recovered_norm")
    assert np.isnan(row["estimate"]) and row["note"] == "undefined for every seed"


def test_unknown_dictionaries_are_refused() -> None:
    with pytest.raises(ConceptBenchError, match="has bad, which is not configured"):
        measure_pareto(cards(POINTS), {name: kind for name, kind in METHODS.items() if name != "bad"})


def test_methods_look_different() -> None:
    looks = family_looks([f"method-{at}" for at in range(40)] + ["random", "pca", "raw", "frozen"])
    assert len({(key.colour, key.marker) for key in looks.values()}) == 44


@settings(max_examples=50, deadline=None)
@given(heights=st.lists(st.floats(0.05, 0.95), min_size=1, max_size=12))
def test_names_are_pushed_apart_in_their_order(heights: list[float]) -> None:
    values = np.array(heights)
    found = spread(values, 0.04)
    order = np.argsort(values, kind="stable")
    assert (np.diff(found[order]) > 0.04 - 0.005).all()
    assert found.min() >= 0.02 - 1e-9
    if (np.diff(values[order]) >= 0.04).all():
        assert found == pytest.approx(values)


def test_figure_takes_a_dozen_methods(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    names = [f"method-{at}" for at in range(12)]
    METHODS.update({name: name for name in names})
    points = {name: (float(8 + at % 3), 0.1 + 0.002 * at + 0.001 * rng.random()) for at, name in enumerate(names)}
    frame = measure_pareto(cards(points | POINTS), METHODS)
    more = pd.concat([frame, frame.assign(backbone="c")], ignore_index=True)
    draw_pareto(more, tmp_path / "pareto", backbone="b", block=1, formats=("png",), dpi=50)
    assert (tmp_path / "pareto.png").stat().st_size > 10_000
    drawn = pd.read_csv(tmp_path / "pareto.csv")
    assert set(drawn["dictionary"]) == set(points) | set(POINTS) and set(drawn["backbone"]) == {"b", "c"}
