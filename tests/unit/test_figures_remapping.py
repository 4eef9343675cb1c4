"""Figures of remapping: files and bytes repeat, the CSV holds what is drawn, bad and empty tables are said."""

import re
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import figures_tables as made
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from conceptbench.errors import ConceptBenchError
from conceptbench.figures import masking as figures_masking
from conceptbench.figures import shares as figures_shares
from conceptbench.figures.association import draw_association
from conceptbench.figures.masking import CONTRASTS, KEYS, draw_masking
from conceptbench.figures.overlap import draw_overlap
from conceptbench.figures.plants import draw_plants
from conceptbench.figures.remapping_scatter import draw_remapping_scatter
from conceptbench.figures.shares import draw_shares
from conceptbench.figures.style import PUT_BACK


def estimate(value: float) -> dict[str, Any]:
    return {"estimate": value, "low": value - 0.1, "high": value + 0.1, "n": 50, "seed": "all", "note": ""}


def masking() -> pd.DataFrame:
    head = {"task": "flora", "half": "base", "model": "zero-shot", "selected_by": "zero-shot", "dense": "kept"}
    rows = [
        head | {"edit": e, "selection": s, "direction": d, "k": k, "outcome": "accuracy"} | estimate(0.1 * i)
        for e, s, d, (i, k) in product(
            ("keep-error", "replace"), ("true", "matched", "pca"), ("on", "off"), enumerate((0, 1, 10, 64))
        )
    ]
    table = pd.DataFrame(rows)
    apart = table["k"].map({0: 1.0, 1: 0.9, 10: 0.4, 64: 0.0})
    return table.assign(disjoint=apart.where(table["selection"] == "matched"))


