"""How latents and factor values pair up: one to one, many to one (splitting), and absorption.

All choices are made on split A; all numbers are from split B. `truth.side` gives both sides.

One to one: the assignment of latents to values with the largest summed AUROC on A (scipy's linear_sum_assignment).
Many to one: starting from the best latent, latents are added while the AUROC of the summed scores on A (each latent
divided by its mean positive score on A) grows by at least `minimum_gain`; the size of the set measures splitting.
Absorption: among images with value v, one context w (a value of another factor) is chosen on A where the latent of v
misses most, and a child latent that best tells w from the rest there. `recall_gap` is the recall of v's latent outside
w minus inside w. `absorption_gap` is P(child fires | v, w, latent of v silent) - P(child fires | v, w, latent fires):
positive when the child stands in for the parent, zero when the two are unrelated.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import sparse
from scipy.optimize import linear_sum_assignment

from conceptbench.measures.ranking import best_threshold, column, curve, rank_all
from conceptbench.measures.resampling import image_weights, interval
from conceptbench.measures.sparse import split_sign
from conceptbench.measures.truth import Side, TruthSpec

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class MatchingSpec:
    """Choices of the matching measure."""

    candidates: int = 20
    """Latents tried for a many-to-one set: the best on A for the value."""
    largest_set: int = 5
    minimum_gain: float = 0.005
    """A latent joins the set when it raises the AUROC on A by at least this."""
    minimum_images: int = 5
    """Images needed in every cell of the absorption table, on both splits."""
    n_resamples: int = 1000


@dataclass(frozen=True)
class _Parent:
    """A value's best latent: its column, and where it fires above its threshold on A and B."""

    column: int
    fires_a: Flags
    fires_b: Flags


def match_factors(
    a: Side,
    b: Side,
    rng: np.random.Generator,
    truth_spec: TruthSpec | None = None,
    spec: MatchingSpec | None = None,
) -> pd.DataFrame:
    """Matching of latents with factor values; one row a value.

    Returns:
        factor, value, one_to_one_latent, one_to_one_auroc, best_latent, best_auroc, set_latents (space-separated),
        set_size, set_auroc, absorbing_context, child_latent, recall_gap, absorption_gap, absorption_low,
        absorption_high, absorbed (interval of the gap above 0 and a positive recall gap), n (images of B), note (why
        absorption is missing). Latents are numbers of the dictionary; -1 is none.
    """
    truth_spec, spec = truth_spec or TruthSpec(), spec or MatchingSpec()
    auroc_a = np.nan_to_num(rank_all(a.scores, a.labels.present).auroc, nan=0.0)
    positive = np.minimum(a.labels.present.sum(axis=0), b.labels.present.sum(axis=0))
    scored = positive >= truth_spec.minimum_positive
    one_to_one = _assign(auroc_a, scored)
    rows = []
    for at, (factor, value) in enumerate(a.labels.names):
        if not scored[at]:
            note = f"fewer than {truth_spec.minimum_positive} images on a split"
            rows.append({"factor": factor, "value": value, **_empty(), "n": len(b.labels.present), "note": note})
            continue
        best = int(np.argmax(auroc_a[:, at]))
        chosen, set_auroc = _many_to_one(a, b, at, auroc_a[:, at], spec)
        row: dict[str, Any] = {"factor": factor, "value": value}
        row |= {"one_to_one_latent": _latent(one_to_one[at], a.width), "best_latent": _latent(best, a.width)}
        row |= {"one_to_one_auroc": _auroc(b, [one_to_one[at]], [1.0], at), "best_auroc": _auroc(b, [best], [1.0], at)}
        row |= {"set_latents": " ".join(str(_latent(c, a.width)) for c in chosen), "set_size": len(chosen)}
        row |= {"set_auroc": set_auroc, "n": len(b.labels.present)}
        rows.append(row | _absorption(a, b, at, best, rng, spec))
    return pd.DataFrame(rows)


def matched_latents(table: pd.DataFrame, factor: str) -> list[int]:
    """Latents of the many-to-one sets of all values of a factor."""
    sets = table.loc[table["factor"] == factor, "set_latents"]
    return sorted({int(latent) for text in sets for latent in text.split()})


def _latent(index: int, width: int) -> int:
    return -1 if index < 0 else split_sign(index, width)[0]


def _empty() -> dict[str, Any]:
    none: dict[str, Any] = dict.fromkeys(("one_to_one_latent", "best_latent", "child_latent"), -1)
    none |= dict.fromkeys(("one_to_one_auroc", "best_auroc", "set_auroc", "recall_gap"), np.nan)
    none |= dict.fromkeys(("absorption_gap", "absorption_low", "absorption_high"), np.nan)
    return none | {"set_latents": "", "set_size": 0, "absorbing_context": "", "absorbed": False}


def _assign(auroc: NDArray[np.float64], scored: Flags) -> NDArray[np.int64]:
    """Column of every value (-1 where not scored or when latents run out) with the largest summed AUROC."""
    columns = np.full(len(scored), -1, dtype=np.int64)
    values = np.flatnonzero(scored)
    latents, at = linear_sum_assignment(-auroc[:, values])
    columns[values[at]] = latents
    return columns


def _auroc(side: Side, columns: list[int], scales: list[float], at: int) -> float:
    """AUROC of the weighted sum of some columns."""
    if columns[0] < 0:
        return float("nan")
    present = side.labels.present[:, at].astype(np.float64)
    total = sparse.csc_array(side.scores[:, columns] @ np.asarray(scales, dtype=np.float64)[:, None])
    items, values = column(total, 0)
    return curve(items, values, present, 1 - present).auroc


