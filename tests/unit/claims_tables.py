"""Small tables with the columns of the measures, whose verdicts are known by construction."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd

from conceptbench.measures.claims.verdict import About, Verdict

TASKS = {"flora": "flora", "terra": "terra"}
KS = (0, 1, 10, 100, 1024)
WIDE, NARROW = 0.3, 0.001


def about(**changes: Any) -> About:
    """The experiment that the tables belong to."""
    options: dict[str, Any] = {
        "backbone": "tiny",
        "block": 4,
        "dictionary": "topk",
        "dictionaries": {
            "topk": {"method": "topk", "width": 1024},
            "random": {"method": "random", "width": 1024},
            "sparse": {"method": "relu-l1", "width": 1024, "l1": 0.002},
        },
        "adaptation": "maple",
        "prompts": ("maple",),
        "tasks": TASKS,
        "train_on": "scenes",
        "seed": 0,
        "resamples": 200,
    }
    return About(**options | changes)


def verdicts(found: Iterable[Verdict]) -> list[str]:
    """What each part was judged to be."""
    return [verdict.verdict for verdict in found]


def only(found: Iterable[Verdict]) -> Verdict:
    """The one part that there is."""
    (verdict,) = list(found)
    assert isinstance(verdict, Verdict)
    return verdict


def estimate(value: float, half_width: float = NARROW, n: int = 100, seed: str = "all") -> dict[str, Any]:
    return {"estimate": value, "low": value - half_width, "high": value + half_width, "n": n, "seed": seed, "note": ""}


def curve(values: Mapping[int, float], half_width: float = NARROW, **names: Any) -> list[dict[str, Any]]:
    """Rows of a masking table for the zero-shot model with its own ranking, replacing edit, dense latents kept."""
    head = {"task": "flora", "half": "base", "model": "zero-shot", "selected_by": "zero-shot", "edit": "replace"}
    head |= {"dense": "kept", "outcome": "accuracy"}
    return [head | names | {"k": k} | estimate(value, half_width) for k, value in values.items()]


ACCURACY = {
    ("true", "off"): (0.80, 0.70, 0.40, 0.15, 0.10),
    ("wrong", "off"): (0.80, 0.79, 0.75, 0.50, 0.10),
    ("matched", "off"): (0.80, 0.78, 0.70, 0.50, 0.10),
    ("random", "off"): (0.80, 0.80, 0.799, 0.75, 0.10),
    ("dataset", "off"): (0.80, 0.79, 0.78, 0.40, 0.10),
    ("true", "on"): (0.10, 0.20, 0.30, 0.75, 0.80),
    ("predicted", "on"): (0.10, 0.15, 0.25, 0.70, 0.80),
    ("matched", "on"): (0.10, 0.12, 0.20, 0.40, 0.80),
    ("matched-predicted", "on"): (0.10, 0.12, 0.20, 0.45, 0.80),
    ("matched-dataset", "off"): (0.80, 0.79, 0.77, 0.50, 0.10),
    ("random", "on"): (0.10, 0.10, 0.10, 0.15, 0.80),
    ("pca", "on"): (0.10, 0.11, 0.50, 0.81, np.nan),
    ("pca", "off"): (0.82, 0.50, 0.20, 0.10, np.nan),
}
UNEDITED = 0.82
CONTRASTS = {
    "true-matched": ("true", "matched"),
    "true-wrong": ("true", "wrong"),
    "true-random": ("true", "random"),
    "predicted-matched": ("predicted", "matched-predicted"),
}


def masking(accuracy: Mapping[tuple[str, str], Iterable[float]] | None = None) -> dict[str, pd.DataFrame]:
    """The four masking tables of flora; every claim about them holds unless `accuracy` says otherwise."""
    of = {key: dict(zip(KS, values, strict=True)) for key, values in {**ACCURACY, **(accuracy or {})}.items()}
    curves, changes, contrasts = [], [], []
    for (selection, direction), values in of.items():
        names = {"selection": selection, "direction": direction}
        start = of[selection, "off"][0] if (selection, "off") in of else UNEDITED
        for dense in ("kept", "filtered"):
            curves += curve(values, **names, dense=dense)
            for against, base in (("start", start), ("unedited", UNEDITED)):
                changed = {k: value - base for k, value in values.items()}
                changes += curve(changed, **names, dense=dense, against=against)
            for name, (one, other) in CONTRASTS.items():
                if one == selection and (other, direction) in of:
                    gap = {k: value - of[other, direction][k] for k, value in values.items()}
                    contrasts += curve(gap, dense=dense, selection=name, direction=direction)
    curves += curve({0: 0.05}, selection="true", direction="off", outcome="kl")
    for model, by in (("zero-shot", "maple"), ("maple", "zero-shot")):
        same = dict.fromkeys(KS, 0.002)
        crossed = {"model": model, "selected_by": by, "selection": "true", "direction": "on"}
        changes += curve(same, **crossed, against="own-ranking")
    moved = {"model": "maple", "selected_by": "maple", "selection": "true", "direction": "on"}
    changes += curve({0: -0.1, 1: -0.1, 10: 0.1, 100: 0.2, 1024: 0.1}, **moved, against="zero-shot")
    hits = {"direction": "", "outcome": "active_latents"}
    balance = [row for name in ("random", "dataset") for row in curve({1: 0.1, 10: 2.0}, selection=name, **hits)]
    tables = {"masking": curves, "masking_changes": changes, "masking_contrasts": contrasts, "masking_balance": balance}
    return {name: pd.DataFrame(rows) for name, rows in tables.items()}


def dictionaries(l0: Mapping[str, float], fvu: Mapping[int, float] | None = None) -> pd.DataFrame:
    """Three seeds of each dictionary at blocks 2 and 4; L0 falls by one from block 2 to block 4."""
    errors = fvu or {2: 0.1, 4: 0.2}
    rows = []
    for block, error in errors.items():
        for name, value in l0.items():
            for seed in range(3):
                ids = {"backbone": "tiny", "block": block, "dictionary": name, "seed": str(seed)}
                values = {"fvu": error + 0.001 * seed, "l0": value + (4 - block) / 2 + 0.01 * seed, "dead_share": 0.1}
                rows.append(ids | values)
    return pd.DataFrame(rows)


def overlap(
    adapted: Mapping[str, float], ranks: Mapping[str, float], gaps: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """Jaccard@50 and rank correlation by task, with ten classes; what is lost beyond resampling is 0.9 less them."""
    rows = []
    for task, value in adapted.items():
        head = {"task": task, "method": "maple", "half": "base"}
        for label in range(10):
            rows.append(
                head | {"label": label, "statistic": "jaccard", "k": 50, "comparison": "adapted"} | estimate(value)
            )
        of = {"adapted": value, "null_class": 0.4, "gap": (gaps or {}).get(task, 0.9 - value)}
        for name, of_name in of.items():
            rows.append(head | {"label": -1, "statistic": "jaccard", "k": 50, "comparison": name} | estimate(of_name))
        for name, of_name in {"adapted": ranks[task], "gap": 0.98 - ranks[task]}.items():
            row = {"label": -1, "statistic": "rank_correlation", "k": 0, "comparison": name}
            rows.append(head | row | estimate(of_name))
    return pd.DataFrame(rows)


def regions(
    low_to_high: Mapping[str, Iterable[float]], high: float = 40.0, on_halves: Mapping[str, float] | None = None
) -> pd.DataFrame:
    """Region counts of every class of every task, for two seeds and as means.

    On halves of the images `on_halves` more latents of a task go from low to high, for which there are 0.2 by chance.
    """
    rows = []
    for task, values in low_to_high.items():
        counts = list(values)
        head = {"task": task, "method": "maple", "half": "base"}
        more = (on_halves or {}).get(task, 0.0)
        for comparison in ("adapted", "null_halves", "adapted_halves", "gap"):
            level = {"null_halves": 0.2, "adapted_halves": 0.2 + more, "gap": -more}
            new = [level[comparison]] * len(counts) if comparison in level else counts
            for label, count in enumerate(new):
                of = {"high": high, "high_to_low": 0.1, "low_to_high": count}
                for seed in ("0", "1"):
                    rows += [
                        head | {"label": label, "comparison": comparison, "region": name} | estimate(value, seed=seed)
                        for name, value in of.items()
                    ]
            pooled = {"label": -1, "comparison": comparison, "region": "low_to_high"}
            rows.append(head | pooled | estimate(float(np.mean(new)), 0.1))
    return pd.DataFrame(rows)


def hybrids(
    gains: Mapping[str, Iterable[float]], images: int = 100, half: str = "base", first: int = 0
) -> pd.DataFrame:
    """Zero-shot accuracy 0.2 in every class, adapted accuracy higher by the class's gain."""
    rows = []
    for task, values in gains.items():
        for label, gain in enumerate(values, first):
            for state, accuracy in (("zero-shot", 0.2), ("adapted", 0.2 + gain)):
                head = {
                    "task": task,
                    "method": "maple",
                    "variant": "averaged",
                    "label": label,
                    "seed": "0",
                    "half": half,
                }
                head |= {"source": state, "blocks": state, "text": state}
                rows += [
                    head | {"image": image, "correct": image < round(images * accuracy)} for image in range(images)
                ]
    return pd.DataFrame(rows)


