"""Claims about the adaptation: C14, a dictionary learnt on the adapted model, and C15, base and novel classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pandas as pd

from conceptbench.inference import Estimate
from conceptbench.measures.claims.verdict import (
    FAILS,
    HOLDS,
    POSITIVE,
    About,
    CannotTest,
    Ruling,
    Tables,
    Verdict,
    both,
    each_task,
    exact,
    find,
    judge,
    rows_of,
    scaled,
)
from conceptbench.measures.intervals import seed_interval
from conceptbench.measures.resampling import ALL_SEEDS

SAME_PICTURE: Final = 2.0
MOST_NOVEL: Final = 3.0
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
        fits = rows_of(tables["validity"], task=task, method=about.after, statistic="fvu")
        worse = _paired(fits, about.after)
        flags = rows_of(fits, dictionary=PAIR[0], seed=ALL_SEEDS)["valid"]
        valid: Ruling = (HOLDS, "") if flags.all() else (FAILS, "the zero-shot dictionary is not valid there")
        outcome, reason = both(judge(apart, "the difference", -SAME_PICTURE, SAME_PICTURE), valid)
        setting = f"{about.place}, {about.after} on {task}; the existing part of the gain stands for masking curves"
        control, detail = "FVU above that of the relearnt dictionary", f"{apart.n} seeds"
        yield Verdict(part, outcome, reason, task, apart, "points", control, worse, "", detail, setting)

    yield from each_task(about.tasks, part, judge_task)


def _paired(table: pd.DataFrame, method: str) -> Estimate:
    """Followed less relearnt dictionary, seed by seed."""
    single = table[table["seed"].astype(str) != ALL_SEEDS]
    wide = single.pivot_table(index="seed", columns="dictionary", values="estimate")
    if not set(PAIR) <= set(wide.columns):
        raise CannotTest(f"measures.concepts.relearn does not name {method}")
    return seed_interval((wide[PAIR[0]] - wide[PAIR[1]]).to_numpy())


def base_and_novel(tables: Tables, about: About) -> Iterator[Verdict]:
    """C15: accuracy less zero-shot on the classes that were trained and on the others."""
    table = tables["accuracy_difference"]
    hint = "adaptations.setting is not base-to-novel"

    def judge_task(task: str) -> Iterator[Verdict]:
        """Judge one task."""
        for half, bounds in (("base", {"at_least": POSITIVE}), ("novel", {"at_most": MOST_NOVEL})):
            where = {"task": task, "method": about.after, "half": half}
            change = scaled(find(table, hint, **where), 100)
            seeds = int(rows_of(table, **where)["n_seeds"].iloc[0])
            if seeds < FEWEST_SEEDS:
                raise CannotTest(f"fewer than {FEWEST_SEEDS} seeds: name more of them in seeds")
            outcome, reason = judge(change, f"the change on {half} classes", **bounds)
            setting = f"analogue on {about.backbone}, {about.after} as configured"
            part, detail = f"change on {half} classes", f"{change.n} test images"
            count = exact(seeds, seeds)
            yield Verdict(part, outcome, reason, task, change, "points", "seeds", count, "seeds", detail, setting)

    yield from each_task(about.tasks, "change on base and novel classes", judge_task)
