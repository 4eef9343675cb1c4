"""Table of the plant validation: bias, coverage, false positives and power, each with its Monte Carlo interval."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import betaincinv

from conceptbench.inference import bootstrap_mean
from conceptbench.measures.plant_validation import ESTIMANDS, REMAPPING

HEADLINE: Final = ("gain", "perception", "mapping", "beyond")
"""Parts that make the one pooled coverage of a plant: what the claims of remapping and of recruitment rest on."""
RECRUITMENT: Final = "recruitment"
CLAIMED_BY: Final = {
    RECRUITMENT: "beyond_share",
    "recruitment_by_beyond": "beyond",
    "recruitment_by_recruited": "recruited",
}
"""Claims of recruitment, and the row whose interval is above 0. The first is that of a study: it needs the share, which
is published only where the gain is distinguishable from 0. The others are the numerators of both published shares."""
COVERAGE_ASKED: Final = (0.90, 0.99)
ALLOWED: Final = 0.06
"""Rate of false positives at most."""
COMPATIBLE, BELOW, ABOVE = "compatible", "below", "above"
ALL: Final = "all"
"""The part whose rows pool the headline parts and claims of a plant."""
ZERO: Final = 1e-12
"""A truth or an estimate of at most this size is 0."""
_GROUPS: Final = ["plant", "models", "outcome", "part"]


def validation_table(rows: pd.DataFrame, claims: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Bias, coverage, false positives and power, with intervals clustered by seed (by sample for pooled models).

    Args:
        rows: table `plant_repetitions`. claims: table `plant_claims`, claims of remapping.

    Returns:
        plant, models (1, or 3 pooled as a study does), outcome, part (a part, a claim, or all), statistic, estimate,
        low, high, n (repetitions), seed, note, asked (does the interval of a coverage or a false-positive rate meet
        what is asked for: `compatible`, `below` or `above`). Statistics: coverage; coverage_of_all (pooled models: of
        the mean truth of all seeds); bias; truth; reported, the share of repetitions with an estimate;
        false_positive_rate where the truth is 0, and power where it is above 0, for every seed; and for all
        worst_coverage, the smallest over the headline parts and claims, which the note names. Coverage counts
        repetitions with an interval; where none has one because every image agrees, the note says so.
    """
    out = [row for _, group in rows.groupby(_GROUPS, sort=False) for row in _of_part(group, rows, rng)]
    out += [row for _, group in claims.groupby(["plant", "claim"], sort=False) for row in _of_remapping(group)]
    pooled = [row for _, group in rows.groupby(["plant", "models"], sort=False) for row in _of_all(group, claims, rng)]
    table = pd.DataFrame([*out, *pooled, *_worst_coverage(out), *_of_zero(rows), *_recruitment(rows)])
    return table.assign(asked=[asked(row) for row in table.to_dict("records")])


def asked(row: Mapping[Any, Any]) -> str:
    """Whether the Monte Carlo interval of a coverage or false-positive rate meets what is asked; empty for others."""
    statistic, low, high = row["statistic"], row["low"], row["high"]
    if not np.isfinite(low):
        return ""
    if statistic == "false_positive_rate":
        return ABOVE if low > ALLOWED else COMPATIBLE
    if "coverage" not in statistic:
        return ""
    return BELOW if high < COVERAGE_ASKED[0] else ABOVE if low > COVERAGE_ASKED[1] else COMPATIBLE


