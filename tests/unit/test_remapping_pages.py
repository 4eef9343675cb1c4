"""Pages about adaptations: shares beside their controls, the sentence that weighs them, reasons in place of blanks."""

import importlib
import json
import sys
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import figures_tables as made
import pandas as pd
import pytest

from conceptbench.config import load_config
from conceptbench.tables import write_table

ROOT = Path(__file__).resolve().parents[2]
PAIRS = (("flora", "maple"), ("terra", "maple"), ("terra", "vpt-deep"))
NAN = float("nan")


def load(name: str) -> ModuleType:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / "docs"))


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    return load("remapping_tables")


def estimate(value: float, half: float = 0.05, note: str = "", seed: str = "all") -> dict[str, Any]:
    return {"estimate": value, "low": value - half, "high": value + half, "n": 50, "seed": seed, "note": note}


def concepts(random: float = 0.9, matched: float = 0.9, relearnt: float = 0.1) -> pd.DataFrame:
    """Little is recruited by the followed dictionary; the controls are given, the relearnt one is there for MaPLe."""
    of = {("followed", "own"): 0.1, ("random", "own"): random, ("followed", "matched"): matched}
    of |= {("followed", "permuted"): 0.8, ("adapted", "own"): relearnt}
    rows = [
        {"task": t, "method": m, "half": "base", "outcome": "accuracy", "dictionary": d, "sets": s, "q": q, "part": p}
        | estimate(value)
        for (t, m), ((d, s), value), p, q in product(
            PAIRS, of.items(), ("recruited_share", "beyond_share", "sufficient_share"), (0.1, 0.25)
        )
        if (d != "adapted" or m == "maple") and (q == 0.1 or (d, s) == ("followed", "own"))
    ]
    return pd.DataFrame(rows)


def cells(text: str) -> pd.DataFrame:
    """The table of a piece of Markdown."""
    head, _, *lines = [[part.strip() for part in line.strip("| ").split(" | ")] for line in text.splitlines()]
    return pd.DataFrame(lines, columns=head)


def test_shares_stand_beside_their_controls_and_blanks_say_why(tables: ModuleType) -> None:
    table = concepts()
    gone = (table["task"] == "flora") & (table["sets"] == "matched")
    table.loc[gone, ["estimate", "low", "high"]] = NAN
    table.loc[gone, "note"] = "the gain is not distinguishable from 0"
    shown = cells(tables.controlled(table, "beyond_share")).set_index(["task", "adaptation"])
    assert list(shown.columns) == list(tables.CONTROLS)
    assert shown.loc[("terra", "maple"), "random dictionary"] == "0.900 (0.850 to 0.950)"
    assert shown.loc[("terra", "vpt-deep"), "relearnt dictionary"] == "not learnt (`relearn`)"
    assert shown.loc[("flora", "maple"), "matched latents"] == "none: the gain is not distinguishable from 0"
    assert (shown != "").all().all()


@pytest.mark.parametrize(
    ("controls", "said"),
    [
        (
            {},
            "3 against the matched latents, 3 against the sets of other classes. The conclusions beat their controls.",
        ),
        (
            {"random": 0.1},
            "out of 3: 0 against the random dictionary, 3 against the matched latents, 3 against the sets of other",
        ),
        ({"random": 0.1, "matched": 0.12}, "0 against the random dictionary, 0 against the matched latents"),
    ],
)
def test_the_sentence_says_whether_the_conclusion_beats_its_controls(
    tables: ModuleType, controls: dict[str, float], said: str
) -> None:
    text = tables.conclusion(concepts(**controls))
    assert "3 of 3 pairs of task and adaptation that less than half of the gain is recruited" in text
    assert said in text and "takes the same side in 2 of 2." in text


def test_the_sentence_names_what_alone_beats_its_controls_and_where_the_relearnt_dictionary_disagrees(
    tables: ModuleType,
) -> None:
    table = concepts(relearnt=0.8)
    weak = (table["dictionary"] == "random") & (table["task"] == "terra")
    table.loc[weak, ["estimate", "low", "high"]] = [0.1, 0.0, 0.2]
    text = tables.conclusion(table)
    assert "Only those about maple on flora beat all of their controls" in text
    assert "in 0 of 2; not for maple on flora (recruited), maple on terra (recruited)." in text