def _many_to_one(a: Side, b: Side, at: int, auroc: NDArray[np.float64], spec: MatchingSpec) -> tuple[list[int], float]:
    candidates = [int(c) for c in np.argsort(-auroc, kind="stable")[: spec.candidates]]
    scale = {c: _scale(a, c) for c in candidates}
    chosen, reached = [candidates[0]], float(auroc[candidates[0]])
    while len(chosen) < spec.largest_set:
        rest = [c for c in candidates if c not in chosen]
        trials = [_auroc(a, [*chosen, c], [scale[x] for x in [*chosen, c]], at) for c in rest]
        if not trials or max(trials) < reached + spec.minimum_gain:
            break
        reached = max(trials)
        chosen.append(rest[int(np.argmax(trials))])
    return chosen, _auroc(b, chosen, [scale[c] for c in chosen], at)


def _scale(side: Side, index: int) -> float:
    values = side.scores.data[side.scores.indptr[index] : side.scores.indptr[index + 1]]
    positive = values[values > 0]
    return 1.0 / float(positive.mean()) if positive.size else 1.0


def _fires(side: Side, index: int, threshold: float) -> Flags:
    dense = np.zeros(side.scores.shape[0])
    items, values = column(side.scores, index)
    dense[items] = values
    return np.asarray(dense >= threshold)


def _absorption(a: Side, b: Side, at: int, best: int, rng: np.random.Generator, spec: MatchingSpec) -> dict[str, Any]:
    present = a.labels.present[:, at].astype(np.float64)
    threshold, _ = best_threshold(*column(a.scores, best), present, 1 - present)
    parent = _Parent(best, _fires(a, best, threshold), _fires(b, best, threshold))
    context = _worst_context(a, b, at, parent, spec)
    empty = {k: v for k, v in _empty().items() if k.startswith(("absor", "child", "recall"))}
    if context < 0:
        return empty | {"note": "no context where the latent is both silent and firing often enough"}
    child, child_threshold = _child(a, at, context, best)
    name = "=".join(a.labels.names[context])
    value_b, inside = b.labels.present[:, at], b.labels.present[:, at] & b.labels.present[:, context]
    recall_gap = float(parent.fires_b[value_b & ~inside].mean() - parent.fires_b[inside].mean())
    child_fires = _fires(b, child, child_threshold)
    silent = inside & ~parent.fires_b
    on = inside & parent.fires_b
    gap = _gap_estimate(child_fires, silent, on, rng, spec)
    absorbed = bool(gap.low > 0 and recall_gap > 0)
    return {
        "absorbing_context": name,
        "child_latent": split_sign(child, a.width)[0],
        "recall_gap": recall_gap,
        "absorption_gap": gap.estimate,
        "absorption_low": gap.low,
        "absorption_high": gap.high,
        "absorbed": absorbed,
        "note": gap.note,
    }


def _gap_estimate(child: Flags, silent: Flags, on: Flags, rng: np.random.Generator, spec: MatchingSpec) -> Any:
    rows = silent | on
    weights = image_weights(int(rows.sum()), spec.n_resamples, rng)
    parts = [flag[rows].astype(np.float64) for flag in (silent & child, silent, on & child, on)]
    sums = [weights @ part for part in parts]
    with np.errstate(invalid="ignore", divide="ignore"):
        drawn = sums[0] / sums[1] - sums[2] / sums[3]
    point = parts[0].sum() / parts[1].sum() - parts[2].sum() / parts[3].sum()
    return interval(float(point), drawn, int(rows.sum()))


def _worst_context(a: Side, b: Side, at: int, parent: _Parent, spec: MatchingSpec) -> int:
    """The value of another factor inside which the parent's recall on A is lowest; -1 when no cell is large enough."""
    factor = a.labels.names[at][0]
    worst, lowest = -1, np.inf
    for other, (other_factor, _) in enumerate(a.labels.names):
        if other_factor == factor:
            continue
        inside_a = a.labels.present[:, at] & a.labels.present[:, other]
        inside_b = b.labels.present[:, at] & b.labels.present[:, other]
        outside = min((a.labels.present[:, at] & ~inside_a).sum(), (b.labels.present[:, at] & ~inside_b).sum())
        cells = [(inside_a & parent.fires_a).sum(), (inside_a & ~parent.fires_a).sum(), outside]
        cells += [(inside_b & parent.fires_b).sum(), (inside_b & ~parent.fires_b).sum()]
        if min(cells) < spec.minimum_images:
            continue
        recall = float(parent.fires_a[inside_a].mean())
        if recall < lowest:
            worst, lowest = other, recall
    return worst


def _child(a: Side, at: int, context: int, parent: int) -> tuple[int, float]:
    """The latent, other than the parent, that best tells the context from the rest among images with the value."""
    rows = np.flatnonzero(a.labels.present[:, at])
    inside = a.labels.present[rows, context].astype(np.float64)
    scores = sparse.csc_array(a.scores.tocsr()[rows].tocsc())
    auroc = np.nan_to_num(rank_all(scores, inside[:, None]).auroc[:, 0], nan=0.0)
    auroc[[parent % a.width, *([parent % a.width + a.width] if len(auroc) > a.width else [])]] = 0.0
    child = int(np.argmax(auroc))
    threshold, _ = best_threshold(*column(scores, child), inside, 1 - inside)
    return child, threshold
