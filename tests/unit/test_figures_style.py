"""The shared look: palette, order, missing values; figures compute no statistic; captions render."""

import ast
from pathlib import Path
from types import SimpleNamespace

import figures_tables as made
import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

import conceptbench.figures
from conceptbench.figures import style
from conceptbench.figures.style import (
    Away,
    Key,
    colours,
    dodge,
    figure_look,
    in_order,
    looks,
    mark_beyond,
    new_sheet,
    require,
)

SOURCES = sorted(Path(conceptbench.figures.__path__[0]).glob("*.py"))
REPORT = Path(__file__).parents[2] / "report"
FORBIDDEN_MODULES = ("scipy", "sklearn", "statsmodels", "torch", "conceptbench.inference", "conceptbench.measures")
FORBIDDEN_CALLS = {"std", "var", "quantile", "percentile", "median", "nanmean", "corr", "bootstrap", "regplot",
                   "lineplot", "pointplot", "barplot", "boxplot", "violinplot", "kdeplot", "histplot"}  # fmt: skip


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_figures_compute_no_statistic(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not [n for n in names if n.startswith(FORBIDDEN_MODULES) or n == "matplotlib.pyplot"], path.name
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            assert node.func.attr not in FORBIDDEN_CALLS, f"{path.name}:{node.lineno} computes {node.func.attr}"


def test_look_is_left_as_it_was() -> None:
    before = dict(mpl.rcParams)
    with figure_look():
        assert mpl.rcParams["svg.hashsalt"] == "conceptbench"
    assert dict(mpl.rcParams) == before


def test_colours_are_distinct_and_keep_the_fixed_ones() -> None:
    found = colours(["zero-shot", "maple", "vpt", "lora"], {"zero-shot": "#000000", "absent": "#FFFFFF"})
    assert found["zero-shot"] == "#000000" and len(set(found.values())) == 4
    assert len(colours([str(i) for i in range(20)])) == 20


@pytest.mark.parametrize("fixed", [{}, {"zero-shot": "#000000"}])
def test_no_two_methods_share_a_colour_and_a_marker(fixed: dict[str, str]) -> None:
    found = looks(["zero-shot", *(f"method-{at}" for at in range(40))], fixed)
    assert len(set(found.values())) == 41
    if fixed:
        assert found["zero-shot"][0] == "#000000"
        assert [name for name, (colour, _) in found.items() if colour == "#000000"] == ["zero-shot"]


def test_points_beyond_the_axis_are_marked_at_its_edge_once() -> None:
    axes = Figure().subplots()
    axes.set_xlim(-60, 160)
    points = [Away(50, 0, "red"), Away(200, 0.1, "red"), Away(210, 0.2, "red", hollow=True), Away(-80, 1, "blue")]
    mark_beyond(axes, points, " %")
    assert sorted((line.get_marker(), float(line.get_ydata()[0])) for line in axes.lines) == [
        ("<", 1.0),
        (">", 0.1),
        (">", 0.2),
    ]
    assert {text.get_text() for text in axes.texts} == {"200 % · 210 %", "-80 %"}
    assert axes.get_xlim() == (-60, 160) and all(-60 < line.get_xdata()[0] < 160 for line in axes.lines)


def test_order_and_dodge() -> None:
    assert in_order(["b", "x", "a", "b"], ("a", "b", "c")) == ["a", "b", "x"]
    np.testing.assert_allclose(dodge(3, 0.6), [-0.3, 0, 0.3])
    assert list(dodge(1)) == [0.0]


def test_require_reads_seeds_as_text() -> None:
    table = require(pd.DataFrame({"seed": [0, 1]}), "made", ("seed",))
    assert list(table["seed"]) == ["0", "1"]


def test_noise_of_the_solver_does_not_move_a_figure() -> None:
    """0.358125 is half a step of the positions' grid: its neighbours must settle where it does."""
    settled = []
    for half in (np.nextafter(0.358125, 0) - 1e-15, 0.358125, np.nextafter(0.358125, 1) + 1e-15):
        figure = Figure()
        axes = figure.add_axes((half, 0.1, 0.2, half))
        style._settle(figure)
        settled.append(axes.get_position().bounds)
    assert settled[0] == settled[1] == settled[2]


@pytest.mark.parametrize("width", [5.0, 9.6])
def test_title_notes_and_legend_stay_inside_the_sheet(width: float) -> None:
    with figure_look():
        keys = [Key(f"a rather long name of a thing {i}", "#000000") for i in range(5)]
        title = "A title that is long enough to need two lines on a narrow sheet and says what is shown"
        sheet = new_sheet(title, width=width, height=1.5, keys=keys, notes=["word " * 60])
        sheet.body.subplots()
        sheet.figure.canvas.draw()
        outer = sheet.figure.bbox
        texts = [t for strip in sheet.figure.subfigs for t in strip.texts]
        boxes = [t.get_window_extent() for t in texts]
        boxes += [legend.get_window_extent() for strip in sheet.figure.subfigs for legend in strip.legends]
        for box in boxes:
            assert box.x0 >= -1 and box.x1 <= outer.x1 + 1 and box.y0 >= -1 and box.y1 <= outer.y1 + 1
        legend, note = sheet.figure.subfigs[2].legends[0], sheet.figure.subfigs[2].texts[0]
        assert note.get_window_extent().y1 <= legend.get_window_extent().y0 + 1


def test_a_mark_without_interval_is_a_point_and_without_estimate_nothing() -> None:
    with figure_look():
        axes = new_sheet("x", width=5, height=1).body.subplots()
        style.mark(axes, made.estimate(0.5, 0.1), 0, colour="#000000")
        assert len(axes.lines) == 2
        style.mark(axes, {"estimate": 0.5, "low": np.nan, "high": np.nan}, 0, colour="#000000")
        assert len(axes.lines) == 3
        style.mark(axes, made.unknown("none"), 0, colour="#000000")
        assert len(axes.lines) == 3


@pytest.mark.parametrize("path", sorted(REPORT.glob("*.rst")), ids=lambda path: path.name)
def test_captions_render_with_the_default_configuration(path: Path) -> None:
    core = pytest.importorskip("docutils.core")
    jinja2 = pytest.importorskip("jinja2")
    yaml = pytest.importorskip("yaml")
    config = yaml.safe_load((REPORT.parent / "config.yaml").read_text(encoding="utf-8"))
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    text = environment.from_string(path.read_text(encoding="utf-8")).render(snakemake=SimpleNamespace(config=config))
    html = core.publish_parts(text, writer_name="html", settings_overrides={"halt_level": 2})["html_body"]
    assert "system-message" not in html and "{{" not in html
