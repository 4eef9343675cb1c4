"""Rule measure_association: which latents speak for which class before and after adaptation, and how far that moved."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from tqdm import tqdm

from conceptbench.adaptation import Adapter
from conceptbench.backbones import Backbone
from conceptbench.data import Dataset
from conceptbench.dictionaries import Dictionary
from conceptbench.inference import Estimate
from conceptbench.measures.association import Effects, correlation, exact_effects, first_order, remapping
from conceptbench.measures.association_shown import association_rows, split_halves
from conceptbench.measures.resampling import ALL_SEEDS, costly_resamples, joint_interval
from conceptbench.measures.stages.association_pictures import Shown, picture
from conceptbench.measures.stages.models import (
    SPLIT_B,
    ZERO_SHOT,
    Images,
    Model,
    heading,
    read_out,
    run_model,
    trained_half,
)
from conceptbench.seeds import rng

TABLES: Final = ("association", "association_shown", "remapping", "association_agreement")
EXACT_IMAGES: Final = 48
"""Images on which a latent is removed for the exact effect, at most."""
FOLLOWED, RELEARNT = "followed", "adapted"
"""Dictionaries: the one that the measures follow, and the same method learnt on the adapted model."""


def measure_association(
    task: str,
    backbone: Backbone,
    dataset: Dataset,
    adapters: Mapping[str, Mapping[int, Adapter]],
    followed: Mapping[int, Dictionary],
    adapted: Mapping[str, Mapping[int, Dictionary]],
    spec: Mapping[str, Any],
) -> tuple[dict[str, pd.DataFrame], dict[str, NDArray[Any]]]:
    """The tables `TABLES` of one task (docs/method.md, section 14), and pictures.

    Args:
        adapters: zero-shot first, then methods -> seed. adapted: method -> seed -> dictionary learnt on that model.

    Pictures are the exemplars of the latents that rose or fell most for the class that was remapped most, of the first
    seed and the adaptation `spec["shown"]` (`association_pictures`).
    """
    images = trained_half(task, dataset, spec["setting"], spec["concepts"]["images"], spec["seed"])
    parts: dict[str, list[pd.DataFrame]] = {name: [] for name in TABLES}
    pictures: dict[str, NDArray[Any]] = {}
    for seed, dictionary in tqdm(followed.items(), desc=f"association on {task}", unit="seed"):
        before = run_model(backbone, adapters[ZERO_SHOT][seed], dataset, images, spec["block"], dictionary)
        plain = _effects(before, dictionary)
        parts["association_agreement"].append(_agreement(before, plain, dictionary, images, ZERO_SHOT, seed, spec))
        halves = split_halves(before.activations[SPLIT_B].targets, rng(spec["seed"], "association", task, "halves"))
        for method in (name for name in adapters if name != ZERO_SHOT):
            after = _model(before, backbone, adapters[method][seed], dataset, images, dictionary, spec)
            effects, head = _effects(after, dictionary), heading(images, method=method)
            if after.activations is not before.activations:
                parts["association_agreement"].append(
                    _agreement(after, effects, dictionary, images, method, seed, spec)
                )
            parts["remapping"].append(_remapping(plain, effects, images, head | {"dictionary": FOLLOWED}, seed, spec))
            parts["association"].append(
                pd.DataFrame(
                    head | _named(images, label) | row | {"seed": str(seed)}
                    for label, row in association_rows(plain, effects, halves)
                )
            )
            if method == spec["shown"] and seed == next(iter(followed)):
                shown = Shown((before, after), (plain, effects), dictionary, halves, images, head)
                table, pictures = picture(shown, str(seed), dataset, spec)
                parts["association_shown"].append(table)
        for method, of_seed in adapted.items():
            again, head = of_seed[seed], heading(images, method=method, dictionary=RELEARNT)
            of_zero_shot, of_method = (
                _effects(run_model(backbone, adapters[name][seed], dataset, images, spec["block"], again), again)
                for name in (ZERO_SHOT, method)
            )
            parts["remapping"].append(_remapping(of_zero_shot, of_method, images, head, seed, spec))
    parts["remapping"].append(pooled_remapping(parts["remapping"], costly_resamples(spec["resamples"])))
    return {name: pd.concat(frames, ignore_index=True) for name, frames in parts.items()}, pictures


def _model(
    before: Model,
    backbone: Backbone,
    adapter: Adapter,
    dataset: Dataset,
    images: Images,
    dictionary: Dictionary,
    spec: Mapping[str, Any],
) -> Model:
    """The adapted model; one that leaves the image tower alone shares activations and codes with zero-shot."""
    if not adapter.moves_images:
        return read_out(before, adapter, dataset, images)
    return run_model(backbone, adapter, dataset, images, spec["block"], dictionary)


def _effects(model: Model, dictionary: Dictionary) -> Effects:
    return first_order(model.readout, model.activations[SPLIT_B], dictionary, model.codes[SPLIT_B])


def _named(images: Images, label: int) -> dict[str, Any]:
    return {"label": images.candidates[label], "class_name": images.class_names[label]}


def _agreement(
    model: Model,
    effects: Effects,
    dictionary: Dictionary,
    images: Images,
    name: str,
    seed: int,
    spec: Mapping[str, Any],
) -> pd.DataFrame:
    """The correlation of first-order and exact effects over (latent, class) for the top latents of each class.

    Intervals draw the latents anew, with all their classes: they say how far the number depends on which latents it was
    computed for.
    """
    stream = rng(spec["seed"], "association", images.task, name, seed)
    whole = effects.association(np.full((1, len(effects.fires)), 1 / len(effects.fires)))[0]
    order = np.argsort(-np.abs(np.nan_to_num(whole)), axis=1, kind="stable")[:, : spec["concepts"]["exact"]]
    columns = np.unique(order)
    scored, codes = model.activations[SPLIT_B], model.codes[SPLIT_B]
    latents = effects.latents[columns].tolist()
    exact = exact_effects(model.readout, scored, dictionary, codes, latents, EXACT_IMAGES, stream)
    removed = np.stack([change.mean(axis=0) for _, change in exact.values()])
    approximate = np.stack(
        [effects.effect[rows, :, at].mean(axis=0) for at, (rows, _) in zip(columns, exact.values(), strict=True)]
    )
    n = len(columns)
    drawn = stream.integers(0, n, (costly_resamples(spec["resamples"]), n))
    row: dict[str, Any] = {}
    for prefix, one, other in (
        ("", removed, approximate),
        ("between_classes", *(values - values.mean(axis=1, keepdims=True) for values in (removed, approximate))),
    ):
        point = float(correlation(one.ravel(), other.ravel()))
        again = correlation(one[drawn].reshape(len(drawn), -1), other[drawn].reshape(len(drawn), -1))
        known = np.isfinite(again).all() and n > 1
        low, high = np.quantile(again, (0.025, 0.975)) if known else (np.nan, np.nan)
        if not prefix:
            row |= Estimate(point, float(low), float(high), n, "" if known else "too few latents").row(seed)
        else:
            row |= {prefix: point, f"{prefix}_low": low, f"{prefix}_high": high}
    return pd.DataFrame([heading(images, model=name) | row])


def _remapping(
    before: Effects, after: Effects, images: Images, head: Mapping[str, Any], seed: int, spec: Mapping[str, Any]
) -> pd.DataFrame:
    """Remapping of every class and their mean (label -1), of one seed."""
    names = (head["method"], *([RELEARNT] if head["dictionary"] == RELEARNT else []))
    stream = rng(spec["seed"], "remapping", images.task, *names, seed)
    resamples = costly_resamples(spec["resamples"])
    classes, mean = remapping(before, after, spec["concepts"]["halvings"], resamples, stream)
    rows = [dict(head) | _named(images, at) | estimate.row(seed) for at, estimate in enumerate(classes)]
    return pd.DataFrame([*rows, dict(head) | {"label": -1, "class_name": "all"} | mean.row(seed)])


def pooled_remapping(parts: Sequence[pd.DataFrame], resamples: int) -> pd.DataFrame:
    """Means over seeds: the mean variance within seeds, and for several seeds that between them over their number.

    The variance within a seed is not divided by the number of seeds, because all are scored on the same images.

    Args:
        parts: rows of each seed, +- 1.96 standard deviations from so many `resamples`.
    """
    frame = pd.concat(parts, ignore_index=True)
    keys = ["task", "method", "half", "dictionary", "label", "class_name"]
    rows = []
    for names, group in frame.groupby(keys, sort=False):
        within = float(((group["high"] - group["low"]) / 2 / 1.96).pow(2).mean())
        variances = [(within, max(resamples - 1, 1))]
        if len(group) > 1:
            variances.append((float(group["estimate"].var(ddof=1)) / len(group), len(group) - 1))
        point, n = float(group["estimate"].mean()), int(group["n"].iloc[0])
        estimate = joint_interval(point, variances, n)
        rows.append(dict(zip(keys, names, strict=True)) | estimate.row(ALL_SEEDS))
    return pd.DataFrame(rows)