def test_wide_intervals_decide_nothing(tables: ModuleType) -> None:
    table = concepts().assign(low=-1.0, high=2.0)
    text = tables.conclusion(table)
    assert "0 of 3" in text and "leaves 3 open" in text and "beat" not in text


def test_the_sweep_and_the_converse_have_their_columns(tables: ModuleType) -> None:
    assert list(cells(tables.sweep(concepts())).columns[2:]) == ["q = 0.1", "q = 0.25"]
    shown = cells(tables.converse(concepts(matched=0.4))).iloc[0]
    assert shown["others moved"].startswith("0.100") and shown["matched latents moved"].startswith("0.400")


def validity(differences: bool = True) -> pd.DataFrame:
    rows = []
    for (task, method), dictionary in product(PAIRS, ("followed-on-zero-shot", "followed", "adapted")):
        if dictionary == "adapted" and method != "maple":
            continue
        head = {"task": task, "method": method, "half": "base", "dictionary": dictionary}
        head |= {"valid": dictionary != "followed" or method == "maple"}
        rows += [head | {"statistic": name} | estimate(0.2) for name in ("fvu", "l0", "dead_share")]
        if differences and dictionary == "followed":
            rows.append(head | {"statistic": "fvu_rise", "margin": 0.05} | estimate(0.07))
    return pd.DataFrame(rows)


def test_validity_reads_tables_with_and_without_a_margin(tables: ModuleType) -> None:
    with_margin, without = (cells(tables.validity(validity(new))).set_index("adaptation") for new in (True, False))
    assert with_margin.loc["vpt-deep", "valid"] == "no" and with_margin["margin"].eq("0.050").all()
    assert with_margin.loc["vpt-deep", "FVU over zero-shot"].startswith("0.070")
    assert with_margin.loc["vpt-deep", "FVU, relearnt"] == "not learnt"
    assert without["margin"].eq("not given").all() and set(without["valid"]) == {"yes", "no"}


def test_departures_from_the_recipes_are_those_of_the_configuration(tables: ModuleType) -> None:
    config = load_config(ROOT / "config.yaml", ROOT / "examples" / "local.yaml")
    shown = cells(tables.recipes(config)).set_index(["adaptation", "option"])
    for row, published, here in (
        (("clip-lora", "lr"), "0.0002", "0.005"),
        (("clip-lora", "batch_size"), "32", "16"),
        (("promptsrc", "mean_epoch"), "15.0", "4.0"),
        (("promptsrc", "templates"), "60 prompts", "6 prompts"),
        (("coop", "epochs"), "200", "10"),
    ):
        assert tuple(shown.loc[row, ["published", "here"]]) == (published, here)
    head = (ROOT / "examples" / "local.yaml").read_text(encoding="utf-8").split("experiment:")[0]
    for words in ("0.005 (0.0002)", "16 images (32)", "mean_epoch 4 (15)", "(60)", "CoOp has 10 epochs (200)"):
        assert words in head.replace("\n# ", " ")


def masked(outcomes: tuple[str, ...], selections: tuple[str, ...], **more: object) -> pd.DataFrame:
    head = {"half": "base", "model": "zero-shot", "selected_by": "zero-shot", "edit": "keep-error"} | more
    rows = [
        head | {"task": t, "dense": d, "selection": s, "direction": w, "k": k, "outcome": o} | estimate(0.3)
        for t, d, s, w, k, o in product(
            ("flora", "terra"), ("kept", "filtered"), selections, ("on", "off"), (1, 10, 30, 100), outcomes
        )
    ]
    return pd.DataFrame(rows).assign(disjoint=0.75, shared=0.125)


