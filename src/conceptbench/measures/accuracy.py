"""Accuracy before and after adaptation: base, novel and their harmonic mean, with paired differences.

Accuracy is micro (correct images over images) and lies in [0, 1]. The harmonic mean is that of the accuracies averaged
over seeds, as in the CoOp and MaPLe papers. Intervals draw images within classes; with several seeds the variance
between seeds is added (`resampling.Pooled`).
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from conceptbench.errors import ConceptBenchError
from conceptbench.inference import Estimate
from conceptbench.measures.resampling import ALL_SEEDS, Bounds, Pooled, image_weights, interval, note_lone_images

HARMONIC = "harmonic_mean"
REFERENCE = "zero-shot"
RANGE: Final[Bounds] = (0.0, 1.0)
RANGE_OF_DIFFERENCES: Final[Bounds] = (-1.0, 1.0)
_NEEDED = ("image", "label", "half", "method", "task", "seed", "correct")


@dataclass(frozen=True)
class _Half:
    """Correctness [seed, image] of one task, method and half, with the class of every image."""

    correct: NDArray[np.float64]
    labels: NDArray[np.int64]
    images: NDArray[np.int64]
    seeds: tuple[str, ...]


@dataclass(frozen=True)
class _Drawn:
    """Accuracy of each seed and over all, with replicates of each seed [seed, resample]."""

    points: NDArray[np.float64]
    pooled: Pooled
    per_seed: NDArray[np.float64]


def harmonic_mean(base: Any, novel: Any) -> Any:
    """Harmonic mean 2bn / (b + n) of two accuracies (numbers or arrays); 0 where both are 0."""
    total = np.asarray(base) + np.asarray(novel)
    return np.where(total > 0, 2 * np.asarray(base) * np.asarray(novel) / np.where(total > 0, total, 1), 0.0)


def accuracy_tables(
    predictions: pd.DataFrame, rng: np.random.Generator, n_resamples: int = 1000
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Accuracy of every method and its paired difference to zero-shot.

    Args:
        predictions: one row an image, method and seed: image, label, half (base, novel or all), method, task, seed,
            correct.

    Returns:
        `accuracy`: task, method, half (base, novel, harmonic_mean, all), estimate, low, high, n, seed ("all" pools),
        note, n_seeds; a half that a method was not scored on has one row without an estimate.
        `accuracy_difference`: task, method, reference, half, estimate (method - zero-shot on the same images), low,
        high, n, seed ("all"), note, p (two-sided, of the same variance), n_seeds.
    """
    missing = [name for name in _NEEDED if name not in predictions.columns]
    if missing:
        raise ConceptBenchError(f"The predictions lack the column(s) {', '.join(missing)}.")
    rows: list[dict[str, Any]] = []
    differences: list[dict[str, Any]] = []
    for task, of_task in predictions.groupby("task", sort=False):
        drawn: dict[tuple[str, str], _Drawn] = {}
        labels = {str(half): _half(_first_method(f)).labels for half, f in of_task.groupby("half", sort=False)}
        weights = {half: image_weights(of_half.size, n_resamples, rng, of_half) for half, of_half in labels.items()}
        if {"base", "novel"} <= set(labels):
            labels[HARMONIC] = np.concatenate([labels["base"], labels["novel"]])
        for method, of_method in of_task.groupby("method", sort=False):
            halves = {str(half): _half(frame) for half, frame in of_method.groupby("half", sort=False)}
            for half, part in halves.items():
                _check_weights(part, weights[half], str(task), str(method))
                drawn[str(method), half] = _draw(part, weights[half])
            if {"base", "novel"} <= set(halves):
                drawn[str(method), HARMONIC] = _harmonic(drawn[str(method), "base"], drawn[str(method), "novel"])
            seeds = next(iter(halves.values())).seeds
            for half in [h for m, h in drawn if m == str(method)]:
                name = {"task": str(task), "method": str(method), "half": half}
                found = _accuracy_rows(name, drawn[str(method), half], seeds, labels[half].size)
                rows += note_lone_images(found, labels[half])
            rows += _absent_rows(str(task), str(method), set(halves), set(weights), len(seeds))
        differences += _differences(str(task), drawn, labels)
    return pd.DataFrame(rows), pd.DataFrame(differences)


