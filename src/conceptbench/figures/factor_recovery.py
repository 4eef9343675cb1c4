"""Factor recovery: the best dictionary against its nulls, overall, with the paired differences beside it."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from conceptbench.figures.style import (
    FORMATS,
    INTERVAL,
    NULL_COLOUR,
    PALETTE,
    POOLED_SEED,
    Key,
    figure_look,
    in_order,
    mark,
    missing_text,
    new_sheet,
    place,
    require,
    save_empty,
    save_figure,
    spell,
    tidy,
)

IDS = ("backbone", "block", "dictionary")
SUMMARY_COLUMNS = (*IDS, "seed", "level", "statistic", "estimate", "low", "high", "note")
COMPARISON_COLUMNS = (
    "level", "statistic", *IDS, "null_backbone", "null_block", "null_dictionary", "null_kind", "estimate", "low",
    "high", "q", "note",
)  # fmt: skip
STATISTICS = {
    "mean_auroc": "mean AUROC",
    "recovered_at_0.90": "recovered at AUROC ≥ 0.90\n(% of factor values)",
    "recovered_at_0.95": "recovered at AUROC ≥ 0.95\n(% of factor values)",
    "mean_average_precision": "mean average precision",
    "mean_f1": "mean F1",
    "mean_iou": "mean IoU",
}
PERCENT = ("recovered_at_0.90", "recovered_at_0.95")
ROLE_COLOURS = {"best": PALETTE[1], "learned": PALETTE[0], "control": NULL_COLOUR}
ROLE_MARKERS = {"best": "D", "learned": "o", "control": "s"}
NULLS = ("random", "raw", "pca")


@figure_look()
def draw_factor_recovery(
    truth_summary: pd.DataFrame,
    truth_comparison: pd.DataFrame,
    stem: Path,
    *,
    level: str = "image",
    statistics: Sequence[str] = ("mean_auroc", "recovered_at_0.90", "recovered_at_0.95"),
    difference: str = "mean_auroc",
    formats: Sequence[str] = FORMATS,
    dpi: int = 150,
) -> None:
    """Draw one row a dictionary: its score with interval for every statistic, and best - null for the nulls.

    Args:
        truth_summary: table `truth_summary`; its rows with seed "all" are the large marks, single seeds the small.
        truth_comparison: table `truth_comparison`, which names the best dictionary (chosen on split A) and the nulls.
        level: "image" or "patch". statistics: those shown, in order. difference: the one whose difference is shown.
    """
    summary = require(truth_summary, "truth_summary", SUMMARY_COLUMNS)
    comparison = require(truth_comparison, "truth_comparison", COMPARISON_COLUMNS)
    summary, comparison = (t[t["level"] == level].reset_index(drop=True) for t in (summary, comparison))
    statistics = [name for name in statistics if name in set(summary["statistic"])]
    title = "How many of the world's factors does one latent of each dictionary recover?"
    if summary.empty or not statistics:
        save_empty(title, f"The table holds no scores at the {level} level.", summary, stem, formats=formats, dpi=dpi)
        return
    rows = _rows(summary, comparison)
    against = comparison[comparison["statistic"] == difference]
    panels = len(statistics) + (len(against) > 0)
    sheet = new_sheet(
        title, width=2.5 + 2.35 * panels, height=0.75 + 0.235 * len(rows), keys=_keys(rows), notes=_notes(against)
    )  # fmt: skip
    grid = sheet.body.subplots(1, panels, sharey=True, squeeze=False)[0]
    for axes, statistic in zip(grid, statistics, strict=False):
        _scores(axes, rows, summary[summary["statistic"] == statistic], statistic)
    if len(against):
        _differences(grid[-1], rows, against, difference)
    grid[0].set_yticks(range(len(rows)), [place(*names) for names in rows[list(IDS)].to_numpy()])
    grid[0].set_ylim(len(rows) - 0.4, -0.6)
    best = rows.index[rows["role"] == "best"]
    for index in best:
        grid[0].get_yticklabels()[index].set_fontweight("bold")
    save_figure(sheet, _values(summary, against, statistics, rows, difference), stem, formats=formats, dpi=dpi)


def _rows(summary: pd.DataFrame, comparison: pd.DataFrame) -> pd.DataFrame:
    """Dictionaries in the order shown (best, learned, nulls), with their role and kind of null."""
    rows = summary[list(IDS)].drop_duplicates().reset_index(drop=True)
    best = {tuple(names) for names in comparison[list(IDS)].astype(str).to_numpy()}
    columns = ["null_backbone", "null_block", "null_dictionary", "null_kind"]
    kinds = {tuple(names[:3]): names[3] for names in comparison[columns].astype(str).to_numpy()}
    keys = [tuple(names) for names in rows.astype(str).to_numpy()]
    rows["role"] = [_role(key, best, kinds) for key in keys]
    rows["kind"] = [kinds.get(key, "") for key in keys]
    order = rows["role"].map({"best": 0, "learned": 1, "control": 2})
    return rows.loc[order.sort_values(kind="stable").index].reset_index(drop=True)


def _role(key: tuple[str, ...], best: set[tuple[str, ...]], kinds: dict[tuple[str, ...], str]) -> str:
    if key in best:
        return "best"
    return "control" if key in kinds or (not kinds and key[2] in NULLS) else "learned"


def _scores(axes: Axes, rows: pd.DataFrame, scores: pd.DataFrame, statistic: str) -> None:
    scale = 100.0 if statistic in PERCENT else 1.0
    for at, (_, names) in enumerate(rows.iterrows()):
        mine = scores[(scores[list(IDS)].astype(str) == names[list(IDS)].astype(str)).all(axis=1)]
        colour, marker = ROLE_COLOURS[names["role"]], ROLE_MARKERS[names["role"]]
        single = mine[mine["seed"] != POOLED_SEED]
        axes.plot(
            scale * single["estimate"], [at + 0.3] * len(single), "o", ms=2.6, color=colour, alpha=0.75, mew=0
        )  # fmt: skip
        for _, row in mine[mine["seed"] == POOLED_SEED].iterrows():
            mark(axes, row, at, colour=colour, marker=marker, scale=scale)
    axes.set_xlabel(STATISTICS.get(statistic, spell(statistic)))
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.margins(x=0.06)
    _guides(axes, rows)
    if statistic in PERCENT:
        axes.set_xlim(-4, 104)
    tidy(axes)


def _differences(axes: Axes, rows: pd.DataFrame, against: pd.DataFrame, statistic: str) -> None:
    scale = 100.0 if statistic in PERCENT else 1.0
    axes.axvline(0, color="#8C8C8C", lw=1)
    nulls = ["null_backbone", "null_block", "null_dictionary"]
    for at, (_, names) in enumerate(rows.iterrows()):
        mine = against[(against[nulls].astype(str).to_numpy() == names[list(IDS)].astype(str).to_numpy()).all(axis=1)]
        for _, row in mine.iterrows():
            mark(axes, row, at, colour=PALETTE[2], marker="o", scale=scale)
            if pd.isna(row["estimate"]):
                missing_text(axes, str(row["note"]), 0, at)
    axes.set_xlabel(f"best minus this null,\n{STATISTICS.get(statistic, spell(statistic)).split(chr(10))[0]} (paired)")
    axes.xaxis.set_major_locator(MaxNLocator(4))
    axes.margins(x=0.1)
    _guides(axes, rows)
    tidy(axes)


def _guides(axes: Axes, rows: pd.DataFrame) -> None:
    """Faint lines that lead from a name to its marks, stronger ones between the roles."""
    for at in range(len(rows)):
        axes.axhline(at, color="#EFEFEF", lw=0.7, zorder=0)
    roles = list(rows["role"])
    for at in range(1, len(roles)):
        if roles[at] != roles[at - 1]:
            axes.axhline(at - 0.5, color="#BDBDBD", lw=0.8, zorder=0)


def _keys(rows: pd.DataFrame) -> list[Key]:
    names = {
        "best": "best learned dictionary (chosen on split A)",
        "learned": "other learned" if "best" in set(rows["role"]) else "learned",
        "control": "null",
    }
    roles = in_order(rows["role"], ("best", "learned", "control"))
    return [Key(f"{names[role]}, {INTERVAL}", ROLE_COLOURS[role], ROLE_MARKERS[role]) for role in roles]


def _notes(against: pd.DataFrame) -> list[str]:
    notes = [
        "Latents are chosen on split A and scored on split B. Large marks pool the seeds; small dots below them are "
        "single seeds. Intervals: images resampled, over seeds a t interval."
    ]
    if len(against):
        notes.append("Right: paired difference on the same resamples of the same images; above 0 the best one wins.")
    return notes


def _values(
    summary: pd.DataFrame, against: pd.DataFrame, statistics: Sequence[str], rows: pd.DataFrame, difference: str
) -> pd.DataFrame:
    """The plotted values: scores with the role of their dictionary, then the differences."""
    shown = summary[summary["statistic"].isin(list(statistics))]
    scores = shown[list(SUMMARY_COLUMNS)].merge(rows, on=list(IDS)).assign(panel=lambda t: t["statistic"])
    gaps = pd.DataFrame(
        {
            "backbone": against["null_backbone"], "block": against["null_block"],
            "dictionary": against["null_dictionary"], "seed": POOLED_SEED, "level": against["level"],
            "statistic": against["statistic"], "estimate": against["estimate"], "low": against["low"],
            "high": against["high"], "note": against["note"], "role": "control", "kind": against["null_kind"],
            "q": against["q"], "panel": f"best minus null: {difference}",
        }
    )  # fmt: skip
    return pd.concat([scores, gaps], ignore_index=True) if len(gaps) else scores
