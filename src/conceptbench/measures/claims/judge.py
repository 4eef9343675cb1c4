"""Rule measure_claims: every statement judged from the tables that the experiment has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import pandas as pd

from conceptbench.measures.claims import adaptation, dictionaries, latents, masking, overlap
from conceptbench.measures.claims.statements import STATEMENTS, Statement
from conceptbench.measures.claims.verdict import (
    FAILS,
    HOLDS,
    UNTESTED,
    About,
    CannotTest,
    Ruling,
    Tables,
    Verdict,
)
from conceptbench.measures.resampling import ALL_SEEDS

WHOLE: Final = "all"
"""The part of a claim of which nothing can be tested."""
Judge = Callable[[Tables, About], Iterable[Verdict]]
JUDGES: Final[Mapping[str, Judge]] = {
    "C1": dictionaries.trade_off,
    "C2": dictionaries.depth,
    "C3": dictionaries.class_tokens,
    "C4": dictionaries.ablation,
    "C5": masking.identity_mask,
    "C6": masking.zero_mask,
    "C7": masking.early_loss,
    "C8": masking.inert_masks,
    "C9": masking.recovery,
    "C10": overlap.same_latents,
    "C11": overlap.gain_and_new_latents,
    "C12": overlap.the_exception,
    "C13": masking.selecting_and_classifying,
    "C14": adaptation.relearnt_dictionary,
    "C15": adaptation.base_and_novel,
    "C16": latents.interpretable,
    "C17": latents.clusters,
}
_MOVED = "no adaptation changes the image tower: add maple to adaptations.methods"
_MASKED = "masking is left out: give measures.masking a section, as examples/remapping.yaml does"
_CONCEPTS = "concepts are left out: give measures.concepts a section, as examples/remapping.yaml does"
REMEDIES: Final[Mapping[str, str]] = {
    **dict.fromkeys(("masking", "masking_changes", "masking_contrasts", "masking_balance"), _MASKED),
    **dict.fromkeys(("overlap", "overlap_regions", "hybrids", "decomposition"), _MOVED),
    "concepts": _CONCEPTS,
    "validity": "no dictionary is learnt on an adapted model: name one in measures.concepts.relearn",
    **dict.fromkeys(("latents", "exemplars"), "measures.latents_on is empty: name the tasks there"),
}
"""What would let a claim be tested whose table the experiment lacks."""


def measure_claims(tables: Tables, spec: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Tables ``claims`` and ``claim_parts``.

    Args:
        tables: those of `statements.STATEMENTS` that the experiment has, and ``decomposition`` and ``truth_patches``.
        spec: the fields of `verdict.About`.

    Returns:
        claims: claim, statement, paper, rule, control, verdict, reason, parts (how many), held (how many hold).
        claim_parts: claim, task (empty: of no task), part, unit, estimate, low, high, n, seed, note, control,
        control_estimate, control_low, control_high, control_note, control_unit, verdict, reason, detail, setting.
    """
    about = About(**spec)
    claims, parts = [], []
    for statement in STATEMENTS:
        found = judge_statement(statement, tables, about)
        outcome, reason = together(found)
        names = {name: getattr(statement, name) for name in ("paper", "rule", "control")}
        held = sum(verdict.verdict == HOLDS for verdict in found)
        row = {"claim": statement.id, "statement": statement.text, **names, "verdict": outcome, "reason": reason}
        claims.append(row | {"parts": len(found), "held": held})
        parts += [{"claim": statement.id, **_row(verdict)} for verdict in found]
    return {"claims": pd.DataFrame(claims), "claim_parts": pd.DataFrame(parts)}


def judge_statement(statement: Statement, tables: Tables, about: About) -> list[Verdict]:
    """The verdicts of all parts of a statement; one that says why where nothing of it can be tested."""
    missing = [name for name in statement.reads if name not in tables or tables[name].empty]
    if missing:
        return [Verdict(WHOLE, UNTESTED, REMEDIES.get(missing[0], f"table {missing[0]} is empty"))]
    try:
        return list(JUDGES[statement.id](tables, about))
    except CannotTest as error:
        return [Verdict(WHOLE, UNTESTED, str(error))]


def together(found: Iterable[Verdict]) -> Ruling:
    """Hold all parts of all tasks together: one that fails decides, one that cannot be tested leaves it open."""
    parts = list(found)
    for outcome in (FAILS, UNTESTED):
        of_outcome = [part for part in parts if part.verdict == outcome]
        if of_outcome:
            return outcome, "; ".join(dict.fromkeys(_named_reason(part) for part in of_outcome))
    return HOLDS, ""


def _named_reason(verdict: Verdict) -> str:
    where = ", ".join(name for name in (verdict.task, verdict.part) if name and name != WHOLE)
    return f"{where}: {verdict.reason}" if where else verdict.reason


def _row(verdict: Verdict) -> dict[str, Any]:
    control = verdict.control_value
    return {
        **{"task": verdict.task, "part": verdict.part, "unit": verdict.unit},
        **verdict.ours.row(ALL_SEEDS),
        **{"control": verdict.control, "control_estimate": control.estimate},
        **{"control_low": control.low, "control_high": control.high, "control_note": control.note},
        **{"control_unit": verdict.control_unit, "verdict": verdict.verdict, "reason": verdict.reason},
        **{"detail": verdict.detail, "setting": verdict.setting},
    }
