"""Claims about masking curves: C5 to C9 and C13, on zero-shot curves with the paper's replacing edit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations
from typing import Any, Final

import numpy as np
import pandas as pd

from conceptbench.inference import Estimate
from conceptbench.measures.claims.verdict import (
    FAILS,
    HOLDS,
    POSITIVE,
    UNTESTED,
    About,
    CannotTest,
    Outcome,
    Ruling,
    Tables,
    Verdict,
    both,
    difference,
    each_task,
    estimate_of,
    everywhere,
    find,
    judge,
    rows_of,
    scaled,
)

ZERO_SHOT: Final = "zero-shot"
POINTS: Final = "points"
NEEDS_REPLACE: Final = "measures.masking.edits lacks replace, the paper's edit"
FEW, MANY = 10, 100
"""Latents removed early, and kept: the paper's values of k."""
MOST_LOST, EARLY_LOSS, LARGEST_RISE, CHANCE_MARGIN = 5.0, 20.0, 2.0, 0.1
INERT: Final = {"random": 0.5, "dataset": 3.0}
MATCHED: Final = {"random": "matched", "dataset": "matched-dataset", "predicted": "matched-predicted"}
"""The matched control beside a ranking: its own, and that of the own class beside random latents, which have none."""
SELECTION_MARGIN: Final = 1.0
RANGE: Final = (-100.0, 100.0)
"""Of a change of accuracy in points."""


def _own(model: str = ZERO_SHOT, **where: Any) -> dict[str, Any]:
    """Rows of one model under its own rankings, replacing edit, accuracy; dense latents kept unless said."""
    shared = {"model": model, "selected_by": model, "edit": "replace", "dense": "kept", "outcome": "accuracy"}
    return shared | where


def _points(table: pd.DataFrame, k: int, sign: float = 1.0, **where: Any) -> Estimate:
    """Accuracy, or a change of it, in points."""
    hint = f"{NEEDS_REPLACE}, or measures.masking.k lacks {k}"
    return scaled(find(table, hint, k=k, **where), 100 * sign)


def _replaced(curves: pd.DataFrame, task: str) -> pd.DataFrame:
    mine = rows_of(curves, task=task, edit="replace")
    if mine.empty:
        raise CannotTest(NEEDS_REPLACE)
    return mine


def _ks(curves: pd.DataFrame, task: str) -> list[int]:
    return sorted(int(k) for k in _replaced(curves, task)["k"].unique())


def _setting(about: About, curves: pd.DataFrame, task: str) -> str:
    mine = _replaced(curves, task)
    images, width = int(mine["n"].max()), int(mine["k"].max())
    return f"{about.place} ({width} latents), {images} test images of {task}, tokens replaced by reconstructions"


def _with_room(ruling: Ruling, curves: pd.DataFrame, task: str, needed: float, empty: Outcome) -> Ruling:
    """The ruling, unless accuracy stands less than `needed` points above that without any latent.

    There is then less to lose than the rule speaks of, so that `empty` would be its only outcome.
    """
    start, floor = (_points(curves, 0, selection="true", **_own(task=task, direction=way)) for way in ("off", "on"))
    if ruling[0] != empty or start.estimate - floor.estimate >= needed:
        return ruling
    return UNTESTED, (
        f"there are no {needed:g} points to lose: accuracy is {start.estimate:.1f} with all latents and "
        f"{floor.estimate:.1f} without any"
    )


def identity_mask(tables: Tables, about: About) -> Iterator[Verdict]:
    """C5: what replacing tokens by their reconstruction costs, beside principal components of equal rank."""
    part = "loss with all latents kept"
    learnt = tables["dictionaries"]
    mine = (learnt["backbone"] == about.backbone) & (learnt["block"] == about.block)
    l0 = float(learnt.loc[mine & (learnt["dictionary"] == about.dictionary), "l0"].mean())

    def judge_task(task: str) -> Iterator[Verdict]:
        """Judge one task."""
        changes, curves = tables["masking_changes"], tables["masking"]
        where = _own(task=task, against="unedited")
        lost = _points(changes, 0, -1, selection="true", direction="off", **where)
        rank = min((k for k in _ks(curves, task) if k >= l0), default=0)
        of_rank = _points(changes, rank, -1, selection="pca", direction="on", **where)
        if not np.isfinite(of_rank.estimate):
            raise CannotTest(f"tokens have fewer features than latents fire on them ({l0:.0f})")
        spared = judge(difference(of_rank, lost), "what the components lose beyond the dictionary", POSITIVE)
        small = _with_room(judge(lost, "the loss", at_most=MOST_LOST), curves, task, MOST_LOST, HOLDS)
        outcome, reason = both(small, spared)
        kl = find(curves, NEEDS_REPLACE, k=0, selection="true", direction="off", **_own(task=task, outcome="kl"))
        control = f"loss with {rank} principal components (L0 {l0:.1f})"
        detail = f"KL from the unedited prediction {kl.estimate:.3f} nats"
        setting = _setting(about, curves, task)
        yield Verdict(part, outcome, reason, task, lost, POINTS, control, of_rank, POINTS, detail, setting)

    yield from each_task(about.tasks, part, judge_task)


