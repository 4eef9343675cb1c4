"""The claims page: the verdicts of an experiment as Markdown, written from its tables alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from conceptbench.measures.claims.verdict import FAILS, HOLDS, UNTESTED

Row = Mapping[str, Any]
COUNTED: Final = {HOLDS: "hold", FAILS: "do not hold", UNTESTED: "cannot be tested here"}
HOW_TO_READ: Final = """\
* Each statement is one of PatchSAE (Lim et al., ICLR 2025, arXiv 2412.05276) in our words. Its numbers come from CLIP
  ViT-B/16 and real data sets; ours are an **analogue** on the backbone and tasks named in each part. A verdict is about
  the analogue and neither confirms nor refutes the number of the paper.
* A part *holds* when its whole 95 % interval lies inside the bounds of the rule and the control agrees. It *does not
  hold* when the whole interval lies outside, or the control shows the same. An interval across a bound decides nothing.
* Where a rule speaks of no effect, *holds* needs an interval inside a bound that is stated (C11: a correlation within
  0.5 of 0; C10: a loss of at most 0.05 beyond resampling): not to have found an effect is not to have shown none.
* Where a rule speaks of every point of a curve (C7's rise, C8, C13), all points are judged, with intervals that cover
  together; the row shows the largest.
* A statement holds when all its parts hold on all tasks; one part that does not hold decides against it.
* *Cannot be tested here* says what is missing: a key of the configuration, more images or seeds, or weights and data
  of the paper's size.
* Points are percentage points of accuracy on split B. Images are resampled within classes; over
  seeds it is a t interval. What no table pairs image by image (C7's rise, C14, IoU in C16) counts images as if the two
  sides were independent, which is too wide rather than too narrow. C10 to C12 resample classes. C2, C4 and C17 count
  seeds only. Definitions are in docs/method.md; every number below is a row of the table `claim_parts`."""


def claims_page(claims: pd.DataFrame, parts: pd.DataFrame, experiment: str) -> str:
    """The page: how to read it, one table of all statements, then the parts of each.

    Args:
        claims, parts: tables ``claims`` and ``claim_parts`` (see `measure_claims`). experiment: its name.
    """
    counts = ", ".join(f"{(claims['verdict'] == name).sum()} {words}" for name, words in COUNTED.items())
    blocks = [
        "# Claims of PatchSAE, tested",
        f"Written by the rule `measure_claims` of the experiment `{experiment}`; nothing here is typed by hand. "
        f"Of {len(claims)} statements: {counts}.",
        "## How to read it",
        HOW_TO_READ,
        "## Verdicts",
        "Of the parts of a statement the first that has its verdict is shown.",
        _table(("", "statement", "paper", "ours", "control", "verdict"), _summary(claims, parts)),
        *(_section(row, _records(parts[parts["claim"] == row["claim"]])) for row in _records(claims)),
    ]
    return "\n\n".join(blocks) + "\n"


def _summary(claims: pd.DataFrame, parts: pd.DataFrame) -> Iterable[tuple[str, ...]]:
    """A row a statement; values are those of the first part that has its verdict, task by task."""
    for claim in _records(claims):
        mine = _records(parts[parts["claim"] == claim["claim"]])
        deciding = next((row for row in mine if row["verdict"] == claim["verdict"]), mine[0])
        first = [row for row in mine if all(row[name] == deciding[name] for name in ("part", "control"))]
        ours = _joined(first, lambda row: _value(row["estimate"], row["low"], row["high"], row["unit"]))
        control = _joined(first, _control)
        part = f"{first[0]['part']}: " if ours else ""
        named = f"{first[0]['control']}: " if control else ""
        link = f"[{claim['claim']}](#{claim['claim'].lower()})"
        verdict = f"**{claim['verdict']}** ({claim['held']} of {claim['parts']} parts hold)"
        yield link, claim["statement"], claim["paper"], part + ours, named + control, verdict


def _joined(rows: Iterable[Row], shown: Any) -> str:
    values = [(row["task"], shown(row)) for row in rows]
    return "; ".join(f"{task} {value}".strip() for task, value in values if value)


def _section(claim: Row, parts: list[Row]) -> str:
    reason = f": {claim['reason']}" if claim["reason"] else ""
    lines = [
        f"## {claim['claim']}",
        claim["statement"],
        f"* Paper: {claim['paper']}.\n* Rule here: {claim['rule']}.\n* Control: {claim['control']}.",
        f"**{claim['verdict'].capitalize()}**{reason}.",
    ]
    measured = [row for row in parts if np.isfinite(row["estimate"])]
    if measured:
        head = ("task", "part", "ours", "control", "verdict")
        lines.append(_table(head, (_part(row) for row in measured)))
        lines.append("\n".join(f"* {setting}." for setting in dict.fromkeys(row["setting"] for row in measured)))
    return "\n\n".join(lines)


def _part(row: Row) -> tuple[str, ...]:
    control = _control(row)
    ours = _value(row["estimate"], row["low"], row["high"], row["unit"])
    part = f"{row['part']} ({row['detail']})" if row["detail"] else row["part"]
    return row["task"], part, ours, f"{row['control']}: {control}" if control else "", row["verdict"]


def _control(row: Row) -> str:
    return _value(row["control_estimate"], row["control_low"], row["control_high"], row["control_unit"])


def _value(estimate: float, low: float, high: float, unit: str) -> str:
    """A number with its interval, or nothing where there is no number."""
    if not np.isfinite(estimate):
        return ""
    digits = 0 if unit == "seeds" else 1 if unit == "points" or abs(estimate) >= 10 else 3
    shown = [f"{round(value, digits) + 0.0:.{digits}f}" for value in (estimate, low, high)]  # + 0.0: no -0.0
    interval = f" [{shown[1]}, {shown[2]}]" if np.isfinite(low) else ""
    return f"{shown[0]}{interval} {unit}".strip()


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _records(table: pd.DataFrame) -> list[Row]:
    return [{str(key): value for key, value in row.items()} for row in table.to_dict("records")]