def _first_method(frame: pd.DataFrame) -> pd.DataFrame:
    first: pd.DataFrame = frame[frame["method"] == frame["method"].iloc[0]]
    return first


def _half(frame: pd.DataFrame) -> _Half:
    """Correctness as a table of seeds and images; every seed must have every image once."""
    wide = frame.assign(seed=frame["seed"].astype(str), correct=frame["correct"].astype(float)).pivot(
        index="seed", columns="image", values="correct"
    )
    if wide.isna().to_numpy().any():
        method, task = frame["method"].iloc[0], frame["task"].iloc[0]
        raise ConceptBenchError(f"The predictions of {method} on {task} do not cover the same images in every seed.")
    labels = frame.drop_duplicates("image").set_index("image")["label"].reindex(wide.columns)
    return _Half(wide.to_numpy(), labels.to_numpy(), wide.columns.to_numpy(), tuple(wide.index))


def _check_weights(part: _Half, weights: NDArray[np.float64], task: str, method: str) -> None:
    if weights.shape[1] != part.images.size:
        raise ConceptBenchError(
            f"{method} on {task} was predicted for {part.images.size} images, another method for {weights.shape[1]}; "
            "predict every method on the same images."
        )


def _draw(part: _Half, weights: NDArray[np.float64]) -> _Drawn:
    per_seed = (weights @ part.correct.T / weights.sum(axis=1, keepdims=True)).T
    return _Drawn(part.correct.mean(axis=1), Pooled.mean(part.correct, weights), per_seed)


def _harmonic(base: _Drawn, novel: _Drawn) -> _Drawn:
    """Harmonic mean; over all seeds that of the averages, not the average over seeds.

    Seeds enter by its linearisation at the averages: dH/db = 2 n^2 / (b + n)^2, and likewise for n.
    """
    b, n = base.pooled.point, novel.pooled.point
    point = float(harmonic_mean(b, n))
    moved = n**2 * (base.points - b) + b**2 * (novel.points - n)
    influence = point + (2 * moved / (b + n) ** 2 if b + n else 0 * moved)
    drawn = np.asarray(harmonic_mean(base.pooled.replicates, novel.pooled.replicates))
    return _Drawn(
        np.asarray(harmonic_mean(base.points, novel.points)),
        Pooled(point, drawn, (influence,)),
        np.asarray(harmonic_mean(base.per_seed, novel.per_seed)),
    )


def _accuracy_rows(name: dict[str, str], drawn: _Drawn, seeds: tuple[str, ...], n: int) -> list[dict[str, Any]]:
    extra = {"n_seeds": len(seeds)}
    rows = [
        {**name, **interval(float(point), replicates, n).row(seed), **extra}
        for seed, point, replicates in zip(seeds, drawn.points, drawn.per_seed, strict=True)
    ]
    return [*rows, {**name, **drawn.pooled.estimate(n, RANGE).row(ALL_SEEDS), **extra}]


def _absent_rows(task: str, method: str, present: set[str], wanted: set[str], n_seeds: int) -> list[dict[str, Any]]:
    """Rows without an estimate for the halves that other methods of the task have, and for their harmonic mean."""
    notes = {half: f"{method} has no predictions for this half" for half in sorted(wanted - present)}
    if "novel" in notes:
        notes["novel"] = f"{method} has no classifier for classes it was not trained on"
    if {"base", "novel"} <= wanted and not {"base", "novel"} <= present:
        notes[HARMONIC] = notes.get("novel", notes.get("base", ""))
    name = {"task": task, "method": method}
    return [
        {**name, "half": half, **Estimate(np.nan, np.nan, np.nan, 0, note).row(ALL_SEEDS), "n_seeds": n_seeds}
        for half, note in notes.items()
    ]


def _differences(
    task: str, drawn: dict[tuple[str, str], _Drawn], labels: dict[str, NDArray[np.int64]]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for method, half in drawn:
        if method == REFERENCE or (REFERENCE, half) not in drawn:
            continue
        difference = drawn[method, half].pooled.less(drawn[REFERENCE, half].pooled)
        row: dict[str, Any] = {"task": task, "method": method, "reference": REFERENCE, "half": half}
        row |= difference.estimate(labels[half].size, RANGE_OF_DIFFERENCES).row(ALL_SEEDS)
        row |= {"p": difference.p(), "n_seeds": len(drawn[method, half].points)}
        rows += note_lone_images([row], labels[half])
    return rows
