"""Pages of finished experiments, made of their metrics and tables alone; `publish.py` writes them."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pandas as pd

from conceptbench.tables import read_json, read_table

Metrics = Mapping[str, float]
ORACLE_K = (10, 100)
"""Latents kept or removed in the table of what knowing the class adds."""


@dataclass(frozen=True)
class Grid:
    """A table of metrics: one row for each `row`, one column for each title."""

    rows: Sequence[tuple[str, ...]]
    heads: tuple[str, ...]
    """Titles of the cells that name a row."""
    columns: Mapping[str, str]
    """Keys of metrics.json by title; `{0}`, `{1}`, ... stand for the cells that name the row."""


def opening(results: Path, title: str, command: str) -> list[str]:
    """Title, where the numbers come from, and the machine."""
    machine = read_json(next((results / "dictionaries").glob("*/manifest.json")))["machine"]
    runtime = read_table(results / "tables" / "runtime_summary.parquet").iloc[0]
    return [
        f"# {title}",
        f"Written by `make docs` from the results of `{command}`; not edited by hand. Intervals are 95 %. "
        f"Machine: {machine['cpu']}, {machine['cores']} cores, Python {machine['python']}.",
        f"{runtime['jobs']:.0f} jobs in {runtime['wall_seconds']:.0f} s of wall time; in "
        f"{runtime['outside_seconds']:.0f} s of it ({100 * runtime['outside_share']:.0f} %) no job was at work "
        "(start-up, imports, scheduling).",
    ]


def results_page(results: Path, images: str) -> list[str]:
    """The headline numbers of the default run and where its time went."""
    return [
        *opening(results, "Results of the default run", "make run"),
        f"![Accuracy before and after adaptation]({images}/accuracy.png)",
        f"![Exemplars]({images}/exemplars.png)",
        "## Headline numbers",
        markdown(metric_rows(read_json(results / "metrics.json"))),
        "## Where the time goes",
        markdown(read_table(results / "tables" / "runtime.parquet").round(1)),
        f"![Runtime]({images}/runtime.png)",
    ]


def dictionaries_page(results: Path, images: str) -> list[str]:
    """Every method of dictionary learning, at several sparsities and seeds."""
    metrics = read_json(results / "metrics.json")
    methods = named(metrics, r"leaderboard\.([^.]+)\.")
    ranked = {
        "FVU": "dictionaries.{0}.fvu",
        "L0": "dictionaries.{0}.l0",
        "dead share": "dictionaries.{0}.dead_share",
        "factor values recovered, above the best null": "leaderboard.{0}.recovered_above_null",
        "recovered at AUROC 0.90": "truth.{0}.recovered_at_0.90",
        "stability above chance": "stability.{0}.above_floor",
        "the same, from disjoint halves of the images": "stability.{0}.halves.above_floor",
    }
    return [
        *opening(results, "The dictionary study", "snakemake --cores 2 --configfile examples/dictionaries.yaml"),
        "Names end in the number of latents that fire (`-k8`) or in the L1 weight; [method.md](method.md) defines "
        "every column.",
        "## Error against sparsity",
        f"![FVU against L0, and the signal recovered]({images}/pareto.png)",
        "## K-SVD against sparse autoencoders",
        "It has been claimed that K-SVD recovers two thirds of the signal where sparse autoencoders recover a sixth. "
        "The words fit two numbers, the energy (1 - FVU) and the norm (1 - mean error length over mean signal length). "
        "Here are, at each sparsity, the best dictionaries of both kinds on the same held-out tokens, PCA as the "
        "simplest reference, and for each the share of factor values that its latents recover: what is reconstructed "
        "best need not be what stands for concepts.",
        rivals(read_table(results / "tables" / "pareto.parquet"), metrics),
        "## The signal recovered at equal L0",
        "In energy it is 1 - FVU, in norm 1 - mean error length over mean signal length: the same dictionary gives two "
        "different fractions, so both are here (means over seeds).",
        markdown(at_equal_l0(read_table(results / "tables" / "pareto.parquet"))),
        "## All methods",
        grid(metrics, Grid([(name,) for name in methods], ("dictionary",), ranked)),
        f"![Leaderboard]({images}/leaderboard.png)",
        f"![Stability]({images}/stability.png)",
        f"![Firing rates and atoms]({images}/densities.png)",
        "## Known atoms",
        f"![Recovery of known atoms]({images}/recovery.png)",
    ]


KINDS = {
    "K-SVD": ("k-svd",),
    "autoencoder": ("topk", "batch-topk", "matryoshka", "jump-relu", "archetypal", "relu-l1"),
    "PCA": ("pca",),
}
"""Families that are compared as one kind."""


def rivals(pareto: pd.DataFrame, metrics: Metrics) -> str:
    """The dictionary of each kind that recovers most energy with 4, 8 and 16 latents a token."""
    pooled = pareto[pareto["seed"] == "all"]
    sparsity = pooled[pooled["statistic"] == "l0"].set_index("dictionary")["estimate"]
    lines = []
    for wanted, (kind, families) in product((4, 8, 16), KINDS.items()):
        near = sparsity[(sparsity - wanted).abs() <= 0.05 * wanted].index
        mine = pooled[pooled["family"].isin(families) & pooled["dictionary"].isin(near)]
        energy = mine[mine["statistic"] == "recovered_energy"].set_index("dictionary")["estimate"]
        if energy.empty:
            continue
        best = str(energy.idxmax())
        rows = mine[mine["dictionary"] == best].set_index("statistic")[["estimate", "low", "high"]]
        cells = [bracket(*rows.loc[f"recovered_{unit}"]) for unit in ("energy", "norm")]
        lines.append([wanted, kind, best, *cells, interval(metrics, f"truth.{best}.recovered_at_0.90")])
    heads = ["L0", "kind", "best dictionary", "signal in energy", "signal in norm", "factor values recovered"]
    return markdown(pd.DataFrame(lines, columns=heads))


def at_equal_l0(pareto: pd.DataFrame) -> pd.DataFrame:
    """Rows of the Pareto table by L0, the most signal first."""
    pooled = pareto[pareto["seed"] == "all"]
    wide = pooled.pivot(index="dictionary", columns="statistic", values="estimate").reset_index()
    wide = wide.assign(nearest=wide["l0"].round()).sort_values(["nearest", "recovered_energy"], ascending=[True, False])
    columns = {"dictionary": "dictionary", "l0": "L0", "recovered_energy": "in energy", "recovered_norm": "in norm"}
    return wide[list(columns)].rename(columns=columns).round(3)


def remapping_page(results: Path, images: str) -> list[str]:
    """Every adaptation on the testbed."""
    return [
        *opening(results, "The remapping study", "snakemake --cores 2 --configfile examples/remapping.yaml"),
        "The statements of PatchSAE are judged from these numbers in [claims.md](claims.md); [method.md](method.md) "
        "defines every column.",
        *adaptations(results, images),
    ]


def photographs_page(results: Path, images: str) -> list[str]:
    """Every adaptation on photographs, with the small backbone that ships with the project."""
    command = "snakemake --cores all --configfile examples/local.yaml --config data_root=..."
    return [
        *opening(results, "The remapping study on EuroSAT and Flowers-102", command),
        "The backbone has seen rendered pictures only: these numbers check the whole path on photographs and say "
        "nothing about CLIP. [method.md](method.md) defines every column.",
        *adaptations(results, images),
    ]


def adaptations(results: Path, images: str) -> list[str]:
    """Accuracy, where the gain comes from, associations and masking; and the estimators on planted truth."""
    metrics = read_json(results / "metrics.json")
    plants = named(metrics, r"plants\.([^.]+)\.coverage")
    scored = {
        "coverage of the 95 % intervals": "plants.{0}.coverage",
        "of the part covered least": "plants.{0}.worst_coverage",
        "mean size of the error": "plants.{0}.bias",
        "false claims of recruitment": "plants.{0}.recruitment.false_positive_rate",
        "the same where nothing is recruited, by `beyond`": "plants.{0}.recruitment_by_beyond.false_positive_rate",
        "false claims of remapping": "plants.{0}.remapping.false_positive_rate",
    }
    rows = sorted({(match[2], match[1]) for match in matching(metrics, r"adaptation\.([^.]+)\.([^.]+)\.\w+")})
    halves = {half.replace("_", " "): "adaptation.{1}.{0}." + half for half in ("base", "novel", "harmonic_mean")}
    gained = [row for row in rows if f"remapping.{row[1]}.{row[0]}.gain" in metrics]
    seen = {"gain": "gain", "through perception": "perception_share", "through mapping": "mapping_share"}
    carried = {"existing": "existing_share", "recruited": "recruited_share", "beyond the dictionary": "beyond_share"}
    shares = {
        title: "remapping.{1}.{0}." + key for title, key in {**seen, **carried, "association": "association"}.items()
    }
    return [
        "## Accuracy",
        grid(metrics, Grid(rows, ("task", "adaptation"), halves)),
        f"![Accuracy before and after adaptation]({images}/accuracy.png)",
        "## Where the gain on trained classes comes from",
        "Shares of the gain; they have no meaning where the gain is not distinguishable from 0.",
        grid(metrics, Grid(gained, ("task", "adaptation"), shares)),
        f"![Shares]({images}/shares.png)",
        f"![Perception and mapping]({images}/decomposition.png)",
        f"![Associations before and after]({images}/association.png)",
        "## Masking",
        f"![Masking curves]({images}/masking.png)",
        "What knowing the class adds: accuracy of the zero-shot model under a mask by the image's own class, less that "
        "under another mask of as many latents, on the same images. `on` keeps only the k latents, `off` removes them.",
        oracle(read_table(results / "tables" / "masking_contrasts.parquet")),
        "## The estimators on planted adaptations",
        grid(metrics, Grid([(name,) for name in plants], ("plant",), scored)),
        f"![Plants]({images}/plants.png)",
    ]


def oracle(contrasts: pd.DataFrame) -> str:
    """Masks by the true class against those by the predicted one, a wrong one and matched latents, for two k."""
    chosen = {"model": "zero-shot", "selected_by": "zero-shot", "edit": "keep-error", "dense": "kept", "seed": "all"}
    chosen |= {"outcome": "accuracy"}
    mine = contrasts[(contrasts[list(chosen)] == pd.Series(chosen)).all(axis=1) & contrasts["k"].isin(ORACLE_K)]
    shown = ("true-predicted", "true-wrong", "true-matched", "predicted-matched")
    lines = []
    for (task, direction, k), group in mine.groupby(["task", "direction", "k"]):
        rows = group.set_index("selection")
        cells = [bracket(*rows.loc[name, ["estimate", "low", "high"]]) if name in rows.index else "" for name in shown]
        lines.append([task, direction, k, *cells])
    return markdown(pd.DataFrame(lines, columns=["task", "mask", "k", *(name.replace("-", " - ") for name in shown)]))


def grid(metrics: Metrics, table: Grid) -> str:
    """A table in Markdown; a metric that does not exist is an empty cell."""
    lines = [
        [*row, *(interval(metrics, key.format(*row)) for key in table.columns.values())] for row in sorted(table.rows)
    ]
    return markdown(pd.DataFrame(lines, columns=[*table.heads, *table.columns]))


def interval(metrics: Metrics, key: str) -> str:
    """An estimate with its interval, where there is one."""
    if key not in metrics:
        return ""
    return bracket(metrics[key], metrics.get(f"{key}.low", math.nan), metrics.get(f"{key}.high", math.nan))


def bracket(estimate: float, low: float, high: float) -> str:
    """An estimate with its interval in brackets, where it has one."""
    around = f" ({low:.3f} to {high:.3f})" if math.isfinite(low) and math.isfinite(high) else ""
    return f"{estimate:.3f}{around}"


def matching(metrics: Metrics, pattern: str) -> list[re.Match[str]]:
    """Matches of a pattern with the beginning of every key."""
    return [found for key in metrics if (found := re.match(pattern, key))]


def named(metrics: Metrics, pattern: str) -> list[str]:
    """What the first group of a pattern stands for, each once, in order."""
    return list(dict.fromkeys(match[1] for match in matching(metrics, pattern) if "@" not in match[1]))


def metric_rows(metrics: Metrics) -> pd.DataFrame:
    """One row a key of metrics.json, its interval in the same row."""
    keys = [key for key in metrics if not key.endswith((".low", ".high"))]
    rows = []
    for key in keys:
        low, high = metrics.get(f"{key}.low"), metrics.get(f"{key}.high")
        around = "" if low is None or high is None else f"{low:.3f} to {high:.3f}"
        rows.append({"key": f"`{key}`", "estimate": f"{metrics[key]:.3f}", "95 % interval": around})
    return pd.DataFrame(rows)


def markdown(table: pd.DataFrame) -> str:
    """A data frame as a table in Markdown."""
    return "\n".join(f"| {line} |" for line in _lines(table.columns, table.to_numpy().tolist()))


def _lines(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> list[str]:
    heads = list(columns)
    return [" | ".join(heads), " | ".join("---" for _ in heads), *(" | ".join(map(str, row)) for row in rows)]
