"""Claims about the adaptation: C14, a dictionary learnt on the adapted model, and C15, base and novel classes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Final

import numpy as np
import pandas as pd

from conceptbench.inference import Estimate
from conceptbench.measures.claims.verdict import (
    POSITIVE,
    About,
    CannotTest,
    Tables,
    Verdict,
    both,
    each_task,
    exact,
    find,
    image_error,
    judge,
    rows_of,
    scaled,
    with_images,
)
from conceptbench.measures.resampling import ALL_SEEDS

SAME_PICTURE: Final = 2.0
NOVEL: Final = (0.92 - 3.0, 0.92 + 3.0)
"""What MaPLe's authors gain on novel classes, within 3 points."""
FEWEST_SEEDS: Final = 3
PAIR: Final = ("followed", "adapted")
"""The dictionary learnt on the backbone as it is, and the one learnt on the adapted model."""


def relearnt_dictionary(tables: Tables, about: About) -> Iterator[Verdict]:
    """C14: the part of the gain carried by existing latents, with either dictionary; and whether the first is valid."""
    part = "existing part of the gain, zero-shot dictionary less relearnt"

    def judge_task(task: str) -> Iterator[Verdict]:
        """Judge one task."""
        mine = rows_of(tables["concepts"], task=task, method=about.after, outcome="accuracy", part="existing")
        main = mine.loc[mine["sets"] == "matched", "q"].unique()
        of_main = mine[(mine["sets"] == "own") & mine["q"].isin(main)]
        apart = scaled(_paired(of_main, about.after), 100)
        fits = rows_of(tables["validity"], task=task, method=about.after, dictionary=PAIR[0], statistic="fvu_excess")
        worse = find(fits, f"measures.concepts.relearn does not name {about.after}")
        valid = judge(worse, "the excess of the zero-shot dictionary's FVU", at_most=float(fits["margin"].iloc[0]))
        outcome, reason = both(judge(apart, "the difference", -SAME_PICTURE, SAME_PICTURE), valid)
        setting = f"{about.place}, {about.after} on {task}; the existing part of the gain stands for masking curves"
        seeds = of_main.loc[of_main["seed"].astype(str) != ALL_SEEDS, "seed"].nunique()
        control, detail = "FVU above that of the relearnt dictionary", f"{seeds} seeds"
        yield Verdict(part, outcome, reason, task, apart, "points", control, worse, "", detail, setting)

    yield from each_task(about.tasks, part, judge_task)


def _paired(table: pd.DataFrame, method: str) -> Estimate:
    """Followed less relearnt dictionary, seed by seed; images enter as if the two dictionaries erred independently."""
    single = table[table["seed"].astype(str) != ALL_SEEDS]
    wide = single.pivot_table(index="seed", columns="dictionary", values="estimate")
    if not set(PAIR) <= set(wide.columns):
        raise CannotTest(f"measures.concepts.relearn does not name {method}")
    apart = (wide[PAIR[0]] - wide[PAIR[1]]).dropna()
    used = single[single["seed"].isin(apart.index)]
    one, other = (image_error(rows_of(used, dictionary=name)) for name in PAIR)
    return with_images(apart.to_numpy(), float(np.hypot(one, other)), int(used["n"].max()))


def base_and_novel(tables: Tables, about: About) -> Iterator[Verdict]:
    """C15: accuracy less zero-shot on the classes that were trained and on the others, for every prompt method."""
    if not about.prompts:
        raise CannotTest("no adaptation learns prompts: add one (maple, coop) to adaptations.methods")
    for method in sorted(about.prompts, key=lambda name: name != about.adaptation):
        judge_task = partial(_changes, tables["accuracy_difference"], about, method)
        yield from each_task(about.tasks, f"change on base and novel classes, {method}", judge_task)


def _changes(table: pd.DataFrame, about: About, method: str, task: str) -> Iterator[Verdict]:
    """The changes on base and on novel classes of one method and task."""
    for half, bounds in (("base", (POSITIVE, np.inf)), ("novel", NOVEL)):
        where = {"task": task, "method": method, "half": half}
        change = scaled(find(table, f"adaptations.setting is not base-to-novel for {method}", **where), 100)
        seeds = int(rows_of(table, **where)["n_seeds"].iloc[0])
        if seeds < FEWEST_SEEDS:
            raise CannotTest(f"fewer than {FEWEST_SEEDS} seeds: name more of them in seeds")
        outcome, reason = judge(change, f"the change on {half} classes", *bounds)
        setting = f"analogue on {about.backbone}, {method} as configured"
        part, detail = f"change on {half} classes, {method}", f"{change.n} test images"
        count = exact(seeds, seeds)
        yield Verdict(part, outcome, reason, task, change, "points", "seeds", count, "seeds", detail, setting)
