"""What a judgement is, and how an estimate with its interval is held against a bound.

A statement holds when the whole 95 % interval lies inside the bounds of its decision rule and its control agrees; it
does not hold when the whole interval lies outside; an interval across a bound decides nothing, and the reason says so.
A rule for every point of a curve is held against each point, with intervals that cover together (`everywhere`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri, stdtrit

from conceptbench.inference import Estimate
from conceptbench.measures.intervals import difference_interval, seed_interval
from conceptbench.measures.resampling import ALL_SEEDS, UNBOUNDED, Bounds, joint_interval, joint_variance

Outcome = Literal["holds", "does not hold", "cannot be tested here"]
HOLDS: Final = "holds"
FAILS: Final = "does not hold"
UNTESTED: Final = "cannot be tested here"
Tables = Mapping[str, pd.DataFrame]
Ruling = tuple[Outcome, str]
"""A verdict and its reason."""
NOTHING: Final = Estimate(np.nan, np.nan, np.nan, 0, "not measured")
POSITIVE: Final = float(np.finfo(np.float64).tiny)
"""The lower bound of what must be above 0: no difference at all is not above it."""
LIKE_EUROSAT: Final = ("eurosat", "terra")
"""Kinds of data set that stand for the paper's exception: EuroSAT, and the rendered task built after it."""


class CannotTest(Exception):
    """The tables of this experiment cannot decide a part of a claim; the message says what would let them."""


@dataclass(frozen=True)
class About:
    """The experiment whose tables are judged."""

    backbone: str
    block: int
    dictionary: str
    dictionaries: Mapping[str, Mapping[str, Any]]
    """Dictionary -> method, and width and l1 where the method has them."""
    adaptation: str | None
    """The adaptation that stands for MaPLe."""
    prompts: Sequence[str]
    """Adaptations that learn prompts."""
    tasks: Mapping[str, str]
    """Task -> kind of its data set."""
    train_on: str
    seed: int
    resamples: int

    @property
    def place(self) -> str:
        """Where the numbers come from, for every verdict."""
        return f"analogue on {self.backbone} block {self.block}, dictionary {self.dictionary} learnt on {self.train_on}"

    @property
    def after(self) -> str:
        """The adaptation that stands for MaPLe.

        Raises:
            CannotTest: when there is none.
        """
        if self.adaptation is None:
            raise CannotTest("no adaptation is MaPLe: add one with method maple to adaptations.methods")
        return self.adaptation

    def of_method(self, method: str) -> list[str]:
        """Dictionaries learnt by a method."""
        return [name for name, options in self.dictionaries.items() if options["method"] == method]

    def exceptions(self) -> list[str]:
        """Tasks that stand for EuroSAT."""
        return [task for task, kind in self.tasks.items() if kind in LIKE_EUROSAT]


@dataclass(frozen=True)
class Verdict:
    """One part of a claim, on one task: the value, its control, and what the decision rule says of them."""

    part: str
    verdict: Outcome
    reason: str = ""
    task: str = ""
    """Empty where the part belongs to no task."""
    ours: Estimate = field(default=NOTHING)
    unit: str = ""
    control: str = ""
    control_value: Estimate = field(default=NOTHING)
    control_unit: str = ""
    detail: str = ""
    """What else one should know of this part."""
    setting: str = ""
    """What was tested on this backbone and these data in place of the paper's."""


def rows_of(table: pd.DataFrame, **where: Any) -> pd.DataFrame:
    """The rows that have these values."""
    chosen = np.ones(len(table), dtype=bool)
    for name, value in where.items():
        chosen &= (table[name] == value).to_numpy()
    return table[chosen]


def find(table: pd.DataFrame, hint: str, **where: Any) -> Estimate:
    """The estimate of the row that has these values and pools the seeds.

    Raises:
        CannotTest: with `hint`, when there is no such row.
    """
    chosen = rows_of(table, **where)
    pooled = chosen[chosen["seed"].astype(str) == ALL_SEEDS]
    if pooled.empty:
        raise CannotTest(hint)
    return estimate_of(pooled.iloc[0])


def estimate_of(row: Mapping[str, Any] | pd.Series) -> Estimate:
    """The estimate that a row holds, with the error and freedom of its t interval where the table has them."""
    spread = [float(row.get(name, np.nan)) for name in ("error", "freedom")]
    error, freedom = spread if np.isfinite(spread).all() else (None, None)
    ends_of = (float(row["low"]), float(row["high"]))
    return Estimate(float(row["estimate"]), *ends_of, int(row["n"]), str(row["note"]), error, freedom)


def scaled(found: Estimate, factor: float) -> Estimate:
    """The estimate times a factor; a negative one swaps the ends of the interval."""
    low, high = sorted((found.low * factor, found.high * factor)) if np.isfinite(found.low) else (np.nan, np.nan)
    error = None if found.error is None else found.error * abs(factor)
    return replace(found, estimate=found.estimate * factor, low=low, high=high, error=error)


