"""Every figure: the files are there, their bytes repeat, the CSV holds what is drawn, bad tables are named."""

from collections.abc import Callable
from pathlib import Path

import figures_tables as made
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image

from conceptbench.errors import ConceptBenchError
from conceptbench.figures import accuracy as accuracy_figure
from conceptbench.figures import decomposition as decomposition_figure
from conceptbench.figures.accuracy import _notes as accuracy_notes
from conceptbench.figures.accuracy import draw_accuracy
from conceptbench.figures.decomposition import draw_decomposition
from conceptbench.figures.densities import draw_densities
from conceptbench.figures.exemplars import draw_exemplars
from conceptbench.figures.factor_recovery import draw_factor_recovery
from conceptbench.figures.factor_values import draw_factor_values
from conceptbench.figures.latent_statistics import draw_latent_statistics
from conceptbench.figures.leaderboard import draw_leaderboard
from conceptbench.figures.monosemanticity import draw_monosemanticity
from conceptbench.figures.named_kinds import draw_named_kinds
from conceptbench.figures.overlap import draw_overlap
from conceptbench.figures.pareto import draw_pareto
from conceptbench.figures.runtime import draw_runtime
from conceptbench.figures.stability import draw_stability
from conceptbench.figures.zero_shot import draw_zero_shot

Draw = Callable[..., None]
PLACES = (("clip-tiny", 4),)
CASES: dict[str, tuple[Draw, Callable[[], tuple[pd.DataFrame, ...]]]] = {
    "latents": (draw_latent_statistics, lambda: (made.latents(60, places=PLACES, dictionaries=("topk", "raw")),)),
    "recovery": (draw_factor_recovery, lambda: (made.truth_summary(), made.truth_comparison())),
    "values": (draw_factor_values, lambda: (made.truth_factors(("0",)), made.truth_comparison())),
    "accuracy": (draw_accuracy, lambda: (made.accuracy(),)),
    "overlap": (draw_overlap, lambda: (made.overlap(("flora",)),)),
    "decomposition": (draw_decomposition, lambda: (made.decomposition(("flora",)),)),
    "zero_shot": (draw_zero_shot, lambda: (made.zero_shot(),)),
    "kinds": (draw_named_kinds, lambda: made.kinds()),
    "pareto": (draw_pareto, lambda: (made.pareto(),)),
    "densities": (draw_densities, lambda: made.densities()),
    "stability": (draw_stability, lambda: (made.stability(),)),
    "monosemanticity": (draw_monosemanticity, lambda: made.monosemanticity()),
    "leaderboard": (draw_leaderboard, lambda: (made.leaderboard(),)),
    "runtime": (draw_runtime, lambda: (made.runtime(),)),
}


@pytest.mark.parametrize("name", CASES)
def test_files_are_written_and_repeat_byte_by_byte(name: str, tmp_path: Path) -> None:
    draw, tables = CASES[name]
    for folder in ("one", "two"):
        draw(*tables(), tmp_path / folder / name, dpi=60)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert files == [f"{name}.csv", f"{name}.png", f"{name}.svg"]
    for file in files:
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes(), file
    svg = (tmp_path / "one" / f"{name}.svg").read_text(encoding="utf-8")
    assert "<dc:date>" not in svg
    assert plt.get_fignums() == []


@pytest.mark.parametrize("name", CASES)
def test_missing_columns_are_named_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    draw, tables = CASES[name]
    others = {
        "runtime": "seconds",
        "densities": "nearest_atom",
        "latents": "mean_activation",
        "monosemanticity": "excess",
    }
    column = others.get(name, "estimate")
    first, *rest = tables()
    with pytest.raises(ConceptBenchError, match=f"lacks the column.*{column}"):
        draw(first.drop(columns=column), *rest, tmp_path / name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", CASES)
def test_empty_tables_give_a_figure_that_says_so(name: str, tmp_path: Path) -> None:
    draw, tables = CASES[name]
    draw(*(table.iloc[:0] for table in tables()), tmp_path / name, formats=("png",), dpi=50)
    assert (tmp_path / f"{name}.png").stat().st_size > 1000
    assert len(pd.read_csv(tmp_path / f"{name}.csv")) == 0


def test_unknown_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConceptBenchError, match="cannot be written as 'gif'"):
        draw_runtime(made.runtime(), tmp_path / "x", formats=("gif",))