def models(names: tuple[str, ...]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Both masking tables for several models, and rows of another model's ranking, of filtered latents and of KL."""
    tables = []
    for table in (masking(), contrasts()):
        own = [table.assign(model=name, selected_by=name) for name in names]
        others = [table.assign(selected_by="other"), table.assign(dense="filtered"), table.assign(outcome="kl")]
        tables.append(pd.concat([*own, *others], ignore_index=True))
    return tables[0], tables[1]


def contrasts() -> pd.DataFrame:
    table = masking()
    apart = table.loc[table["selection"] == "matched", "disjoint"].to_numpy()
    return table[table["selection"] == "true"].assign(selection="true-matched", disjoint=apart)


def concepts() -> pd.DataFrame:
    head = {"task": "flora", "half": "base", "outcome": "accuracy", "q": 0.1}
    rows = [
        head | {"method": m, "dictionary": d, "sets": s, "part": p} | estimate(0.3)
        for m, (d, s), p in product(
            ("maple", "coop"),
            (("followed", "own"), ("followed", "matched"), ("random", "own")),
            ("recruited_share", "beyond_share", "gain"),
        )
    ]
    table = pd.DataFrame(rows)
    table.loc[table["method"] == "coop", ["estimate", "low", "high"]] = np.nan
    return table.assign(note=np.where(table["method"] == "coop", "the gain is not distinguishable from 0", ""))


def plants() -> pd.DataFrame:
    rows = [
        {"plant": p, "models": m, "outcome": "accuracy", "part": part, "statistic": s} | estimate(0.9)
        for p, m, part, s in product(
            ("relabel", "null"),
            (1, 3),
            ("gain", "mapping", "all", "remapping"),
            ("truth", "coverage", "coverage_of_all", "bias"),
        )
    ]
    claim = {"models": 1, "outcome": "accuracy", "part": "remapping"}
    rates = (("null", "false_positive_rate"), ("relabel", "power"))
    return pd.DataFrame([*rows, *({"plant": p, "statistic": s} | claim | estimate(0.02) for p, s in rates)])


def association() -> pd.DataFrame:
    head = {"task": "flora", "method": "maple", "half": "base", "label": 1, "class_name": "alvane"}
    rows = [
        head | {"latent": latent, "change": change, "model": model, "effect": effect}
        | estimate(0.1 * latent - 0.1 * (model == "adapted") + 0.01 * (effect == "exact")) | {"seed": "0"}
        for (latent, change), model, effect in product(
            enumerate(("rose", "rose", "fell")), ("zero-shot", "adapted"), ("first order", "exact")
        )
    ]  # fmt: skip
    return pd.DataFrame(rows)


def validity(rise: float = 0.01) -> pd.DataFrame:
    head = {"task": "flora", "method": "maple", "half": "base", "dictionary": "followed", "statistic": "fvu_rise"}
    return pd.DataFrame([head | estimate(rise) | {"margin": 0.05, "exceeds": rise > 0.05, "valid": rise <= 0.05}])


def remapping() -> pd.DataFrame:
    heads = [{"task": "flora", "method": m, "half": "base", "dictionary": "followed"} for m in ("coop", "maple")]
    names = {-1: "all", 0: "belune", 1: "alvane"}
    rows = [h | {"label": k, "class_name": v} | estimate(0.2 + 0.1 * k) for h in heads for k, v in names.items()]
    again = heads[1] | {"dictionary": "adapted", "label": -1, "class_name": "all"} | estimate(0.3)
    return pd.DataFrame([*rows, again])


def pictures(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    path = folder / "association.npz"
    np.savez(
        path,
        images=rng.integers(0, 255, (3, 4, 16, 16, 3), dtype=np.uint8),
        maps=rng.random((3, 4, 2, 2)).astype(np.float32),
        latent=np.array([0, 1, 2]),
        change=np.array(["rose", "rose", "fell"]),
        model=np.array(["adapted", "adapted", "zero-shot"]),
        label=np.ones(3, dtype=int),
        method=np.full(3, "maple"),
        task=np.full(3, "flora"),
    )
    return path


def points() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        {"task": "flora", "method": "maple", "label": label, "class_name": f"class{label}", "latent": latent}
        | {"zero_shot": rng.random() * (latent > 1), "adapted": rng.random(), "region": region, "seed": "0"}
        for label, (latent, region) in product(
            range(4), enumerate(("", "high", "high_to_low", "low_to_high", "between"))
        )
    ]
    return pd.DataFrame(rows)


def regions() -> pd.DataFrame:
    head = {"task": "flora", "method": "maple", "region": "high", "comparison": "adapted"}
    bounds = {"upper_bound": 0.5, "lower_bound": 0.2, "seed": "0"}
    return pd.DataFrame([head | {"label": label} | bounds | {"estimate": float(label)} for label in range(4)])


Case = tuple[Callable[..., None], Callable[[Path], tuple[Any, ...]], str]
CASES: dict[str, Case] = {
    "masking": (draw_masking, lambda _: (masking(), contrasts()), "estimate"),
    "shares": (draw_shares, lambda _: (concepts(),), "estimate"),
    "plants": (draw_plants, lambda _: (plants(),), "estimate"),
    "association": (draw_association, lambda p: (association(), remapping(), validity(), pictures(p)), "effect"),
    "scatter": (draw_remapping_scatter, lambda _: (points(), regions()), "adapted"),
}


@pytest.mark.parametrize("name", CASES)
def test_files_are_written_and_repeat_byte_by_byte(name: str, tmp_path: Path) -> None:
    draw, tables, _ = CASES[name]
    for folder in ("one", "two"):
        draw(*tables(tmp_path), tmp_path / folder / name, dpi=60)
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == [f"{name}.{e}" for e in ("csv", "png", "svg")]
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name
    assert len(pd.read_csv(tmp_path / "one" / f"{name}.csv"))


@pytest.mark.parametrize("name", CASES)
def test_missing_columns_are_named_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    draw, tables, column = CASES[name]
    first, *others = tables(tmp_path)
    with pytest.raises(ConceptBenchError, match=f"lacks the column.*{column}"):
        draw(first.drop(columns=column), *others, tmp_path / "out" / name)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", CASES)
def test_empty_tables_give_a_figure_that_says_so(name: str, tmp_path: Path) -> None:
    draw, tables, _ = CASES[name]
    empty = (table.iloc[:0] if isinstance(table, pd.DataFrame) else table for table in tables(tmp_path))
    draw(*empty, tmp_path / name, formats=("png",), dpi=50)
    assert (tmp_path / f"{name}.png").stat().st_size > 1000


def test_damaged_pictures_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConceptBenchError, match=r"none\.npz do not exist"):
        draw_association(association(), remapping(), validity(), tmp_path / "none.npz", tmp_path / "x")
    bad = tmp_path / "bad.npz"
    bad.write_bytes(b"no archive")
    with pytest.raises(ConceptBenchError, match=r"bad\.npz are unreadable"):
        draw_association(association(), remapping(), validity(), bad, tmp_path / "x")


def test_associations_show_one_adaptation_and_say_when_the_dictionary_fails_it(tmp_path: Path) -> None:
    for rise, words in ((0.01, "within the margin"), (0.2, "more than the margin")):
        tables = (association(), remapping(), validity(rise), pictures(tmp_path))
        draw_association(*tables, tmp_path / words, formats=("svg",))
        drawn = (tmp_path / f"{words}.svg").read_text()
        said = "".join(re.findall(r"<!-- (.*?) -->", drawn, re.DOTALL))
        assert words in " ".join(said.split()) and "An empty place" in " ".join(said.split())
        assert "flora · maple" in said and "coop" not in said
        assert "rose: speaks more" in said and "lost" not in said and "relearnt" in said


def shown(tmp_path: Path, name: str) -> Iterator[pd.DataFrame]:
    draw, tables, _ = CASES[name]
    draw(*tables(tmp_path), tmp_path / name, formats=("png",), dpi=50)
    yield pd.read_csv(tmp_path / f"{name}.csv", keep_default_na=False)