def test_the_balance_of_the_matched_control_is_on_the_page(tables: ModuleType) -> None:
    hit = masked(("active_latents", "mass_share", "frequency"), ("true", "matched")).assign(direction="")
    hit.loc[hit["selection"] == "matched", "estimate"] = 0.2
    shown = cells(tables.balance(hit)).iloc[0]
    assert shown["share of the mass, own / control"] == "0.3 / 0.2"
    assert shown["latents shared"] == "0.12" and shown["can be disjoint"] == "0.75"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A finished study of two adaptations, as far as a page reads it."""
    decomposition = made.decomposition(methods=("maple", "vpt-deep"))
    accuracy = made.accuracy()
    agreed = [
        {"task": t, "model": m, "between_classes": 0.8} | estimate(0.9, seed=s)
        for t, m, s in product(("flora", "terra"), ("zero-shot", "maple"), ("0", "1"))
    ]
    parts = {
        "decomposition": decomposition,
        "accuracy": accuracy,
        "concepts": concepts(),
        "validity": validity(),
        "association_agreement": pd.DataFrame(agreed),
        "masking": masked(("accuracy", "log_likelihood", "kl"), ("true", "matched")),
        "masking_contrasts": masked(("accuracy",), ("true-predicted", "true-matched")),
        "masking_balance": masked(("active_latents", "mass_share", "frequency"), ("true", "matched"), direction=""),
        "plants": pd.DataFrame({"plant": ["null"]}),
        "runtime_summary": pd.DataFrame(
            [{"jobs": 3, "wall_seconds": 60.0, "outside_seconds": 6.0, "outside_share": 0.1}]
        ),
    }
    for name, table in parts.items():
        write_table(table, tmp_path / "tables" / name)
    metrics = {f"adaptation.{m}.flora.base": 0.8 for m in ("maple", "linear-probe")}
    metrics |= {"remapping.maple.flora.gain": 0.2, "plants.null.coverage": 0.95}
    (tmp_path / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    (tmp_path / "dictionaries" / "tiny").mkdir(parents=True)
    machine = {"machine": {"cpu": "x", "cores": 2, "python": "3.11"}}
    (tmp_path / "dictionaries" / "tiny" / "manifest.json").write_text(json.dumps(machine), encoding="utf-8")
    return tmp_path


def test_both_pages_have_all_figures_tables_and_no_empty_cell_of_accuracy(
    results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages, publish = load("pages"), load("publish")
    monkeypatch.setattr(pages.plant_tables, "planted", lambda _: ["## The estimators on planted adaptations"])
    for make, page in ((pages.remapping_page, publish.REMAPPING), (pages.photographs_page, publish.PHOTOGRAPHS)):
        text = make(results, "images/x")
        whole = "\n\n".join(text)
        for figure in publish.ADAPTED:
            assert (f"(images/x/{figure}.png)" in whole) is (figure in page.figures), figure
        assert {"overlap", "remapping_scatter"} <= set(publish.ADAPTED)
        accuracy = cells(text[text.index("## Accuracy") + 1]).set_index("adaptation")
        assert accuracy.loc["linear-probe", "novel"] == "none: a linear probe has no weights for novel classes"
        assert "beyond the dictionary" not in whole and "recruited, others put back to zero-shot" in whole
        assert "| clip-lora | lr | 0.0002 | 0.005 |" in whole
        assert "The conclusions beat their controls" in whole and "FVU, relearnt" in whole
        assert "nan" not in whole
    assert set(publish.ADAPTED) - set(publish.PHOTOGRAPHS.figures) == {"association"}  # it shows images of others


def test_the_claims_of_both_studies_are_copied(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, results: Path) -> None:
    publish = load("publish")
    monkeypatch.setattr(publish, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(publish, "publish", lambda page: None)
    (tmp_path / "docs").mkdir()
    (results / "claims.md").write_text("judged", encoding="utf-8")
    monkeypatch.setattr(
        publish.Page, "results", property(lambda page: results if page == publish.PHOTOGRAPHS else tmp_path / "none")
    )
    publish.main()
    assert [path.name for path in (tmp_path / "docs").iterdir()] == ["claims-photographs.md"]


def test_one_name_for_what_is_put_back() -> None:
    """The part `beyond` is called the same on pages and in figures, and never what it is not."""
    sources = [*(ROOT / "src/conceptbench/figures").glob("*.py"), *(ROOT / "docs").glob("*.py")]
    sources += [*(ROOT / "report").glob("*.rst")]
    for path in sources:
        text = path.read_text(encoding="utf-8")
        assert "beyond the dictionary" not in text, path
        assert "less what was there before" not in text and "less what these latents did before" not in text, path
