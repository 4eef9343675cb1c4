"""The shared look of all figures: palette, sheet with title and notes, intervals, and files that do not change.

A figure is a sheet of three strips: a title, a body with the axes, and a footer with the legend and the notes. Strips
have heights of their own, so that text never runs into the axes. No pyplot state is used.
"""

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.lines import Line2D
from numpy.typing import ArrayLike, NDArray

from conceptbench.errors import ConceptBenchError
from conceptbench.tables import atomic_write

PALETTE: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000", "#8C6D31")
"""Okabe and Ito's colours, which people with any common colour blindness tell apart (yellow left out: too pale)."""
MARKERS: Final = ("o", "s", "D", "^", "v", "P", "X", "<")
NULL_COLOUR: Final = "#7F7F7F"
INK: Final = "#262626"
INTERVAL: Final = "95 % interval"
POOLED_SEED: Final = "all"
"""Value of the seed column in a row that pools the seeds."""
FORMATS: Final = ("png", "svg")
PUT_BACK: Final = "recruited, others put back to zero-shot"
"""What figures and pages call the part `beyond` of the table `concepts`."""

_RC: Final[dict[Any, Any]] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5,
    "axes.edgecolor": "#8C8C8C",
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": "#E3E3E3",
    "svg.hashsalt": "conceptbench",
    "svg.fonttype": "path",
    "path.simplify": True,
}


@contextmanager
def figure_look() -> Iterator[None]:
    """Apply the shared look while a figure is made and saved, and nowhere else."""
    with mpl.rc_context(), sns.axes_style("whitegrid", rc=_RC):
        mpl.rcParams.update(_RC)
        yield


@dataclass(frozen=True)
class Key:
    """One entry of a legend: how something is drawn and what it is called."""

    label: str
    colour: str
    marker: str = "o"
    line: Any = "-"
    hollow: bool = False
    size: float = 6.0

    def handle(self) -> Line2D:
        """The legend's line."""
        face = "white" if self.hollow else self.colour
        return Line2D(
            [], [], color=self.colour, marker=self.marker, linestyle=self.line, markersize=self.size,
            markerfacecolor=face, markeredgecolor=self.colour, label=self.label,
        )  # fmt: skip


@dataclass(frozen=True)
class Sheet:
    """A figure with its strip for axes."""

    figure: Figure
    body: SubFigure


def new_sheet(title: str, *, width: float, height: float, keys: Sequence[Key] = (), notes: Sequence[str] = ()) -> Sheet:
    """A figure with a title above and the legend and notes below a body of `width` by `height` inches."""
    header = textwrap.wrap(title, int(width * 9.4))
    lines = [line for note in notes if note for line in textwrap.wrap(note, int(width * 14.8))]
    columns = _legend_columns(keys, width)
    rows = ceil(len(keys) / columns) if keys else 0
    top = 0.16 + 0.21 * len(header)
    bottom = 0.06 + (0.05 + 0.2 * rows if rows else 0) + (0.03 + 0.145 * len(lines) if lines else 0)
    figure = Figure(figsize=(width, top + height + bottom), layout=ConstrainedLayoutEngine(w_pad=0.05, h_pad=0.04))
    FigureCanvasAgg(figure)
    strips: Any = figure.subfigures(3, 1, height_ratios=[top, height, bottom])
    strips[0].text(0.012, 0.35, "\n".join(header), fontsize=12, fontweight="bold", ha="left", va="center")
    if keys:
        strips[2].legend(
            handles=[key.handle() for key in keys], loc="upper left", bbox_to_anchor=(0.005, 1.0), ncol=columns,
            frameon=False, borderaxespad=0.0, columnspacing=1.6, handletextpad=0.6, labelspacing=0.45,
        )  # fmt: skip
    if lines:
        strips[2].text(
            0.012,
            0.05 / bottom,
            "\n".join(lines),
            fontsize=8,
            color="#595959",
            ha="left",
            va="bottom",
            linespacing=1.25,
        )
    return Sheet(figure, strips[1])


def _legend_columns(keys: Sequence[Key], width: float) -> int:
    longest = max((len(key.label) for key in keys), default=1)
    return max(1, min(len(keys), int((width - 0.1) / (0.62 + 0.072 * longest))))