def _of_part(group: pd.DataFrame, rows: pd.DataFrame, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """All statistics of one part that need no other."""
    head = {name: group[name].iloc[0] for name in _GROUPS}
    seeds = _clusters(group).to_numpy()
    known = group[group["low"].notna()]
    exact = known.empty and bool(np.allclose(group["estimate"], group["truth"]))
    note = "exact: no interval" if exact else ""
    yield head | _rate("coverage", _covered(known, "truth"), _clusters(known), note)
    if group["truth_of_all"].notna().any():
        yield head | _rate("coverage_of_all", _covered(known, "truth_of_all"), _clusters(known), note)
    yield head | _mean("bias", group["estimate"] - group["truth"], seeds, rng)
    yield head | _mean("truth", group["truth"], seeds, rng)
    every = (rows[["plant", "models", "outcome"]] == group[["plant", "models", "outcome"]].iloc[0]).all(axis=1)
    reported = len(group) / int((every & (rows["part"] == "gain")).sum())
    yield (
        head
        | {"statistic": "reported", "estimate": reported, "low": np.nan, "high": np.nan}
        | {
            "n": len(group),
            "seed": "all",
            "note": "a count",
        }
    )


def _of_remapping(group: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """The claim of remapping: false positives, and coverage of 0, on the null plant; on others it is true."""
    head = {"plant": group["plant"].iloc[0], "models": 1, "outcome": "accuracy", "part": group["claim"].iloc[0]}
    if head["plant"] == "null":
        yield head | _rate("coverage", (group["low"] <= 0) & (group["high"] >= 0), group["seed"])
        yield head | _rate("false_positive_rate", group["claimed"], group["seed"])
    else:
        yield head | _rate("power", group["claimed"], group["seed"])


def _of_all(group: pd.DataFrame, claims: pd.DataFrame, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Coverage and mean size of the error of a plant, pooled: accuracy, `HEADLINE` parts, and remapping of the null."""
    plant, models = group[["plant", "models"]].iloc[0]
    mine = group[(group["outcome"] == "accuracy") & group["part"].isin(HEADLINE)]
    known = mine[mine["low"].notna()]
    null = claims[(claims["plant"] == plant) & (plant == "null") & (models == 1)]
    covered = pd.concat([_covered(known, "truth"), (null["low"] <= 0) & (null["high"] >= 0)])
    head = {"plant": plant, "models": models, "outcome": "accuracy", "part": ALL}
    yield head | _rate("coverage", covered, pd.concat([_clusters(known), null["seed"]]))
    if models > 1:
        yield head | _rate("coverage_of_all", _covered(known, "truth_of_all"), _clusters(known))
    error = (mine["estimate"] - mine["truth"]).abs()
    yield head | _mean("bias", error, _clusters(mine).to_numpy(), rng, "mean size")


def _worst_coverage(found: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """For each plant the row of the headline part or claim whose intervals hold the truth least often (accuracy)."""
    shown = {*HEADLINE, REMAPPING}
    mine = [r for r in found if r["statistic"] == "coverage" and r["outcome"] == "accuracy" and r["part"] in shown]
    for of in dict.fromkeys((row["plant"], row["models"]) for row in mine):
        known = [row for row in mine if (row["plant"], row["models"]) == of and np.isfinite(row["estimate"])]
        if known:
            worst = min(known, key=lambda row: row["estimate"])
            yield {**worst, "part": ALL, "statistic": "worst_coverage", "note": str(worst["part"])}


def _of_zero(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """False positives of each part whose truth is 0 for every seed of a plant: the interval leaves 0 out.

    An estimate without an interval, because every image agrees, counts where it is not 0.
    """
    for names, group in rows[rows["part"].isin(ESTIMANDS)].groupby(_GROUPS, sort=False):
        if (group["truth"].abs() <= ZERO).all():
            off = _above(group, 1) | _above(group, -1)
            yield dict(zip(_GROUPS, names, strict=True)) | _rate("false_positive_rate", off, _clusters(group))


def _recruitment(rows: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Claims of recruitment: false positives where nothing is recruited in any seed, power where it is in all."""
    for names, group in rows.groupby(_GROUPS[:3], sort=False):
        truth = group[group["part"] == "beyond"]["truth"]
        if (truth.abs() <= ZERO).all():
            statistic = "false_positive_rate"
        elif (truth > ZERO).all():
            statistic = "power"
        else:
            continue
        once = ["seed", "repetition"]
        every = group[group["part"] == "gain"].set_index(once)
        for claim, part in CLAIMED_BY.items():
            mine = group[group["part"] == part].set_index(once)
            # A share that is not published claims nothing, but its repetition counts.
            claimed = _above(mine, 1).reindex(every.index, fill_value=False)
            yield dict(zip(_GROUPS, (*names, claim), strict=True)) | _rate(
                statistic, claimed, _clusters(every.reset_index())
            )


def _above(group: pd.DataFrame, sign: int) -> pd.Series[bool]:
    """Whether the interval lies above 0 (sign 1) or below it (-1); a value that every image agrees on has none."""
    lower = group["low"] if sign > 0 else -group["high"]
    return (lower > 0) | (group["low"].isna() & (sign * group["estimate"] > ZERO))


def _covered(group: pd.DataFrame, truth: str) -> pd.Series[bool]:
    return (group["low"] <= group[truth]) & (group[truth] <= group["high"])


def _clusters(group: pd.DataFrame) -> pd.Series[Any]:
    """What repetitions share: the seed of the plant; for pooled models, whose seeds are dealt anew, the sample."""
    return group["seed"].where(group["models"] == 1, group["repetition"])


def _mean(statistic: str, values: Any, seeds: Any, rng: np.random.Generator, note: str = "") -> dict[str, Any]:
    numbers = np.asarray(values, dtype=np.float64)
    known = np.isfinite(numbers)  # a share of no true gain has no truth
    found = bootstrap_mean(numbers[known], np.asarray(seeds)[known], n_resamples=500, rng=rng, method="percentile")
    row = found.row()
    return {"statistic": statistic, **row, "n": int(known.sum()), "note": note or str(row["note"])}


def _rate(statistic: str, hits: Any, clusters: Any, note: str = "") -> dict[str, Any]:
    """A share of repetitions with its Monte Carlo interval (`rate_interval`)."""
    values, of = np.asarray(hits, dtype=np.float64), np.asarray(clusters)
    low, high = rate_interval(values, of)
    estimate = float(values.mean()) if len(values) else np.nan
    found = {"statistic": statistic, "estimate": estimate, "low": low, "high": high, "n": len(values), "seed": "all"}
    return found | {"note": note or ("" if len(values) else "no rows")}


def rate_interval(hits: Float[np.ndarray, " repetition"], clusters: NDArray[Any]) -> tuple[float, float]:
    """95 % interval of a share of repetitions: Clopper-Pearson with an effective number of them.

    That number is the number of repetitions over the design effect of the clusters, at most all of them (Korn and
    Graubard 1998, without their correction for few clusters, which leaves nothing of two). A bootstrap over clusters
    would give a share of 1 an interval of no width, however few repetitions there are. NaN without repetitions.
    """
    n = len(hits)
    if not n:
        return np.nan, np.nan
    share, effective = float(hits.mean()), float(n)
    _, code = np.unique(clusters, return_inverse=True)
    excess = np.bincount(code, weights=hits - share)
    if len(excess) > 1 and (excess**2).any():
        variance = float((excess**2).sum()) / n**2 * len(excess) / (len(excess) - 1)
        effective = min(effective, share * (1 - share) / variance * n / (n - 1))
    x = share * effective
    low = float(betaincinv(x, effective - x + 1, 0.025)) if share > 0 else 0.0
    high = float(betaincinv(x + 1, effective - x, 0.975)) if share < 1 else 1.0
    return low, high
