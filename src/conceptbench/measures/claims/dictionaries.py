"""Claims about error and sparsity of dictionaries: C1 to C4."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

import pandas as pd

from conceptbench.inference import Estimate
from conceptbench.measures.claims.verdict import (
    POSITIVE,
    UNTESTED,
    About,
    CannotTest,
    Tables,
    Verdict,
    both,
    judge,
    rows_of,
)
from conceptbench.measures.intervals import seed_interval

PENALISED: Final = "relu-l1"
"""The paper's method: its L0 is not set but follows from the l1 weight."""


def trade_off(tables: Tables, about: About) -> Iterator[Verdict]:
    """C1: explained variance of the followed dictionary, which says nothing of the paper's numbers."""
    mine = _at(tables["dictionaries"], about, about.dictionary)
    reason = (
        "the numbers belong to CLIP ViT-B/16 and a dictionary of 49,152 latents learnt on ImageNet-1k: needs "
        "examples/paper.yaml, the images below data_root and a GPU; L1 and the norm-divided error are not in the table"
    )
    explained = seed_interval(1 - mine["fvu"].to_numpy())
    dead = seed_interval(mine["dead_share"].to_numpy(), (0.0, 1.0))
    part, detail = "centred explained variance", f"L0 {mine['l0'].mean():.1f}"
    yield Verdict(part, UNTESTED, reason, "", explained, "", "dead latents", dead, "", detail, about.place)


def depth(tables: Tables, about: About) -> Iterator[Verdict]:
    """C2: error and L0 from block to block, seeds paired, for a dictionary whose L0 is free."""
    blocks = sorted(set(rows_of(tables["dictionaries"], backbone=about.backbone)["block"]))
    names = about.of_method(PENALISED)
    if len(blocks) < 2:
        raise CannotTest(f"one block only: name more of them in hooks.{about.backbone}")
    if not names:
        raise CannotTest(f"no dictionary whose L0 is free: add one with method {PENALISED} to dictionaries.methods")
    values = {}
    for block in blocks:
        mine = rows_of(tables["dictionaries"], backbone=about.backbone, block=block, dictionary=names[0])
        values[block] = mine.set_index("seed")
    shown = f"blocks {', '.join(map(str, blocks))} of {about.backbone}"
    setting = f"analogue on {shown}, dictionary {names[0]} learnt on {about.train_on}"
    for metric, part, unit, sign in (("fvu", "rise of the FVU", "", 1), ("l0", "fall of L0", "latents", -1)):
        steps = [
            seed_interval(sign * (values[after][metric] - values[before][metric]).to_numpy())
            for before, after in pairwise(blocks)
        ]
        outcome, reason = both(*(judge(step, f"the {part} from block to block", at_least=POSITIVE) for step in steps))
        means = ", ".join(f"{values[block][metric].mean():.3g}" for block in blocks)
        detail = f"the smallest step; values {means}"
        yield Verdict(part, outcome, reason, "", _smallest(steps), unit, detail=detail, setting=setting)


def class_tokens(tables: Tables, about: About) -> Iterator[Verdict]:
    """C3: no configuration learns a dictionary from prefix tokens alone."""
    reason = (
        "dictionaries are learnt from all tokens of an image; dictionaries.methods has no key that restricts them to "
        "class tokens, which it would need"
    )
    yield Verdict("L0 of class tokens", UNTESTED, reason)


def ablation(tables: Tables, about: About) -> Iterator[Verdict]:
    """C4: L0 against the l1 weight and against the width, among dictionaries that differ in nothing else."""
    for varied, fixed in (("l1", "width"), ("width", "l1")):
        part = f"fall of L0 along {varied}"
        try:
            yield _order(tables["dictionaries"], about, _series(about, varied, fixed), varied, part)
        except CannotTest as error:
            yield Verdict(part, UNTESTED, str(error))


def _series(about: About, varied: str, fixed: str) -> list[str]:
    """Dictionaries of the paper's method that differ in one option only, in its order; the longest such list."""
    groups: dict[Any, dict[float, str]] = {}
    for name in about.of_method(PENALISED):
        options = about.dictionaries[name]
        groups.setdefault(options[fixed], {})[options[varied]] = name
    longest = max(groups.values(), key=len, default={})
    if len(longest) < 2:
        raise CannotTest(
            f"needs dictionaries that differ in {varied}: give dictionaries.methods.{PENALISED}.{varied} a list of "
            "values (examples/dictionaries.yaml)"
        )
    return [longest[value] for value in sorted(longest)]


def _order(table: pd.DataFrame, about: About, names: Sequence[str], varied: str, part: str) -> Verdict:
    """The smallest step of L0 along a list of dictionaries; all must be falls."""
    l0 = [_at(table, about, name).set_index("seed")["l0"] for name in names]
    steps = [seed_interval((before - after).to_numpy()) for before, after in pairwise(l0)]
    outcome, reason = both(*(judge(step, f"the {part}", at_least=POSITIVE) for step in steps))
    values = ", ".join(
        f"{of.mean():.1f} at {about.dictionaries[name][varied]:g}" for name, of in zip(names, l0, strict=True)
    )
    setting = f"analogue on {about.backbone} block {about.block}; the start of the bias is no option here"
    detail = f"the smallest step; L0 by {varied}: {values}"
    return Verdict(part, outcome, reason, "", _smallest(steps), "latents", detail=detail, setting=setting)


def _at(table: pd.DataFrame, about: About, name: str) -> pd.DataFrame:
    return rows_of(table, backbone=about.backbone, block=about.block, dictionary=name)


def _smallest(steps: Sequence[Estimate]) -> Estimate:
    return min(steps, key=lambda step: step.estimate)