def zero_mask(tables: Tables, about: About) -> Iterator[Verdict]:
    """C6: accuracy without any latent, beside that of the mean token."""
    part = "accuracy with all latents removed"

    def judge_task(task: str) -> Iterator[Verdict]:
        """Judge one task."""
        curves, overlap = tables["masking"], tables["overlap"]
        half = _replaced(curves, task)["half"].iloc[0]
        named = rows_of(overlap, task=task, half=half)["label"]
        chance = 100 / named[named >= 0].nunique()
        where = _own(task=task, direction="on")
        left = _points(curves, 0, selection="true", **where)
        mean = _points(curves, 0, selection="pca", **where)
        bounds = (chance - CHANCE_MARGIN, chance + CHANCE_MARGIN)
        outcome, reason = both(judge(left, "accuracy", *bounds), judge(mean, "accuracy of the mean token", *bounds))
        setting, detail = _setting(about, curves, task), f"chance {chance:.2f}"
        control = "mean token everywhere"
        yield Verdict(part, outcome, reason, task, left, POINTS, control, mean, POINTS, detail, setting)

    yield from each_task(about.tasks, part, judge_task)


def early_loss(tables: Tables, about: About) -> Iterator[Verdict]:
    """C7: what removing ten latents of the class costs, beside the matched control and another class's latents."""

    def judge_task(task: str) -> Iterator[Verdict]:
        """Judge one task."""
        curves, changes, contrasts = (tables[name] for name in ("masking", "masking_changes", "masking_contrasts"))
        setting = _setting(about, curves, task)
        for dense, name in (("kept", ""), ("filtered", ", dense latents last")):
            for control in ("matched", "wrong") if dense == "kept" else ("matched",):
                where = _own(task=task, direction="off", dense=dense)
                lost = _points(changes, FEW, -1, selection="true", against="start", **where)
                other = _points(changes, FEW, -1, selection=control, against="start", **where)
                beyond = _points(contrasts, FEW, -1, selection=f"true-{control}", **where)
                shown = {"matched": "matched active latents", "wrong": "latents of another class"}[control]
                extra = judge(beyond, f"the loss beyond that of {shown}", at_least=POSITIVE)
                ruling = both(judge(lost, "the loss", at_least=EARLY_LOSS), extra)
                outcome, reason = _with_room(ruling, curves, task, EARLY_LOSS, FAILS)
                part, named = f"loss with ten latents removed{name}", f"loss with {shown}"
                yield Verdict(part, outcome, reason, task, lost, POINTS, named, other, POINTS, "", setting)
        yield _rise(curves, task, setting)

    yield from each_task(about.tasks, "loss with ten latents removed", judge_task)


def _rise(curves: pd.DataFrame, task: str, setting: str) -> Verdict:
    """The largest rise of accuracy from a k to any larger one, over all pairs of k (negative where it only falls)."""
    chosen = rows_of(curves, **_own(task=task, selection="true", direction="off")).sort_values("k")
    found = {int(row["k"]): scaled(estimate_of(row), 100) for _, row in chosen.iterrows()}
    rises = {f"k = {low} to {high}": difference(found[high], found[low]) for low, high in combinations(found, 2)}
    if not rises:
        raise CannotTest("measures.masking.k has one value only")
    wide, (outcome, reason) = everywhere(rises, "the rise", RANGE, at_most=LARGEST_RISE)
    where = max(wide, key=lambda at: wide[at].estimate)
    detail = f"{where} of {len(wide)} pairs, as if points were independent"
    return Verdict("largest rise along k", outcome, reason, task, wide[where], POINTS, detail=detail, setting=setting)


def inert_masks(tables: Tables, about: About) -> Iterator[Verdict]:
    """C8: the largest change that removing up to ten random latents, or the data set's, makes."""

    def judge_task(task: str) -> Iterator[Verdict]:
        """Judge one task."""
        curves, changes = tables["masking"], tables["masking_changes"]
        where = _own(task=task, direction="off", against="start")
        small = [k for k in _ks(curves, task) if 0 < k <= FEW]
        if not small:
            raise CannotTest(f"measures.masking.k has no value up to {FEW}")
        for selection, margin in INERT.items():
            found = {f"k = {k}": _points(changes, k, selection=selection, **where) for k in small}
            wide, ruling = everywhere(found, "the change", RANGE, -margin, margin)
            outcome, reason = _with_room(ruling, curves, task, margin, HOLDS)
            k = max(small, key=lambda at: abs(found[f"k = {at}"].estimate))
            largest = wide[f"k = {k}"]
            hit = _hits(tables["masking_balance"], task, selection, k)
            as_many = _points(changes, k, selection=MATCHED[selection], **where)
            shown = {"random": "random latents", "dataset": "top latents of the data set"}[selection]
            part = f"largest change with up to {FEW} {shown} removed"
            detail = f"k = {k}, which hits {hit:.1f} active latents of an image"
            control, setting = f"change with {k} matched active latents", _setting(about, curves, task)
            yield Verdict(part, outcome, reason, task, largest, POINTS, control, as_many, POINTS, detail, setting)

    yield from each_task(about.tasks, "largest change at small k", judge_task)