def read(tmp_path: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(tmp_path / f"{name}.csv", dtype={"seed": str})


def test_latents_keep_every_latent_of_one_dataset_with_logarithms(tmp_path: Path) -> None:
    table = made.latents(60, places=PLACES)
    draw_latent_statistics(table, tmp_path / "x", formats=(), dictionaries=("topk",))
    shown, expected = read(tmp_path, "x"), table[(table["dataset"] == "flora") & (table["dictionary"] == "topk")]
    assert set(shown["dataset"]) == {"flora"}, "the data set with labels is preferred"
    np.testing.assert_allclose(shown["frequency_image"], expected["frequency_image"])
    alive = ~shown["dead"]
    np.testing.assert_allclose(10 ** shown.loc[alive, "log10_mean_activation"], shown.loc[alive, "mean_activation"])
    assert shown.loc[~alive, "log10_frequency_image"].isna().all()


def test_latents_of_an_unknown_dataset_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConceptBenchError, match=r"no data set 'pets'; choose from scenes, flora"):
        draw_latent_statistics(made.latents(20, places=PLACES), tmp_path / "x", dataset="pets")


def test_recovery_names_the_role_of_every_dictionary(tmp_path: Path) -> None:
    draw_factor_recovery(made.truth_summary(), made.truth_comparison(), tmp_path / "x", formats=())
    shown = read(tmp_path, "x")
    names = shown[["backbone", "block", "dictionary", "role"]].drop_duplicates().itertuples(index=False, name=None)
    roles = {tuple(row[:3]): row[3] for row in names}
    assert roles["clip-tiny", 4, "topk"] == "best"
    assert roles["clip-tiny", 2, "topk"] == roles["image-tiny", 4, "topk"] == "learned"
    assert roles["clip-tiny", 2, "random"] == roles["random-tiny", 4, "topk"] == "control"
    gaps = shown[shown["panel"] == "best minus null: mean_auroc"]
    expected = made.truth_comparison().query("statistic == 'mean_auroc'")
    np.testing.assert_allclose(gaps["low"], expected["low"])
    scores = shown[shown["panel"] == "recovered_at_0.95"]
    assert len(scores) == (made.truth_summary()["statistic"] == "recovered_at_0.95").sum()


def test_values_show_the_best_dictionary_and_its_nulls_only(tmp_path: Path) -> None:
    factors = made.truth_factors(("0", "1"))
    draw_factor_values(factors, made.truth_comparison(), tmp_path / "x", formats=())
    shown = read(tmp_path, "x")
    sources = set(shown[["backbone", "block", "dictionary"]].itertuples(index=False, name=None))
    nulls = {("clip-tiny", 4, name) for name in ("random", "raw", "pca")} | {("random-tiny", 4, "topk")}
    assert sources == {("clip-tiny", 4, "topk"), *nulls}
    assert set(shown["metric"]) == {"auroc"}
    best = shown[(shown["role"] == "best") & (shown["seed"] == "0")]
    expected = factors.query("backbone == 'clip-tiny' and block == 4 and dictionary == 'topk'")
    expected = expected[(expected["metric"] == "auroc") & (expected["seed"] == "0")]
    np.testing.assert_allclose(best["estimate"], expected["estimate"])


def test_accuracy_csv_is_the_table(tmp_path: Path) -> None:
    table = made.accuracy()
    draw_accuracy(table, tmp_path / "x", formats=())
    np.testing.assert_allclose(read(tmp_path, "x")["estimate"], table["estimate"])


def test_accuracies_that_do_not_exist_are_named_in_the_notes() -> None:
    table = made.accuracy()
    dropped = table[table["estimate"].notna()]
    for frame in (table, dropped):
        assert accuracy_notes(frame)[1] == "n/a: no accuracy of linear-probe (novel, harmonic mean)."
    assert len(accuracy_notes(table[table["method"] == "maple"])) == 1


