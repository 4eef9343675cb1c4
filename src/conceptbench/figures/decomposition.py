"""Decomposition of an adaptation's gain: what the image tower sees differently, and what is mapped differently."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from conceptbench.figures.style import (
    FORMATS,
    INTERVAL,
    PALETTE,
    POOLED_SEED,
    Away,
    Key,
    dodge,
    figure_look,
    in_order,
    mark,
    mark_beyond,
    missing_text,
    new_sheet,
    require,
    save_empty,
    save_figure,
    spell,
    tidy,
)

COLUMNS = (
    "task", "method", "half", "variant", "outcome", "players", "part", "seed", "estimate", "low", "high", "n", "note",
)  # fmt: skip
PARTS = ("gain", "perception", "mapping", "blocks", "text")
LOOKS = {
    "gain": ("#000000", "D"),
    "perception": (PALETTE[1], "o"),
    "mapping": (PALETTE[0], "s"),
    "blocks": (PALETTE[4], "^"),
    "text": (PALETTE[2], "v"),
}
MEANINGS = {
    "gain": "gain (total)",
    "perception": "perception: tokens at the hook point",
    "mapping": "mapping: blocks above it and text side",
    "blocks": "blocks above the hook point",
    "text": "text side",
}
OUTCOMES = {"accuracy": ("accuracy (percentage points)", 100.0), "log_likelihood": ("mean log-likelihood (nats)", 1.0)}
VARIANTS = ("averaged", "own")
HALVES = ("base", "novel", "all")
SHARE_LIMITS = (-60.0, 160.0)
FEW = 8
"""Rows that stand one outcome below the other; more are drawn narrow, with the outcomes side by side."""
NARROW_ROW = 0.42
"""Inches of a narrow row."""


@figure_look()
def draw_decomposition(
    decomposition: pd.DataFrame, stem: Path, *, players: int = 2, formats: Sequence[str] = FORMATS, dpi: int = 150
) -> None:
    """Draw contributions (left) and shares of the gain (right), a row a task, method and half.

    Outcomes are drawn one below the other, those of more than `FEW` rows side by side.

    Args:
        decomposition: table `decomposition`; rows with seed "all" are drawn, or those of the only seed.
        players: 2 (perception and mapping) or 3 (perception, blocks above, text side).
    """
    shown = _select(require(decomposition, "decomposition", COLUMNS)[list(COLUMNS)], players)
    title = "Where does the gain of an adaptation come from?"
    if shown.empty:
        reason = f"The table holds no decomposition into {players} parts."
        save_empty(title, reason, shown, stem, formats=formats, dpi=dpi)
        return
    rows = _rows(shown)
    outcomes = in_order(shown["outcome"], tuple(OUTCOMES))
    parts = in_order((part for part in shown["part"] if not part.endswith("_share")), PARTS)
    variants = in_order(shown["variant"], VARIANTS)
    narrow = len(rows) > FEW
    high = len(rows) * NARROW_ROW if narrow else (0.62 + rows["at"].max() + 1) * 0.13 * (len(parts) + 1.2)
    shape = (1, len(outcomes)) if narrow else (len(outcomes), 1)
    sheet = new_sheet(
        title,
        width=9.6 + 3.4 * (shape[1] - 1),
        height=(high + 0.75) * shape[0],
        keys=_keys(parts, variants),
        notes=_notes(variants, players),
    )
    grid = sheet.body.subplots(shape[0], 2 * shape[1], sharey=True, squeeze=False, width_ratios=[1.15, 1.0] * shape[1])
    for (left, right), outcome in zip(grid.reshape(-1, 2), outcomes, strict=True):
        mine = shown[shown["outcome"] == outcome].merge(rows, on=["task", "method", "half"])
        label, scale = OUTCOMES.get(outcome, (spell(outcome), 1.0))
        _contributions(left, mine, parts, variants, scale)
        left.set_xlabel(f"gain in {label}" if narrow else f"contribution to the gain in {label}")
        _shares(right, mine, parts, variants, 30 if narrow else 46)
        right.set_xlabel(f"share of the gain in {spell(outcome).replace('log likelihood', 'log-likelihood')} (%)")
        left.set_yticks(rows["at"], [name.replace("\n", " · ") if narrow else name for name in rows["name"]])
        left.set_ylim(rows["at"].max() + 0.55, -0.55)
        for axes in (left, right):
            for edge in range(1, len(rows)):
                axes.axhline((rows["at"].iloc[edge - 1] + rows["at"].iloc[edge]) / 2, color="#E3E3E3", lw=0.8)
    save_figure(sheet, shown, stem, formats=formats, dpi=dpi)


def _select(decomposition: pd.DataFrame, players: int) -> pd.DataFrame:
    """One number of players, pooled over seeds where that row exists; the gain belongs to both."""
    shown = decomposition[decomposition["players"] == players]
    if "gain" not in set(shown["part"]) and len(shown):
        gains = decomposition[decomposition["part"] == "gain"]
        shown = pd.concat([gains, shown])
    pooled = shown[shown["seed"] == POOLED_SEED]
    if pooled.empty and len(shown):
        pooled = shown[shown["seed"] == shown["seed"].iloc[0]]
    return pooled.reset_index(drop=True)


def _rows(shown: pd.DataFrame) -> pd.DataFrame:
    rows = shown[["task", "method", "half"]].drop_duplicates().reset_index(drop=True)
    rows["at"] = [float(index) for index in range(len(rows))]
    rows["name"] = [f"{r.task} · {r.method}\n{r.half} classes" for r in rows.itertuples()]
    return rows


def _offsets(parts: Sequence[str], variants: Sequence[str]) -> dict[tuple[str, str], float]:
    """Parts side by side, the variants of a part close together."""
    spread = dodge(len(parts), 0.62)
    near = dodge(len(variants), 0.11)
    return {
        (part, variant): float(big + small)
        for part, big in zip(parts, spread, strict=True)
        for variant, small in zip(variants, near, strict=True)
    }


def _contributions(axes: Axes, rows: pd.DataFrame, parts: Sequence[str], variants: Sequence[str], scale: float) -> None:
    axes.axvline(0, color="#8C8C8C", lw=1)
    offsets = _offsets(parts, variants)
    for _, row in rows[rows["part"].isin(list(parts))].iterrows():
        if row["part"] == "gain" and row["variant"] != variants[0]:
            continue
        colour, marker = LOOKS.get(row["part"], (PALETTE[3], "P"))
        at = row["at"] + offsets[row["part"], row["variant"]]
        mark(axes, row, at, colour=colour, marker=marker, hollow=row["variant"] != variants[0], scale=scale, size=4.8)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.margins(x=0.08)
    tidy(axes)


def _shares(axes: Axes, rows: pd.DataFrame, parts: Sequence[str], variants: Sequence[str], wrap: int) -> None:
    for x in (0, 100):
        axes.axvline(x, color="#8C8C8C", lw=1)
    offsets = _offsets(parts, variants)
    limits = [0.0, 100.0]
    points: list[Away] = []
    shares = rows[rows["part"].isin([f"{part}_share" for part in parts])]
    for at, of_row in shares.groupby("at", sort=True):
        for _, row in of_row[of_row["estimate"].notna()].iterrows():
            part = row["part"].removesuffix("_share")
            colour, marker = LOOKS.get(part, (PALETTE[3], "P"))
            here = float(at) + offsets[part, row["variant"]]  # type: ignore[arg-type]
            hollow = row["variant"] != variants[0]
            mark(axes, row, here, colour=colour, marker=marker, hollow=hollow, scale=100, size=4.8)
            points.append(Away(100 * float(row["estimate"]), here, colour, hollow))
            limits += [100 * float(row[name]) for name in ("estimate", "low", "high") if pd.notna(row[name])]
        if of_row["estimate"].isna().all():
            reason = next((str(note) for note in of_row["note"] if note), "no reason given")
            missing_text(axes, f"not reported: {reason}", 3, float(at), width=wrap)  # type: ignore[arg-type]
    axes.set_xlim(max(SHARE_LIMITS[0], min(limits) - 6), min(SHARE_LIMITS[1], max(limits) + 6))
    mark_beyond(axes, points, " %")
    axes.xaxis.set_major_locator(MaxNLocator(6))
    tidy(axes)


def _keys(parts: Sequence[str], variants: Sequence[str]) -> list[Key]:
    keys = [Key(MEANINGS.get(part, spell(part)), *LOOKS.get(part, (PALETTE[3], "P"))) for part in parts]
    if len(variants) > 1:
        keys.append(Key("hollow: each image's own prompt states", "#7F7F7F", "o", "-", hollow=True))
    return keys


def _notes(variants: Sequence[str], players: int) -> list[str]:
    notes = [
        f"Shapley values over hybrids of the model before and after adaptation ({players} parts). Bars: {INTERVAL} "
        "(images resampled within classes, over seeds a t interval). Shares are not reported where the gain cannot be "
        "told from 0. Intervals that leave the axis are cut at its edge; an arrow there with a number is an estimate "
        "beyond it."
    ]
    if len(variants) > 1:
        notes.append(
            "Filled: the adapted model's prompt states averaged over split A. Hollow: the image's own prompt states, "
            "which have already seen the image through the adapted model (sensitivity)."
        )
    return notes