def statistics(points: np.ndarray, task: str, dictionary: str = "topk", seeds: int = 3) -> pd.DataFrame:
    """Latents with given (log frequency, log mean activation), alike in every seed."""
    head = {"backbone": "tiny", "block": 4, "dictionary": dictionary, "dataset": task}
    frame = pd.DataFrame({"frequency_image": np.exp(points[:, 0]), "mean_activation": np.exp(points[:, 1])})
    frame = frame.assign(latent=np.arange(len(points)), dead=False, dense=False, n_reference=4, **head)
    return pd.concat([frame.assign(seed=str(seed)) for seed in range(seeds)], ignore_index=True)


def exemplars(labels: np.ndarray, task: str, dictionary: str = "topk", seeds: int = 3) -> pd.DataFrame:
    """Exemplars [latent, rank] of given labels: the image of label c and rank r has the number 10 c + r."""
    latent, rank = np.indices(labels.shape)
    frame = pd.DataFrame({"latent": latent.ravel(), "rank": rank.ravel(), "label": labels.ravel(), "score": 1.0})
    frame["image"] = 10 * frame["label"] + frame["rank"]
    head = {"backbone": "tiny", "block": 4, "dictionary": dictionary, "dataset": task}
    return pd.concat([frame.assign(seed=str(seed), **head) for seed in range(seeds)], ignore_index=True)


def differences(base: float, novel: float, seeds: int = 3, method: str = "maple") -> pd.DataFrame:
    """What a method changes on base and novel classes of flora."""
    head = {"task": "flora", "method": method, "n_seeds": seeds}
    values = {"base": base, "novel": novel}
    return pd.DataFrame([head | {"half": half} | estimate(value, 0.01) for half, value in values.items()])
