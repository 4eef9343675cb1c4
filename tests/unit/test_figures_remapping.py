"""Figures of remapping: files and bytes repeat, the CSV holds what is drawn, bad and empty tables are said."""

from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from conceptbench.errors import ConceptBenchError
from conceptbench.figures.association import draw_association
from conceptbench.figures.masking import draw_masking
from conceptbench.figures.plants import draw_plants
from conceptbench.figures.remapping_scatter import draw_remapping_scatter
from conceptbench.figures.shares import draw_shares


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
    return pd.DataFrame(rows)


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
    return table[table["selection"] == "true"].assign(selection="true-matched")


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
        {"plant": p, "outcome": "accuracy", "part": part, "statistic": s} | estimate(0.9)
        for p, part, s in product(
            ("relabel", "null"), ("gain", "mapping", "all", "remapping"), ("truth", "coverage", "bias")
        )
    ]
    rate = {"plant": "null", "outcome": "accuracy", "part": "remapping", "statistic": "false_positive_rate"}
    return pd.DataFrame([*rows, rate | estimate(0.02)])


def association() -> pd.DataFrame:
    rows = [
        {"task": "flora", "method": "maple", "half": "base", "label": 1, "class_name": "alvane", "latent": latent}
        | {"zero_shot": 0.1 * latent, "adapted": 0.2, "change": change, "seed": "0"}
        for latent, change in enumerate(("gained", "gained", "lost", "kept"))
    ]
    return pd.DataFrame(rows)


def remapping() -> pd.DataFrame:
    head = {"task": "flora", "method": "maple", "half": "base"}
    names = {-1: "all", 0: "belune", 1: "alvane"}
    return pd.DataFrame([head | {"label": k, "class_name": v} | estimate(0.2 + 0.1 * k) for k, v in names.items()])


def pictures(folder: Path) -> Path:
    rng = np.random.default_rng(0)
    path = folder / "association.npz"
    np.savez(
        path,
        images=rng.integers(0, 255, (3, 4, 16, 16, 3), dtype=np.uint8),
        maps=rng.random((3, 4, 2, 2)).astype(np.float32),
        latent=np.array([0, 1, 2]),
        change=np.array(["gained", "gained", "lost"]),
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
    "association": (draw_association, lambda p: (association(), remapping(), pictures(p)), "adapted"),
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
        draw_association(association(), remapping(), tmp_path / "none.npz", tmp_path / "x")
    bad = tmp_path / "bad.npz"
    bad.write_bytes(b"no archive")
    with pytest.raises(ConceptBenchError, match=r"bad\.npz are unreadable"):
        draw_association(association(), remapping(), bad, tmp_path / "x")


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


def test_the_values_are_those_of_the_chosen_rows(tmp_path: Path) -> None:
    curves = next(shown(tmp_path, "masking"))
    assert set(curves["selection"]) == {"true", "matched", "pca", "true-matched"}
    assert set(next(shown(tmp_path, "shares"))["part"]) == {"recruited_share", "beyond_share"}
    assert set(next(shown(tmp_path, "plants"))["plant"]) == {"relabel", "null"}


def test_shares_of_many_adaptations_fit_a_page(tmp_path: Path) -> None:
    cases = product(("flora", "terra"), range(10))
    rows = [concepts().assign(task=task, method=f"method-{n}", note="") for task, n in cases]
    draw_shares(pd.concat(rows), tmp_path / "x", formats=("png",), dpi=20)
    assert Image.open(tmp_path / "x.png").size[1] / 20 < 12
    assert len(pd.read_csv(tmp_path / "x.csv")[["task", "method"]].drop_duplicates()) == 20
