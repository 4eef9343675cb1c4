"""Existing and recruited concepts: what of an adaptation's gain rests on latents that the classes already had."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes

from conceptbench.figures.style import (
    FORMATS,
    INTERVAL,
    NULL_COLOUR,
    PALETTE,
    POOLED_SEED,
    PUT_BACK,
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
    tidy,
)

COLUMNS = (
    "task", "method", "half", "dictionary", "sets", "q", "outcome", "part", "seed", "estimate", "low", "high", "n",
    "note",
)  # fmt: skip
RECRUITED: dict[tuple[str, str], Key] = {
    ("followed", "own"): Key("outside the latents of the image's own class", PALETTE[1], "D"),
    ("followed", "predicted"): Key("of the predicted class", PALETTE[5], "s"),
    ("followed", "any"): Key("of any class", PALETTE[2], "^"),
    ("adapted", "own"): Key("own class, dictionary learnt on the adapted model", PALETTE[3], "P"),
    ("random", "own"): Key("control: random dictionary", NULL_COLOUR, "o", "-", True),
    ("followed", "matched"): Key("control: as many of the class's own latents, matched", PALETTE[0], "o", "-", True),
    ("followed", "permuted"): Key("control: outside the latents of another class", PALETTE[4], "v", "-", True),
}
LIMITS = (-60.0, 160.0)
FEW = 8
"""Rows that stand wide apart; more are drawn narrow, so that they fit a page."""


@figure_look()
def draw_shares(concepts: pd.DataFrame, stem: Path, *, formats: Sequence[str] = FORMATS, dpi: int = 150) -> None:
    """Draw the recruited share of the gain, a row a task and method: others removed (left), put back (right).

    Args:
        concepts: table `concepts`; accuracy, all seeds, the main q (the one that has controls).
    """
    shown = _select(require(concepts, "concepts", COLUMNS)[list(COLUMNS)])
    title = "Does an adaptation use concepts that the classes already had?"
    if shown.empty:
        save_empty(title, "No adaptation was compared.", shown, stem, formats=formats, dpi=dpi)
        return
    rows = shown[["task", "method", "half"]].drop_duplicates().reset_index(drop=True)
    rows["at"] = [float(index) for index in range(len(rows))]
    present = [key for key in RECRUITED if ((shown["dictionary"] == key[0]) & (shown["sets"] == key[1])).any()]
    narrow = len(rows) > FEW
    space, pitch = (0.12, 0.09) if narrow else (0.35, 0.15)
    sheet = new_sheet(
        title,
        width=9.6,
        height=0.75 + len(rows) * (space + pitch * len(present)),
        keys=[RECRUITED[key] for key in present],
        notes=_notes(shown),
    )
    left, right = sheet.body.subplots(1, 2, sharey=True)
    for axes, part in ((left, "recruited_share"), (right, "beyond_share")):
        _panel(axes, shown[shown["part"] == part].merge(rows, on=["task", "method", "half"]), present)
    left.set_xlabel("recruited, others removed:\nshare of the gain (%)")
    right.set_xlabel(f"{PUT_BACK}:\nshare of the gain (%)")
    end = " · " if narrow else "\n"
    names = [f"{row.task} · {row.method}{end}{row.half} classes" for row in rows.itertuples()]
    left.set_yticks(rows["at"], names)
    left.set_ylim(len(rows) - 0.45, -0.55)
    for axes in (left, right):
        for edge in range(1, len(rows)):
            axes.axhline(edge - 0.5, color="#E3E3E3", lw=0.8)
    save_figure(sheet, shown, stem, formats=formats, dpi=dpi)


def _select(concepts: pd.DataFrame) -> pd.DataFrame:
    pooled = concepts[(concepts["outcome"] == "accuracy") & (concepts["seed"].astype(str) == POOLED_SEED)]
    main = pooled.loc[pooled["sets"] == "matched", "q"]
    wanted = pooled["part"].isin(["recruited_share", "beyond_share"])
    return pooled[wanted & pooled["q"].isin(main if len(main) else pooled["q"])].reset_index(drop=True)


def _panel(axes: Axes, rows: pd.DataFrame, present: Sequence[tuple[str, str]]) -> None:
    for x in (0, 100):
        axes.axvline(x, color="#8C8C8C", lw=1)
    ends, points = [-5.0, 105.0], []
    for offset, key in zip(dodge(len(present), 0.7), present, strict=True):
        look = RECRUITED[key]
        for _, row in rows[(rows["dictionary"] == key[0]) & (rows["sets"] == key[1])].iterrows():
            at = row["at"] + offset
            mark(axes, row, at, colour=look.colour, marker=look.marker, hollow=look.hollow, scale=100, size=5)
            points.append(Away(100 * float(row["estimate"]), at, look.colour, look.hollow))
            ends += [100 * float(row[name]) for name in ("low", "high", "estimate") if pd.notna(row[name])]
    for at, group in rows.groupby("at"):
        if group["estimate"].isna().all():
            missing_text(axes, f"not reported: {group['note'].iloc[0]}", 3, float(str(at)))
    axes.set_xlim(max(LIMITS[0], min(ends) - 4), min(LIMITS[1], max(ends) + 4))
    mark_beyond(axes, points, " %")
    tidy(axes)


def _notes(shown: pd.DataFrame) -> list[str]:
    q = ", ".join(in_order(shown["q"]))
    return [
        f"A latent belongs to a class when it fires on at least a share {q} of the class's images of split A under "
        "zero-shot; the others are those that the legend names. Scored on split B, the dictionary's error kept. "
        f"Bars: {INTERVAL} (images resampled within classes, over seeds a t interval), cut at the edge of the axis, "
        "where an arrow with a number is an estimate beyond it.",
        "Left: the others are removed from the adapted model, which also takes away what they did before. Right: they "
        "are put back to the values that they have on the same image under zero-shot. 0: all of the gain stays. The "
        "matched control does the same to as many of the latents that the class does have, the nearest in frequency "
        "and mass.",
    ]
