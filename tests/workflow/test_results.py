"""What a finished run leaves, and that a second one has nothing to do."""

import json
import re

import pandas as pd
import pytest

from conceptbench.compare import compare, read_tolerances

from .workspace import ROOT, Workspace

pytestmark = pytest.mark.workflow

TABLES = {
    *("accuracy", "accuracy_difference", "backbones", "decomposition", "dictionaries", "exemplars", "hybrids", "kinds"),
    *("densities", "leaderboard", "monosemanticity", "monosemanticity_summary", "pareto", "stability"),
    *("kinds_null", "latents", "overlap", "overlap_points", "overlap_regions", "runtime", "runtime_summary"),
    *("truth_comparison", "truth_counterfactual", "truth_factors", "truth_matching", "truth_patches"),
    *("truth_permutation", "truth_summary"),
    *("association", "association_agreement", "association_shown", "concepts", "masking", "masking_balance"),
    *("masking_changes", "masking_contrasts", "remapping", "validity"),
    *("claims", "claim_parts"),
}
FIGURES = {
    *("accuracy", "decomposition", "densities", "exemplars", "factor_recovery", "factor_values", "latent_statistics"),
    *("leaderboard", "monosemanticity", "pareto", "stability"),
    *("named_kinds", "overlap", "recovery", "runtime", "zero_shot"),
    *("association", "masking", "remapping_scatter", "shares"),
}
IDLE = {"fetch_dataset", "measure_plants", "draw_plants"}
"""Rules of photographs, and of plants, which need more latents than this experiment has."""
METRICS = [
    r"backbones\.clip-tiny\.zero_shot\.(shape|colour|fill|background)",
    r"backbones\.clip-tiny\.recall_at_1",
    r"dictionaries\.(topk|relu-l1|random|raw|pca)\.(fvu|l0|dead_share)",
    r"stability\.(topk|relu-l1|random)\.(mcc|energy_mcc|shared_both)",
    r"monosemanticity\.(topk|relu-l1|random|raw|pca)\.mean_excess",
    r"leaderboard\.(topk|relu-l1|random|raw|pca)\.recovered_above_null",
    r"truth\.(topk|relu-l1|random|raw|pca)\.recovered_at_0\.90",
    r"adaptation\.(zero-shot|maple)\.flora\.(base|novel|harmonic_mean)",
    r"remapping\.maple\.flora\.gain",
]


def test_every_table_is_there_in_both_formats(finished: Workspace) -> None:
    folder = finished.results / "tables"
    assert {path.stem for path in folder.glob("*.parquet")} >= TABLES
    assert {path.stem for path in folder.glob("*.csv")} >= TABLES
    empty = {path.stem for path in folder.glob("*.parquet") if pd.read_parquet(path).empty}
    assert empty <= {"kinds_null"}  # groups of latents as large as a kind's do not exist among 64


def test_every_figure_is_there_with_its_values(finished: Workspace) -> None:
    folder = finished.results / "figures"
    for suffix in ("png", "svg", "csv"):
        assert {path.stem for path in folder.glob(f"*.{suffix}")} == FIGURES, suffix


@pytest.mark.parametrize("pattern", METRICS)
def test_metrics_have_the_agreed_names(finished: Workspace, pattern: str) -> None:
    metrics = json.loads((finished.results / "metrics.json").read_text())
    wanted = re.search(r"\((.*)\)", pattern)
    found = {key for key in metrics if re.fullmatch(pattern, key)}
    assert len(found) >= (len(wanted[1].split("|")) if wanted else 1), sorted(metrics)
    assert all(isinstance(metrics[key], float) for key in found)


def test_every_metric_has_a_stated_tolerance(finished: Workspace) -> None:
    metrics = json.loads((finished.results / "metrics.json").read_text())
    assert compare(metrics, metrics, read_tolerances(ROOT / "reference" / "tolerances.yaml")) == []


def test_nothing_unfinished_is_left(finished: Workspace) -> None:
    assert not [path for path in finished.results.rglob("*partial*")]
    work = finished.results / ".work"
    assert not work.exists() or not [path for path in work.rglob("*") if path.is_file()]


def test_every_job_recorded_its_time(finished: Workspace) -> None:
    logs = finished.results / "logs"
    timed = {str(path).removesuffix(".timing.json") for path in logs.rglob("*.timing.json")}
    logged = {str(path).removesuffix(".log") for path in logs.rglob("*.log")}
    assert timed == logged
    table = pd.read_parquet(finished.results / "tables" / "runtime.parquet")
    assert table["jobs"].sum() == len(logged) - 3  # measure_runtime, draw_runtime, collect_manifests come after


def test_second_run_has_nothing_to_do(finished: Workspace) -> None:
    assert finished.planned() == {}


def test_every_rule_took_part(finished: Workspace) -> None:
    listed = finished.snakemake("--list-rules").stdout.split()
    ran = {
        path.relative_to(finished.results / "logs").parts[0].split(".")[0] for path in finished.results.rglob("*.log")
    }
    rules = {
        name for name in listed if (finished.folder / "scripts" / f"{name}.py").exists() or name.startswith("draw_")
    }
    assert len(rules) >= 25
    assert rules - ran == IDLE
    assert ran <= rules