def test_masking_shows_adapted_models_with_their_controls(tmp_path: Path) -> None:
    names = ("maple", "coop", "ivlp", "zero-shot")
    draw_masking(*models(names), tmp_path / "masking", formats=["svg"])
    drawn = pd.read_csv(tmp_path / "masking.csv")
    assert set(drawn["model"]) == {"zero-shot", "maple", "coop"} and set(drawn["selected_by"]) == set(drawn["model"])
    assert set(drawn["dense"]) == {"kept"} and set(drawn["outcome"]) == {"accuracy"}
    of = drawn.groupby("model")["selection"].agg(set)
    assert all(of[name] == {"true", "matched", "pca", "true-matched"} for name in of.index)
    assert drawn[["low", "high"]].notna().all().all()


def sheets(monkeypatch: pytest.MonkeyPatch, module: ModuleType) -> list[Figure]:
    """The figures that a module saves, kept instead of written."""
    kept: list[Figure] = []
    monkeypatch.setattr(module, "save_figure", lambda sheet, *_, **__: kept.append(sheet.figure))
    return kept


def test_a_matched_control_ends_where_no_other_latents_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = sheets(monkeypatch, figures_masking)
    draw_masking(masking(), contrasts(), Path("unused"))
    first, *_, last = kept[0].axes
    drawn = {line.get_linestyle() + line.get_marker(): list(line.get_xdata()) for line in first.lines}
    assert drawn["-D"] == [0, 1, 2, 3] and drawn["--D"] == [0, 1]
    assert [list(line.get_xdata()) for line in last.lines if line.get_marker() == "D"] == [[0, 1]]
    assert all(len(axes.collections) <= 3 for axes in kept[0].axes), "bands of at most three curves"


def test_at_most_three_curves_of_a_panel_have_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = sheets(monkeypatch, figures_masking)
    whole = [masking()[lambda t: t["selection"] == "true"].assign(selection=name) for name in KEYS]
    gaps = [contrasts().assign(selection=name) for name in CONTRASTS]
    draw_masking(pd.concat(whole, ignore_index=True), pd.concat(gaps, ignore_index=True), Path("unused"))
    assert [len(axes.collections) for axes in kept[0].axes] == [3, 3, 3, 3, 2, 2]


def test_shares_beyond_the_axis_are_named_at_its_edge(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = sheets(monkeypatch, figures_shares)
    table = concepts()
    far = (table["method"] == "maple") & (table["sets"] == "matched") & (table["part"] == "beyond_share")
    table.loc[far, ["estimate", "low", "high"]] = [2.5, 2.0, 3.0]
    draw_shares(table, Path("unused"))
    left, right = ([text.get_text() for text in axes.texts] for axes in kept[0].axes)
    assert "250 %" in right and not any("250" in text for text in left)
    assert PUT_BACK in kept[0].axes[1].get_xlabel() and "others removed" in kept[0].axes[0].get_xlabel()


def test_many_adaptations_share_the_rows_of_the_scatter_and_each_task_has_its_own_in_the_overlap(
    tmp_path: Path,
) -> None:
    pairs = list(product(("flora", "terra"), ("vpt-deep", "ivlp", "maple")))
    tables = [
        pd.concat([table.assign(task=t, method=m) for t, m in pairs], ignore_index=True)
        for table in (points(), regions())
    ]
    draw_remapping_scatter(*tables, tmp_path / "scatter", formats=("png",), dpi=20)
    draw_overlap(made.overlap(methods=("vpt-deep", "ivlp", "maple")), tmp_path / "overlap", formats=("png",), dpi=20)
    for name, most in (("scatter", (15.5, 9)), ("overlap", (11, 11))):
        size = Image.open(tmp_path / f"{name}.png").size
        assert size[0] / 20 < most[0] and size[1] / 20 < most[1], (name, size)


def test_the_values_are_those_of_the_chosen_rows(tmp_path: Path) -> None:
    curves = next(shown(tmp_path, "masking"))
    assert set(curves["selection"]) == {"true", "matched", "pca", "true-matched"}
    assert set(next(shown(tmp_path, "shares"))["part"]) == {"recruited_share", "beyond_share"}
    plants = next(shown(tmp_path, "plants"))
    assert set(plants["plant"]) == {"relabel", "null"} and set(plants["models"]) == {1, 3}


def test_a_plant_that_is_never_covered_is_on_the_axis(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limits: dict[str, float] = {}

    def keep(sheet: Any, *_args: Any, **_options: Any) -> None:
        limits.update({axes.get_xlabel(): axes.get_xlim()[0] for axes in sheet.body.axes})

    monkeypatch.setattr("conceptbench.figures.plants.save_figure", keep)
    table = plants()
    table.loc[table["statistic"] == "coverage", "estimate"] = 0.0
    draw_plants(table, tmp_path / "x")
    assert limits["coverage, one model (%)"] < 0 and limits["coverage, three seeds (%)"] == 60


def test_shares_of_many_adaptations_fit_a_page(tmp_path: Path) -> None:
    cases = product(("flora", "terra"), range(10))
    rows = [concepts().assign(task=task, method=f"method-{n}", note="") for task, n in cases]
    draw_shares(pd.concat(rows), tmp_path / "x", formats=("png",), dpi=20)
    assert Image.open(tmp_path / "x.png").size[1] / 20 < 12
    assert len(pd.read_csv(tmp_path / "x.csv")[["task", "method"]].drop_duplicates()) == 20