def save_figure(
    sheet: Sheet, values: pd.DataFrame, stem: Path | str, *, formats: Sequence[str] = FORMATS, dpi: int = 150
) -> None:
    """Write `<stem>.<format>` for every format and the plotted values as `<stem>.csv`, each complete or absent.

    The same values give the same bytes: no dates, no random identifiers.

    Raises:
        ConceptBenchError: when a format is unknown or the disk refuses.
    """
    stem = Path(stem)
    metadata: dict[str, dict[str, Any]] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}
    _settle(sheet.figure)
    for name in formats:
        if name not in metadata:
            raise ConceptBenchError(f"Figure {stem} cannot be written as '{name}'; choose from {', '.join(metadata)}.")
        with atomic_write(stem.parent / f"{stem.name}.{name}") as path:
            sheet.figure.savefig(path, format=name, dpi=dpi, metadata=metadata[name], facecolor="white")
    with atomic_write(stem.parent / f"{stem.name}.csv") as path:
        values.to_csv(path, index=False, lineterminator="\n")


def _settle(figure: Figure) -> None:
    """Lay the figure out once and round every position.

    The layout's solver leaves noise in the last digits, which would change the identifiers inside an SVG file.
    """

    def settled(position: ArrayLike) -> NDArray[np.float64]:
        # first the noise is taken off: beside it alone, a half such as 0.358125 would go now up, now down
        return np.round(np.round(np.asarray(position, dtype=np.float64), 12), 5)

    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    parts = list(figure.subfigs)
    while parts:
        part = parts.pop()
        part.bbox_relative.set_points(settled(part.bbox_relative.get_points()))
        parts += part.subfigs
    for axes in figure.axes:
        axes.set_position(tuple(settled(axes.get_position(original=False).bounds)), which="both")


def save_empty(
    title: str, reason: str, values: pd.DataFrame, stem: Path | str, *, formats: Sequence[str], dpi: int
) -> None:
    """Write a figure that says why it shows nothing."""
    sheet = new_sheet(title, width=7.0, height=1.0)
    axes = sheet.body.subplots()
    axes.set_axis_off()
    axes.text(0.5, 0.5, textwrap.fill(reason, 80), ha="center", va="center", transform=axes.transAxes)
    save_figure(sheet, values, stem, formats=formats, dpi=dpi)


def require(frame: pd.DataFrame, table: str, columns: Iterable[str]) -> pd.DataFrame:
    """Return a copy of the table after checking that it has the columns a figure needs.

    Raises:
        ConceptBenchError: naming the table and the columns it lacks.
    """
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise ConceptBenchError(
            f"Table '{table}' lacks the column(s) {', '.join(missing)} that its figure shows; "
            "delete the table and run the rule that writes it."
        )
    frame = frame.reset_index(drop=True)
    return frame.assign(seed=frame["seed"].astype(str)) if "seed" in frame.columns else frame


def in_order(values: Iterable[Any], first: Sequence[str] = ()) -> list[str]:
    """Distinct values: those of `first` in that order, then the others as they come."""
    seen = list(dict.fromkeys(str(value) for value in values))
    return [name for name in first if name in seen] + [name for name in seen if name not in first]


def colours(names: Sequence[str], fixed: Mapping[str, str] | None = None) -> dict[str, str]:
    """A colour for every name: the fixed ones, then the palette in order without those already used."""
    given = {name: colour for name, colour in (fixed or {}).items() if name in names}
    free = [colour for colour in PALETTE if colour not in given.values()] or list(PALETTE)
    rest = [name for name in names if name not in given]
    return given | {name: free[index % len(free)] for index, name in enumerate(rest)}


def markers(names: Sequence[str]) -> dict[str, str]:
    """A marker for every name."""
    return {name: MARKERS[index % len(MARKERS)] for index, name in enumerate(names)}


