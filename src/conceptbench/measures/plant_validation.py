"""Estimators of remapping scored on planted adaptations: bias, coverage of 95 % intervals, false positives.

A plant is grown for every seed (affected classes, atoms, and the sets E_c of split A vary). Scores of a population of
images under every edit are computed once; the truth is the population's value under the known truth of the plant: its
activations without what it recruited. A repetition draws images of each class from the population with replacement, as
an experiment would, estimates with an interval, and is compared with the truth.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray

from conceptbench.dictionaries import Codes, Dictionary
from conceptbench.inference import bootstrap_mean
from conceptbench.measures.association import Effects, remapping_draws, shared_latents
from conceptbench.measures.concepts import OUTCOMES, Scores, Side, edited, outside, part_scores, restored, score
from conceptbench.measures.decomposition import shapley
from conceptbench.measures.edits import Firings, atoms_in_raw_units
from conceptbench.measures.plants import Plant, Soil
from conceptbench.measures.readout import Activations, Readout
from conceptbench.measures.resampling import image_weights

ESTIMANDS: Final = ("gain", "perception", "mapping", "recruited", "beyond", "as_coded")
"""Parts that are estimated; each but the gain also as a share of it. `as_coded` is `beyond` without the refit."""
HEADLINE: Final = ("gain", "perception", "mapping", "beyond")
"""Parts that make the one coverage of a plant: what the claims of remapping and of recruitment rest on."""
DRAWS: Final = 300
"""Bootstrap samples of an interval in a repetition."""
RECRUITMENT, REMAPPING = "recruitment", "remapping"
BY_BEYOND: Final = "recruitment_by_beyond"
"""The claim of recruitment on the basis that it is made on: `beyond` above 0."""
ZERO: Final = 1e-12
"""A truth or an estimate of at most this size is 0."""
EDITS: Final = ("existing", "baseline", "restored")
_PLAYERS: Final = ("perception", "mapping")


@dataclass(frozen=True, eq=False)
class Harvest:
    """Scores [outcome, image] of the population under one plant and seed, by edit."""

    plant: str
    seed: int
    scores: Mapping[str, Scores]
    targets: Int64[np.ndarray, " image"]

    def estimated(self) -> dict[str, Scores]:
        """The parts as the measures estimate them, image by image."""
        coded = part_scores({name: self.scores[f"{name}_as_coded"] for name in EDITS} | self._unedited())
        return self._parts(part_scores(self.scores), coded)

    def true(self) -> dict[str, Scores]:
        """The parts under the known truth: `existing` is the plant without what it recruited, and costs nothing."""
        left = self.scores["unrecruited"]
        known = {"existing": left, "restored": left, "baseline": self.scores["hybrid"]}
        parts = part_scores(known | self._unedited())
        return self._parts(parts, parts)

    def _unedited(self) -> dict[str, Scores]:
        return {name: self.scores[name] for name in ("zero_shot", "adapted", "hybrid")}

    def _parts(self, parts: Mapping[str, Scores], coded: Mapping[str, Scores]) -> dict[str, Scores]:
        names = {frozenset[str](): "zero_shot", frozenset({"perception"}): "perceived"}
        names |= {frozenset({"mapping"}): "hybrid", frozenset(_PLAYERS): "adapted"}
        values = shapley({coalition: self.scores[name] for coalition, name in names.items()}, _PLAYERS)
        return {**parts, **values, "as_coded": coded["beyond"]}


@dataclass(frozen=True, eq=False)
class Known:
    """The population under the zero-shot model: scored and encoded once, for all plants."""

    side: Side
    dictionary: Dictionary
    plain: Float[np.ndarray, "image class"]
    fitted: Firings

    @classmethod
    def of(cls, readout: Readout, activations: Activations, dictionary: Dictionary, codes: Codes) -> Known:
        """The population with its unedited predictions."""
        side = Side(readout, activations, codes)
        return cls(side, dictionary, side.plain(), side.fitted(dictionary))


def harvest(plant: Plant, seed: int, soil: Soil, known: Known, q: float) -> Harvest:
    """Scores of the population: hybrids, edits by the dictionary, and the plant without what it recruited.

    Args:
        known: the population, on images that the soil does not hold.
    """
    field, targets, zero_shot = known.side.activations, known.side.activations.targets, known.side.readout
    planted = Readout(zero_shot.backbone, plant, zero_shot.block, zero_shot.class_names)
    changed = _with(field, plant.change(field.tokens, targets))
    without = _with(field, plant.change(field.tokens, targets, recruited=False))
    hybrid, sets = Side(planted, field, known.side.codes), soil.selected.class_share >= q
    found = {"zero_shot": score(known.plain, targets), "hybrid": score(hybrid.plain(), targets)}
    found |= _without_outside("baseline", hybrid, known.fitted, known.dictionary, sets)
    if changed is field:
        return Harvest(plant.name, seed, found | _unchanged(found), targets)
    adapted = Side(planted, changed, known.dictionary.encode(changed.numpy()))
    found |= {
        "adapted": score(adapted.plain(), targets),
        "perceived": score(zero_shot.predict(changed), targets),
        "unrecruited": found["hybrid"] if without is field else score(planted.predict(without), targets),
    }
    fitted = adapted.fitted(known.dictionary)
    found |= _without_outside("existing", adapted, fitted, known.dictionary, sets)
    found |= _restored(adapted, fitted, known, sets)
    return Harvest(plant.name, seed, found, targets)


def _unchanged(found: Mapping[str, Scores]) -> dict[str, Scores]:
    """The other scores of a plant that leaves the activations alone."""
    same = {f"existing{suffix}": found[f"baseline{suffix}"] for suffix in ("", "_as_coded")}
    same |= {f"restored{suffix}": found["hybrid"] for suffix in ("", "_as_coded")}
    return same | {"adapted": found["hybrid"], "perceived": found["zero_shot"], "unrecruited": found["hybrid"]}


def _without_outside(
    name: str, side: Side, fitted: Firings, dictionary: Dictionary, sets: Bool[np.ndarray, "class latent"]
) -> dict[str, Scores]:
    """Scores without the latents outside the class of each image, by refitted values and by those of the codes."""
    gone = outside(sets, side.activations.targets, fitted)
    atoms = atoms_in_raw_units(dictionary, side.activations.tokens)
    return {
        name: edited(side, fitted, gone, atoms),
        f"{name}_as_coded": edited(side, Firings.of(side.codes), gone, atoms),
    }


def _restored(side: Side, fitted: Firings, known: Known, sets: Bool[np.ndarray, "class latent"]) -> dict[str, Scores]:
    """Scores with the latents outside the class of each image as on the zero-shot activations, by both values."""
    targets, atoms = side.activations.targets, atoms_in_raw_units(known.dictionary, side.activations.tokens)
    both = {"": (fitted, known.fitted), "_as_coded": (Firings.of(side.codes), Firings.of(known.side.codes))}
    found = {}
    for suffix, pair in both.items():
        now, before = ((firings, outside(sets, targets, firings)) for firings in pair)
        found[f"restored{suffix}"] = restored(side, now, before, atoms)
    return found


def _with(population: Activations, tokens: Any) -> Activations:
    if tokens is population.tokens:
        return population
    return Activations(population.rows, population.targets, tokens, population.prompts)


def repetitions(
    field: Harvest, resamples: int, images: int, rng: np.random.Generator, draws: int = DRAWS
) -> list[dict[str, Any]]:
    """Estimates of samples of the population beside the truth.

    Returns:
        rows with plant, seed, repetition, outcome, part, truth, estimate, low, high. A share is missing where the
        interval of the gain of that sample contains 0; an interval is missing where all images agree.
    """
    estimated, true = field.estimated(), field.true()
    rows = []
    for repetition in range(resamples):
        chosen = sample_within(field.targets, images, rng)
        weights = image_weights(len(chosen), draws, rng, field.targets[chosen]) / len(chosen)
        for at, outcome in enumerate(OUTCOMES):
            truth = {name: float(true[name][at].mean()) for name in ESTIMANDS}
            values = {name: estimated[name][at][chosen] for name in ESTIMANDS}
            head = {"plant": field.plant, "seed": field.seed, "repetition": repetition, "outcome": outcome}
            rows += [head | row for row in _estimate(values, truth, weights)]
    return rows


def sample_within(targets: Int64[np.ndarray, " image"], images: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """So many images of each class, drawn with replacement."""
    return np.concatenate([rng.choice(np.flatnonzero(targets == c), images) for c in np.unique(targets)])


def _estimate(
    values: Mapping[str, NDArray[np.float64]], truth: Mapping[str, float], weights: NDArray[np.float64]
) -> list[dict[str, Any]]:
    points = {name: float(array.mean()) for name, array in values.items()}
    drawn = {name: weights @ array for name, array in values.items()}
    rows = [_row(name, truth[name], points[name], drawn[name]) for name in values]
    if rows[0]["low"] > 0 or rows[0]["high"] < 0:
        with np.errstate(divide="ignore", invalid="ignore"):
            for name in ESTIMANDS[1:]:
                share = truth[name] / truth["gain"] if truth["gain"] else np.nan
                rows.append(_row(f"{name}_share", share, points[name] / points["gain"], drawn[name] / drawn["gain"]))
    return rows


def _row(part: str, truth: float, point: float, drawn: NDArray[np.float64]) -> dict[str, Any]:
    finite = drawn[np.isfinite(drawn)]
    constant = not finite.size or np.ptp(finite) <= 1e-12
    low, high = (np.nan, np.nan) if constant else np.quantile(finite, [0.025, 0.975])
    return {"part": part, "truth": truth, "estimate": point, "low": float(low), "high": float(high)}


def false_positives(
    nulls: Sequence[Harvest],
    effects: Effects,
    resamples: int,
    images: int,
    halvings: int,
    rng: np.random.Generator,
) -> list[dict[str, Any]]:
    """Both claims on the null plant, where each model sees an independent sample of the population.

    Args:
        nulls: the null plant for every seed. effects: first-order effects of the zero-shot model on the population.

    Returns:
        rows with plant, seed, repetition, claim (recruitment: `recruited` of one sample less `baseline` of the other
        above 0 in accuracy; remapping: the mean over classes above 0), estimate, low, high, claimed.
    """
    rows = []
    for field in nulls:
        parts = part_scores(field.scores)
        for repetition in range(resamples):
            one, other = (sample_within(field.targets, images, rng) for _ in range(2))
            weights = [image_weights(len(s), DRAWS, rng, field.targets[s]) / len(s) for s in (one, other)]
            lost = (parts["baseline"][0][one], parts["recruited"][0][other])
            point = float(lost[1].mean() - lost[0].mean())
            low, high = np.quantile(weights[1] @ lost[1] - weights[0] @ lost[0], [0.025, 0.975])
            head = {"plant": field.plant, "seed": field.seed, "repetition": repetition}
            rows.append(head | _claim(RECRUITMENT, point, float(low), float(high)))
            rows.append(head | _remapped(effects, one, other, halvings, rng))
    return rows


def _remapped(
    effects: Effects, one: NDArray[np.int64], other: NDArray[np.int64], halvings: int, rng: np.random.Generator
) -> dict[str, Any]:
    sides = [Effects(effects.latents, effects.fires[s], effects.effect[s]) for s in (one, other)]
    shared = shared_latents(*sides)
    z, a = (side.on(shared) for side in sides)
    point = float(remapping_draws(z, a, halvings, rng, resample=False).mean())
    spread = float(remapping_draws(z, a, DRAWS // 3, rng, resample=True).mean(axis=1).std(ddof=1))
    return _claim(REMAPPING, point, point - 1.96 * spread, point + 1.96 * spread)


def _claim(claim: str, point: float, low: float, high: float) -> dict[str, Any]:
    return {"claim": claim, "estimate": point, "low": low, "high": high, "claimed": low > 0}


def validation_table(rows: pd.DataFrame, claims: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Bias, coverage and false-positive rate, with intervals clustered by the seed of the plant.

    Returns:
        plant, outcome, part (a part, a claim, or all), statistic (coverage, bias, truth, reported: share of repetitions
        with an estimate, false_positive_rate, and for all worst_coverage: the smallest over the headline parts and
        claims, which the note names), estimate, low, high, n (repetitions), seed, note. Coverage counts repetitions
        with an interval; where none has one because every image agrees, the note says so. Parts have a false-positive
        rate where their truth is 0.
    """
    out: list[dict[str, Any]] = []
    gains = rows[rows["part"] == "gain"]
    total = Counter(zip(gains["plant"], gains["outcome"], strict=True))
    for (plant, outcome, part), group in rows.groupby(["plant", "outcome", "part"], sort=False):
        head = {"plant": plant, "outcome": outcome, "part": part}
        seeds = group["seed"].to_numpy()
        with_interval = group[group["low"].notna()]
        covered = (with_interval["low"] <= with_interval["truth"]) & (with_interval["truth"] <= with_interval["high"])
        exact = with_interval.empty and bool(np.allclose(group["estimate"], group["truth"]))
        out.append(
            head | _summary("coverage", covered, with_interval["seed"], rng, "exact: no interval" if exact else "")
        )
        out.append(head | _summary("bias", group["estimate"] - group["truth"], seeds, rng))
        out.append(head | _summary("truth", group["truth"], seeds, rng))
        reported = len(group) / total[(plant, outcome)]
        share = {"statistic": "reported", "estimate": reported, "low": np.nan, "high": np.nan}
        out.append(head | share | {"n": len(group), "seed": "all", "note": "a count"})
    for (plant, claim), group in claims.groupby(["plant", "claim"], sort=False):
        head = {"plant": plant, "outcome": "accuracy", "part": claim}
        covered = (group["low"] <= 0) & (group["high"] >= 0)
        out.append(head | _summary("coverage", covered, group["seed"], rng))
        out.append(head | _summary("false_positive_rate", group["claimed"], group["seed"], rng))
    out += _per_plant(rows, claims, rng)
    out += _worst_coverage(out)
    return pd.DataFrame(out + _found_where_nothing_is(rows, rng))


