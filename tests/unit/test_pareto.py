"""Error against sparsity: intervals over seeds, the front, the figure with many methods."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.axes import Axes

from conceptbench.errors import ConceptBenchError
from conceptbench.figures.dictionary_rows import curve_looks
from conceptbench.figures.pareto import draw_pareto, spread
from conceptbench.measures.pareto import measure_pareto

METHODS = {"topk": "topk", "topk-32": "topk", "relu": "relu-l1", "bad": "jump-relu", "pca": "pca"}
CONFIGURED = {**{name: name for name in METHODS}, "topk-32": "topk"}


def cards(points: dict[str, tuple[float, float]], seeds=(0, 1, 2)) -> pd.DataFrame:
    rows = []
    for name, (l0, fvu) in points.items():
        for seed in seeds[:1] if name == "pca" else seeds:
            error = fvu + 0.01 * (seed - 1)
            ids = {"backbone": "b", "block": 1, "dictionary": name, "seed": str(seed)}
            rows.append(
                {**ids, "method": METHODS.get(name, name), "width": 64, "l0": l0, "fvu": error, "recovered_norm": 0.5}
            )
    return pd.DataFrame(rows)


POINTS = {"topk": (8.0, 0.2), "topk-32": (32.0, 0.1), "relu": (16.0, 0.15), "bad": (16.0, 0.3), "pca": (4.0, 0.01)}


@pytest.fixture
def table() -> pd.DataFrame:
    return measure_pareto(cards(POINTS), METHODS, CONFIGURED)


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
    table = measure_pareto(cards(POINTS).assign(recovered_norm=np.nan), METHODS, CONFIGURED)
    row = pooled(table, "topk", "recovered_norm")
    assert np.isnan(row["estimate"]) and row["note"] == "undefined for every seed"


def test_unknown_dictionaries_are_refused() -> None:
    with pytest.raises(ConceptBenchError, match="has bad, which is not configured"):
        measure_pareto(cards(POINTS), {name: kind for name, kind in METHODS.items() if name != "bad"}, CONFIGURED)


def test_curves_look_different() -> None:
    curves = {f"curve-{at}": "topk" for at in range(40)}
    looks = curve_looks({**curves, "mine": "random", **{name: name for name in ("pca", "raw", "frozen")}})
    assert looks["mine"].label == "mine (null)" and looks["mine"].colour == looks["pca"].colour
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
    methods = {**METHODS, **{name: name for name in names}}
    points = {name: (float(8 + at % 3), 0.1 + 0.002 * at + 0.001 * rng.random()) for at, name in enumerate(names)}
    frame = measure_pareto(cards(points | POINTS), methods, {**CONFIGURED, **{name: name for name in names}})
    more = pd.concat([frame, frame.assign(backbone="c")], ignore_index=True)
    draw_pareto(more, tmp_path / "pareto", backbone="b", block=1, formats=("png",), dpi=50)
    assert (tmp_path / "pareto.png").stat().st_size > 10_000
    drawn = pd.read_csv(tmp_path / "pareto.csv")
    assert set(drawn["dictionary"]) == set(points) | set(POINTS) and set(drawn["backbone"]) == {"b", "c"}


def drawn(frame: pd.DataFrame, stem: Path, monkeypatch: pytest.MonkeyPatch) -> Axes:
    """The axes with the errors, of a figure that is not written."""
    kept = []
    monkeypatch.setattr("conceptbench.figures.pareto.save_figure", lambda sheet, *_, **__: kept.append(sheet))
    draw_pareto(frame, stem, backbone="b", block=1)
    return kept[0].figure.axes[0]


def test_lines_join_dictionaries_that_differ_in_their_sparsity_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two recipes of one method at the same sparsities: two lines, two colours or marks, two names."""
    points = {f"{recipe}-k{k}": (k, error / k) for recipe, error in (("short", 2.0), ("long", 1.0)) for k in (4, 8, 16)}
    points |= {f"other{at}-k4": (4.0, 0.6 + 0.01 * at) for at in range(14)}
    methods = dict.fromkeys(points, "topk")
    frame = measure_pareto(cards(points), methods, {name: name.partition("-")[0] for name in points})
    axes = drawn(frame, tmp_path / "pareto", monkeypatch)
    joined = [line for line in axes.lines if line.get_linewidth() == 1.1 and len(line.get_xdata()) == 3]
    assert [list(line.get_xdata()) for line in joined] == [[4, 8, 16], [4, 8, 16]]
    for line, error in zip(joined, (2.0, 1.0), strict=True):
        assert line.get_ydata() == pytest.approx([error / 4, error / 8, error / 16])
    assert joined[0].get_color() != joined[1].get_color()
    named = {text.get_text(): text.get_color() for text in axes.texts}
    assert set(named) == {"short", "long"} | {f"other{at}" for at in range(14)}
    assert (named["short"], named["long"]) == (joined[0].get_color(), joined[1].get_color())


def test_few_dictionaries_are_named_one_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    axes = drawn(measure_pareto(cards(POINTS), METHODS, CONFIGURED), tmp_path / "pareto", monkeypatch)
    assert {text.get_text() for text in axes.texts} == set(POINTS)
