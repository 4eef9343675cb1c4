"""Factor recovery by value: the best latent of the best dictionary and of every null, for every value of a factor."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MultipleLocator

from conceptbench.figures.factor_recovery import NULLS
from conceptbench.figures.style import (
    FORMATS,
    INTERVAL,
    NULL_COLOUR,
    PALETTE,
    Key,
    dodge,
    figure_look,
    in_order,
    mark,
    missing_text,
    new_sheet,
    place,
    require,
    save_empty,
    save_figure,
    tidy,
)

IDS = ("backbone", "block", "dictionary")
COLUMNS = (*IDS, "seed", "factor", "value", "metric", "latent", "estimate", "low", "high", "note")
LABELS = {"auroc": "AUROC", "average_precision": "average precision", "f1": "F1"}
SHADES = ("#4D4D4D", PALETTE[4], PALETTE[5], PALETTE[2], PALETTE[3], "#8C6D31")
SHAPES = ("s", "^", "v", "P", "X", "<")
MOST_NULLS = len(SHADES)


@figure_look()
def draw_factor_values(
    truth_factors: pd.DataFrame,
    truth_comparison: pd.DataFrame,
    stem: Path,
    *,
    metric: str = "auroc",
    formats: Sequence[str] = FORMATS,
    dpi: int = 150,
) -> None:
    """Draw one row a factor value, panels by factor, marks for the best dictionary and its nulls.

    Args:
        truth_factors: table `truth_factors` (rows of one seed each; the first seed is drawn with its interval, the
            others of the best dictionary as small dots).
        truth_comparison: table `truth_comparison`, which names the best dictionary and the nulls.
        metric: auroc, average_precision or f1.
    """
    factors = require(truth_factors, "truth_factors", COLUMNS)
    names = ("backbone", "block", "dictionary", "null_backbone", "null_block", "null_dictionary")
    comparison = require(truth_comparison, "truth_comparison", names)
    sources = _sources(factors, comparison)
    shown = factors.loc[factors["metric"] == metric, list(COLUMNS)].merge(sources, on=list(IDS))
    label = LABELS.get(metric, metric)
    title = f"Factor recovery by value: {label} of the best latent, on images it was not chosen on"
    if shown.empty:
        save_empty(title, f"The table holds no {label} of these dictionaries.", shown, stem, formats=formats, dpi=dpi)
        return
    shown["is_first_seed"] = shown["seed"] == shown["seed"].iloc[0]
    columns = _columns(shown)
    tallest = max(sum(len(values) + 1 for _, values in column) for column in columns)
    sheet = new_sheet(
        title, width=9.6, height=0.5 + 0.36 * tallest, keys=_keys(sources), notes=_notes(shown, metric)
    )  # fmt: skip
    strips = sheet.body.subfigures(1, len(columns), squeeze=False)[0]
    limits = (max(-0.02, min(0.45, float(shown[["estimate", "low"]].min().min()) - 0.03)), 1.02)
    for strip, column in zip(strips, columns, strict=True):
        heights = [len(values) + 0.9 for _, values in column]
        grid = strip.subplots(len(column), 1, height_ratios=heights, squeeze=False, sharex=True)[:, 0]
        for axes, (factor, values) in zip(grid, column, strict=True):
            _panel(axes, shown[shown["factor"] == factor], values, sources, metric)
            axes.set_title(factor, fontsize=9.5)
            axes.set_xlim(*limits)
        grid[-1].set_xlabel(f"{label} on split B")
    save_figure(sheet, shown.drop(columns=["colour", "marker"]), stem, formats=formats, dpi=dpi)


def _sources(factors: pd.DataFrame, comparison: pd.DataFrame) -> pd.DataFrame:
    """The best dictionary and its nulls with their looks; without a comparison, all dictionaries of the table."""
    best = comparison[list(IDS)].drop_duplicates()
    nulls = comparison[["null_backbone", "null_block", "null_dictionary"]].drop_duplicates().set_axis(list(IDS), axis=1)
    if best.empty:
        everything = factors[list(IDS)].drop_duplicates()
        is_null = everything["dictionary"].isin(NULLS)
        best, nulls = everything[~is_null].head(1), everything[is_null]
    sources = pd.concat(
        [best.head(1).assign(role="best"), _nearest(nulls, best.head(1)).assign(role="control")], ignore_index=True
    )
    sources["colour"] = [PALETTE[1], *SHADES][: len(sources)]
    sources["marker"] = ["D", *SHAPES][: len(sources)]
    return sources


def _nearest(nulls: pd.DataFrame, best: pd.DataFrame) -> pd.DataFrame:
    """Nulls at the hook point of the best dictionary, then the same dictionary of other backbones."""
    if best.empty:
        return nulls.head(MOST_NULLS)
    backbone, block, dictionary = best.iloc[0]
    here = (nulls["backbone"] == backbone) & (nulls["block"] == block)
    same = (nulls["dictionary"] == dictionary) & ~here
    nearest: pd.DataFrame = pd.concat([nulls[here], nulls[same]]).head(MOST_NULLS)
    return nearest


def _columns(shown: pd.DataFrame) -> list[list[tuple[str, list[str]]]]:
    """Factors with their values, split into two columns of about equal length."""
    order = [(factor, in_order(shown.loc[shown["factor"] == factor, "value"])) for factor in in_order(shown["factor"])]
    total = sum(len(values) + 1 for _, values in order)
    columns: list[list[tuple[str, list[str]]]] = [[], []]
    used = 0
    for factor, values in order:
        columns[0 if used + (len(values) + 1) / 2 <= total / 2 else 1].append((factor, values))
        used += len(values) + 1
    return [column for column in columns if column]


def _panel(axes: Axes, rows: pd.DataFrame, values: list[str], sources: pd.DataFrame, metric: str) -> None:
    if metric == "auroc":
        for threshold, line in ((0.5, "-"), (0.9, (0, (4, 2))), (0.95, (0, (1, 1.5)))):
            axes.axvline(threshold, color=NULL_COLOUR, lw=0.9, ls=line, zorder=1)
    offsets = dodge(len(sources), 0.66)
    for at, value in enumerate(values):
        of_value = rows[rows["value"] == value]
        if at % 2:
            axes.axhspan(at - 0.5, at + 0.5, color="#F5F5F5", lw=0, zorder=0)
        for offset, (_, source) in zip(offsets, sources.iterrows(), strict=True):
            mine = of_value[(of_value[list(IDS)] == source[list(IDS)]).all(axis=1)]
            look = {"colour": source["colour"], "marker": source["marker"]}
            for _, row in mine[mine["is_first_seed"]].iterrows():
                mark(axes, row, at + offset, size=5.0 if source["role"] == "best" else 3.8, **look)
                if source["role"] == "best" and pd.isna(row["estimate"]):
                    missing_text(axes, "n/a", 1.0, at + offset, ha="right", color=source["colour"])
            if source["role"] == "best":
                other = mine[~mine["is_first_seed"]]
                axes.plot(other["estimate"], [at + offset] * len(other), "o", ms=2.4, color=source["colour"], mew=0)
    axes.set_yticks(range(len(values)), values)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MultipleLocator(0.1))
    tidy(axes)


def _keys(sources: pd.DataFrame) -> list[Key]:
    return [
        Key(("best: " if row["role"] == "best" else "null: ") + place(*row[list(IDS)]), row["colour"], row["marker"])
        for _, row in sources.iterrows()
    ]


def _notes(shown: pd.DataFrame, metric: str) -> list[str]:
    first = shown.loc[shown["is_first_seed"], "seed"].iloc[0]
    notes = [f"Marks: seed {first} with the {INTERVAL} (images resampled). Small dots: other seeds of the best one."]
    absent = shown[shown["is_first_seed"] & (shown["role"] == "best") & shown["estimate"].isna()]
    reasons = [f"{row['value']} ({row['note'] or 'no estimate'})" for _, row in absent.iterrows()]
    if reasons:
        notes.append(f"n/a: {'; '.join(reasons)}.")
    if metric == "auroc":
        notes.append("Vertical lines: 0.5 (chance, solid), 0.90 (dashed) and 0.95 (dotted), the levels of 'recovered'.")
    return notes