def simultaneous(found: Estimate, n_points: int, bounds: Bounds = UNBOUNDED) -> Estimate:
    """The interval widened so that those of `n_points` points together cover with 95 % (Bonferroni).

    A t interval is laid anew from its error with the t factor of 1 - .05 / n_points, which with few degrees of freedom
    grows much faster than the normal one; an interval without an error (percentiles of one seed) is widened by the
    normal one. Ends are cut at the bounds afterwards.
    """
    if not np.isfinite(found.low):
        return found
    tail = 0.025 / n_points
    if found.error is None:
        factor = float(ndtri(1 - tail) / ndtri(0.975))
        low, high = (found.estimate + (end - found.estimate) * factor for end in (found.low, found.high))
    else:
        half = float(stdtrit(found.freedom, 1 - tail)) * found.error
        low, high = found.estimate - half, found.estimate + half
    return replace(found, low=max(low, bounds[0]), high=min(high, bounds[1]))


def everywhere(
    points: Mapping[str, Estimate], what: str, bounds: Bounds, at_least: float = -np.inf, at_most: float = np.inf
) -> tuple[dict[str, Estimate], Ruling]:
    """The points with intervals that cover together, cut at `bounds`, and the ruling on all of them.

    All must lie inside the rule; one that lies outside decides. `what` names a point, its key says where it is.
    """
    wide = {where: simultaneous(found, len(points), bounds) for where, found in points.items()}
    rulings = (judge(found, f"{what} at {where}", at_least, at_most) for where, found in wide.items())
    return wide, both(*rulings)


def exact(value: float, n: int, note: str = "a count without chance") -> Estimate:
    """A value that is judged as it is; the note says why it has no interval."""
    return Estimate(value, np.nan, np.nan, n, f"{EXACT}: {note}")


EXACT: Final = "no interval"
_FIRM: Final = (EXACT, "no variation")
"""Beginnings of the notes of estimates whose missing interval does not make them unsure."""


def judge(found: Estimate, what: str, at_least: float = -np.inf, at_most: float = np.inf) -> Ruling:
    """Hold an estimate against bounds; `what` names it in the reason."""
    low, high = ends(found)
    if not (np.isfinite(low) and np.isfinite(high)):
        return UNTESTED, f"{what} has no interval: {found.note or 'undefined'}"
    if low >= at_least and high <= at_most:
        return HOLDS, ""
    if high < at_least:
        return FAILS, f"{what} is not above {_shown(at_least)}"
    if low > at_most:
        return FAILS, f"{what} is not below {_shown(at_most)}"
    bound = _shown(at_least if low < at_least else at_most)
    return UNTESTED, f"the interval of {what} contains {bound}: more images or seeds would decide"


def _shown(bound: float) -> str:
    return f"{round(bound, 6):g}"


def ends(found: Estimate) -> tuple[float, float]:
    """The ends of the interval; the value itself where it has none because nothing in it is left to chance."""
    if np.isnan(found.low) and found.note.startswith(_FIRM):
        return found.estimate, found.estimate
    return found.low, found.high


def difference(one: Estimate, other: Estimate) -> Estimate:
    """One less the other as if they were independent (see `intervals.difference_interval`).

    It has an error where both are t intervals, or one is and the other is beyond chance.
    """
    pair = [replace(found, low=ends(found)[0], high=ends(found)[1]) for found in (one, other)]
    found = difference_interval(*pair)
    parts = [(of.error**2, of.freedom) for of in pair if of.error is not None and of.freedom is not None]
    if not parts or any(of.error is None and of.low != of.high for of in pair):
        return found
    variance, freedom = joint_variance(parts)
    return replace(found, error=float(np.sqrt(variance)), freedom=freedom)


def image_error(rows: pd.DataFrame) -> float:
    """Standard error over images that the mean of these rows has at most: the mean of what their 95 % intervals say.

    Rows of several seeds or factor values rest on the same images; no table says how far they go up and down together,
    so it is taken that they do so fully.
    """
    found = [ends(estimate_of(row)) for _, row in rows.iterrows()]
    return float(np.mean([high - low for low, high in found])) / (2 * float(ndtri(0.975)))


def with_images(values: NDArray[np.float64], error: float, n: int) -> Estimate:
    """Mean of values [seed] with a t interval for seeds and for images, whose standard error is `error`.

    Args:
        n: number of images.
    """
    seeds = seed_interval(values)
    if seeds.error is None or seeds.freedom is None or not np.isfinite(error):
        return replace(seeds, low=np.nan, high=np.nan, note=seeds.note or "no interval over images")
    return joint_interval(seeds.estimate, [(seeds.error**2, seeds.freedom), (error**2, n - 1)], n)


def both(*rulings: Ruling) -> Ruling:
    """All must hold; the first that does not hold, or else the first that decides nothing, gives the reason."""
    for outcome in (FAILS, UNTESTED):
        for ruling in rulings:
            if ruling[0] == outcome:
                return ruling
    return HOLDS, ""


def each_task(tasks: Iterable[str], part: str, judge_task: Callable[[str], Iterable[Verdict]]) -> Iterator[Verdict]:
    """The verdicts of every task; a task whose tables cannot decide gets a row that says why."""
    for task in tasks:
        try:
            yield from list(judge_task(task))
        except CannotTest as error:
            yield Verdict(part, UNTESTED, str(error), task)