def looks(names: Sequence[str], fixed: Mapping[str, str] | None = None) -> dict[str, tuple[str, str]]:
    """A colour and a marker for every name; no two names share both before every pair has been used.

    Args:
        fixed: colours of some names, which no other name gets.
    """
    given = {name: colour for name, colour in (fixed or {}).items() if name in names}
    free = [colour for colour in PALETTE if colour not in given.values()]
    out = {name: (colour, MARKERS[at]) for at, (name, colour) in enumerate(given.items())}
    for at, name in enumerate(name for name in names if name not in given):
        row, column = divmod(at, len(free))
        # each further round of colours starts one marker later
        out[name] = (free[column], MARKERS[(column + row + len(given)) % len(MARKERS)])
    return out


def dodge(count: int, spread: float = 0.6) -> NDArray[np.float64]:
    """Offsets that put `count` marks side by side around zero within `spread`."""
    return np.linspace(-spread / 2, spread / 2, count) if count > 1 else np.zeros(1)


def mark(
    axes: Axes,
    row: "Mapping[str, Any] | pd.Series[Any]",
    at: float,
    *,
    colour: str,
    marker: str = "o",
    hollow: bool = False,
    size: float = 5.5,
    horizontal: bool = True,
    scale: float = 1.0,
) -> None:
    """A point with its interval where there is one, at position `at` of the categorical axis."""
    point, low, high = (scale * float(row[name]) for name in ("estimate", "low", "high"))
    if not np.isfinite(point):
        return
    if np.isfinite(low) and np.isfinite(high):
        ends, here = (low, high), (at, at)
        axes.plot(
            *((ends, here) if horizontal else (here, ends)), color=colour, lw=1.8, solid_capstyle="butt", zorder=3
        )
    position = (point, at) if horizontal else (at, point)
    face = "white" if hollow else colour
    axes.plot(
        *position, marker=marker, ms=size, mfc=face, mec=colour, mew=1.3 if hollow else 0.6, color=colour, zorder=4
    )


@dataclass(frozen=True)
class Away:
    """A point that may lie beyond the ends of its axis."""

    value: float
    at: float
    colour: str
    hollow: bool = False


def mark_beyond(axes: Axes, points: Sequence[Away], unit: str = "") -> None:
    """An arrow at the edge of the x axis for every point that lies beyond it, with the values of neighbours beside it.

    Call it when the limits are final. Points of one colour that stand closer than a fifth of a row share their text.
    """
    low, high = axes.get_xlim()
    for side, edge, marker, align in ((-1, low, "<", "left"), (1, high, ">", "right")):
        away = sorted((p for p in points if (p.value < low if side < 0 else p.value > high)), key=lambda p: p.at)
        groups: list[list[Away]] = []
        for point in away:
            near = [g for g in groups if g[-1].colour == point.colour and point.at - g[-1].at < 0.2]
            if near:
                near[0].append(point)
            else:
                groups.append([point])
            face = "white" if point.hollow else point.colour
            axes.plot(
                edge - side * 0.02 * (high - low), point.at, marker=marker, ms=4.5, mfc=face, mec=point.colour, zorder=6
            )  # fmt: skip
        for group in groups:
            text = " · ".join(f"{point.value:.0f}{unit}" for point in group)
            at = float(np.mean([point.at for point in group]))
            style: dict[str, Any] = {"fontsize": 6.5, "ha": align, "va": "center", "zorder": 6}
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
            axes.text(edge - side * 0.05 * (high - low), at, text, color=group[0].colour, bbox=box, **style)


def missing_text(axes: Axes, text: str, x: float, y: float, *, width: int = 44, **options: Any) -> None:
    """Say in the axes why a value is not there."""
    style: dict[str, Any] = {
        "fontsize": 7.5,
        "style": "italic",
        "color": "#595959",
        "va": "center",
        "zorder": 5,
    } | options
    axes.text(x, y, textwrap.fill(text, width), **style)


def place(backbone: str, block: Any, dictionary: str = "") -> str:
    """How a dictionary is named in figures."""
    return " · ".join(part for part in (str(backbone), f"block {block}", dictionary) if part)


def spell(name: str) -> str:
    """A name from a table as words."""
    return str(name).replace("_", " ")


def tidy(axes: Axes, *, grid: str = "x") -> None:
    """Grid along one direction only, no frame on top and right, no ticks on the categorical axis."""
    axes.grid(visible=False, axis="y" if grid == "x" else "x")
    axes.set_axisbelow(True)
    sns.despine(ax=axes)