def _hits(balance: pd.DataFrame, task: str, selection: str, k: int) -> float:
    where = {"task": task, "model": ZERO_SHOT, "dense": "kept", "outcome": "active_latents"}
    return find(balance, "measures.masking.dense lacks kept", selection=selection, direction="", k=k, **where).estimate


def recovery(tables: Tables, about: About) -> Iterator[Verdict]:
    """C9: a hundred latents kept, class against random, and without the label against the matched control."""
    pairs = (
        ("true", "random", "random", "own class"),
        ("predicted", "matched", MATCHED["predicted"], "predicted class"),
    )

    def judge_task(task: str) -> Iterator[Verdict]:
        """Judge one task."""
        curves, contrasts = tables["masking"], tables["masking_contrasts"]
        where = _own(task=task, direction="on")
        whole = _points(curves, max(_ks(curves, task)), selection="true", **where)
        for one, other, control_of, shown in pairs:
            kept = _points(curves, MANY, selection=one, **where)
            beyond = _points(contrasts, MANY, selection=f"{one}-{other}", **where)
            outcome, reason = judge(beyond, f"the gain over {other} latents", at_least=POSITIVE)
            detail = f"accuracy {kept.estimate:.1f}, with all latents {whole.estimate:.1f}"
            alone, setting = _points(curves, MANY, selection=control_of, **where), _setting(about, curves, task)
            part = f"gain of {MANY} latents of the {shown} over as many {other} ones"
            control = f"accuracy with {other} latents"
            yield Verdict(part, outcome, reason, task, beyond, POINTS, control, alone, POINTS, detail, setting)

    yield from each_task(about.tasks, f"gain with {MANY} latents kept", judge_task)


def selecting_and_classifying(tables: Tables, about: About) -> Iterator[Verdict]:
    """C13: what the selecting backbone changes, and what the classifying one does."""

    def judge_task(task: str) -> Iterator[Verdict]:
        """Judge one task."""
        changes, after = tables["masking_changes"], about.after
        if after not in set(changes["model"]):
            raise CannotTest(f"measures.masking.methods does not name {after}")
        setting = _setting(about, tables["masking"], task)
        for model, by in ((ZERO_SHOT, after), (after, ZERO_SHOT)):
            of = _own(model, task=task, selected_by=by, against="own-ranking", selection="true")
            wide, (outcome, reason) = everywhere(
                _curve(changes, of), "the change", RANGE, -SELECTION_MARGIN, SELECTION_MARGIN
            )
            at = max(wide, key=lambda where: abs(wide[where].estimate))
            part, detail = f"largest change when {by} selects for {model}", f"{at} of {len(wide)} points"
            yield Verdict(part, outcome, reason, task, wide[at], POINTS, detail=detail, setting=setting)
        of = _own(after, task=task, against=ZERO_SHOT, selection="true", direction="on")
        wide, (outcome, reason) = everywhere(
            _curve(changes[changes["k"] >= FEW], of), "the gain", RANGE, at_least=POSITIVE
        )
        at = min(wide, key=lambda where: wide[where].estimate)
        text = _text_side(tables, task, after)
        part = f"smallest gain of {after} over zero-shot at equal k from {FEW} on"
        control, detail = "text side's part of the gain", f"{at} of {len(wide)} points"
        yield Verdict(part, outcome, reason, task, wide[at], POINTS, control, text, POINTS, detail, setting)

    yield from each_task(about.tasks, "selecting and classifying backbone", judge_task)


def _curve(changes: pd.DataFrame, where: Mapping[str, Any]) -> dict[str, Estimate]:
    """The changes at all points of these curves, in points of accuracy, named by k and direction."""
    chosen = rows_of(changes, **where)
    chosen = chosen[chosen["estimate"].notna()]
    if chosen.empty:
        raise CannotTest(NEEDS_REPLACE)
    return {f"k = {int(row['k'])} ({row['direction']})": scaled(estimate_of(row), 100) for _, row in chosen.iterrows()}


def _text_side(tables: Tables, task: str, method: str) -> Estimate:
    """The text side's Shapley part of the gain in accuracy, among three players."""
    hint = "decomposition lacks the task"
    where = {"players": 3, "part": "text", "variant": "averaged", "outcome": "accuracy"}
    table = tables["decomposition"]
    mine = table[table["half"] != "novel"]
    return scaled(find(mine, hint, task=task, method=method, **where), 100)