def _worst_coverage(found: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For each plant the row of the headline part or claim whose intervals hold the truth least often (accuracy)."""
    shown = {*HEADLINE, RECRUITMENT, REMAPPING}
    mine = [r for r in found if r["statistic"] == "coverage" and r["outcome"] == "accuracy" and r["part"] in shown]
    out = []
    for plant in dict.fromkeys(row["plant"] for row in mine):
        known = [row for row in mine if row["plant"] == plant and np.isfinite(row["estimate"])]
        if known:
            worst = min(known, key=lambda row: row["estimate"])
            out.append({**worst, "part": "all", "statistic": "worst_coverage", "note": str(worst["part"])})
    return out


def _found_where_nothing_is(rows: pd.DataFrame, rng: np.random.Generator) -> list[dict[str, Any]]:
    """False positives of each part whose truth is 0 for every seed of a plant: the interval leaves 0 out.

    An estimate without an interval, because every image agrees, counts where it is not 0. For `beyond` also the rate of
    intervals above 0, which is the claim of recruitment.
    """
    out = []
    parts = rows[rows["part"].isin(ESTIMANDS)]
    for (plant, outcome, part), group in parts.groupby(["plant", "outcome", "part"], sort=False):
        if (group["truth"].abs() > ZERO).any():
            continue
        certain = group["low"].isna()
        above = (group["low"] > 0) | (certain & (group["estimate"] > ZERO))
        below = (group["high"] < 0) | (certain & (group["estimate"] < -ZERO))
        head = {"plant": plant, "outcome": outcome, "part": part}
        out.append(head | _summary("false_positive_rate", above | below, group["seed"], rng))
        if part == "beyond":
            out.append(head | {"part": BY_BEYOND} | _summary("false_positive_rate", above, group["seed"], rng))
    return out


def _per_plant(rows: pd.DataFrame, claims: pd.DataFrame, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Coverage and mean size of the error of each plant: accuracy, `HEADLINE` parts, and both claims of the null."""
    out = []
    for plant in rows["plant"].unique():
        mine = rows[(rows["plant"] == plant) & (rows["outcome"] == "accuracy") & rows["part"].isin(HEADLINE)]
        with_interval = mine[mine["low"].notna()]
        covered = (with_interval["low"] <= with_interval["truth"]) & (with_interval["truth"] <= with_interval["high"])
        null = claims[claims["plant"] == plant]
        covered = pd.concat([covered, (null["low"] <= 0) & (null["high"] >= 0)])
        seeds = pd.concat([with_interval["seed"], null["seed"]])
        head = {"plant": plant, "outcome": "accuracy", "part": "all"}
        out.append(head | _summary("coverage", covered, seeds, rng))
        out.append(head | _summary("bias", (mine["estimate"] - mine["truth"]).abs(), mine["seed"], rng, "mean size"))
    return out


def _summary(statistic: str, values: Any, seeds: Any, rng: np.random.Generator, note: str = "") -> dict[str, Any]:
    numbers = np.asarray(values, dtype=np.float64)
    known = np.isfinite(numbers)
    estimate = bootstrap_mean(numbers[known], np.asarray(seeds)[known], n_resamples=500, rng=rng, method="percentile")
    row = estimate.row()
    return {"statistic": statistic, **row, "n": int(known.sum()), "note": note or str(row["note"])}