def test_overlap_shows_means_over_classes_pooled_over_seeds(tmp_path: Path) -> None:
    single = made.overlap().assign(seed="0", estimate=0.0)
    draw_overlap(pd.concat([made.overlap(), single]), tmp_path / "x", formats=())
    shown = read(tmp_path, "x")
    assert set(shown["label"]) == {-1} and set(shown["seed"]) == {"all"}
    assert "gap" not in set(shown["comparison"]), "a difference does not belong on the axis of overlaps"
    draw_overlap(single, tmp_path / "y", formats=())
    assert set(read(tmp_path, "y")["seed"]) == {"0"}


@pytest.mark.parametrize("players", [2, 3])
def test_decomposition_shows_one_number_of_players(players: int, tmp_path: Path) -> None:
    draw_decomposition(made.decomposition(), tmp_path / "x", players=players, formats=())
    shown = read(tmp_path, "x")
    assert set(shown["players"]) == {players}
    assert ("mapping" in set(shown["part"])) == (players == 2)
    unreported = shown[shown["part"].str.endswith("_share") & shown["estimate"].isna()]
    assert len(unreported) and unreported["note"].str.contains("not distinguishable").all()


def test_decomposition_takes_the_gain_from_the_other_rows_when_it_is_given_once(tmp_path: Path) -> None:
    table = made.decomposition()
    once = table[(table["part"] != "gain") | (table["players"] == 2)]
    draw_decomposition(once, tmp_path / "x", players=3, formats=())
    assert "gain" in set(read(tmp_path, "x")["part"])


def test_estimates_beyond_the_axis_of_the_decomposition_do_not_vanish(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Figure] = []
    monkeypatch.setattr(decomposition_figure, "save_figure", lambda sheet, *_, **__: kept.append(sheet.figure))
    table = made.decomposition(("terra",))
    far = (table["part"] == "perception_share") & (table["half"] == "base") & (table["outcome"] == "accuracy")
    table.loc[far, ["estimate", "low", "high"]] = [1.92, 1.3, 2.5]
    draw_decomposition(table, Path("unused"))
    texts = [text.get_text() for axes in kept[0].axes for text in axes.texts]
    assert texts.count("192 % · 192 %") == 1


def test_eleven_methods_have_looks_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[Figure] = []
    monkeypatch.setattr(accuracy_figure, "save_figure", lambda sheet, *_, **__: kept.append(sheet.figure))
    one = made.accuracy(("flora",))
    one = one[one["method"] == "maple"]
    draw_accuracy(pd.concat([one.assign(method=f"method-{at}") for at in range(11)]), Path("unused"))
    drawn = {(line.get_color(), line.get_marker()) for line in kept[0].axes[0].lines if line.get_markersize() == 6}
    assert len({pair for pair in drawn if pair[1] not in ("None", "")}) == 11


def test_decomposition_of_many_adaptations_fits_a_page(tmp_path: Path) -> None:
    """Ten adaptations of two tasks, base and novel: forty rows, which one below the other took 45 inches."""
    methods = [f"method-{number}" for number in range(10)]
    draw_decomposition(made.decomposition(methods=methods), tmp_path / "x", formats=("png",), dpi=20)
    width, height = (side / 20 for side in Image.open(tmp_path / "x.png").size)
    assert width < 14 and height < 20
    assert len(read(tmp_path, "x")[["task", "method", "half"]].drop_duplicates()) == 40


def test_kinds_show_every_dictionary(tmp_path: Path) -> None:
    kinds, null = made.kinds()
    both = pd.concat([kinds, kinds.assign(dictionary="random")])
    draw_named_kinds(both, null, tmp_path / "x", formats=())
    np.testing.assert_allclose(read(tmp_path, "x")["estimate"], both["estimate"])


def test_exemplar_figure_repeats(tmp_path: Path) -> None:
    made.exemplars().save(tmp_path / "exemplars.npz")
    draw_exemplars(tmp_path / "exemplars.npz", tmp_path / "a", images=3, dpi=60)
    draw_exemplars(made.exemplars(), tmp_path / "b", images=3, dpi=60)
    for suffix in ("png", "svg", "csv"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    shown = pd.read_csv(tmp_path / "a.csv")
    assert len(shown) == 18 and list(shown["rank"][:3]) == [0, 1, 2]
