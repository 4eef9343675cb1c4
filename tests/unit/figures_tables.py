"""Made-up but realistic tables for the tests of the figures."""

from itertools import product

import numpy as np
import pandas as pd

from conceptbench.figures.exemplars import ExemplarSheet

FACTORS = {
    "shape": ("circle", "square", "triangle", "cross", "ring", "star", "crescent", "hexagon"),
    "colour": ("red", "green", "blue", "yellow", "orange", "purple", "cyan", "white"),
    "fill": ("solid", "striped", "dotted", "outlined"),
    "size": ("small", "large"),
    "place": ("top left", "top right", "bottom left", "bottom right", "centre"),
    "background": ("plain", "dark", "sky", "sand", "grass", "brick"),
}
PLACES = (("clip-tiny", 2), ("clip-tiny", 4), ("image-tiny", 4), ("random-tiny", 4))
DICTIONARIES = ("topk", "relu-l1", "random", "raw", "pca")
SEEDS = ("0", "1", "2")


def estimate(value: float, half: float, n: int = 500, seed: str = "0", note: str = "") -> dict[str, object]:
    return {"estimate": value, "low": value - half, "high": value + half, "n": n, "seed": seed, "note": note}


def unknown(note: str, seed: str = "all") -> dict[str, object]:
    nan = float("nan")
    return {"estimate": nan, "low": nan, "high": nan, "n": 500, "seed": seed, "note": note}


def ids(backbone: str, block: int, dictionary: str) -> dict[str, object]:
    return {"backbone": backbone, "block": block, "dictionary": dictionary}


def latents(width: int = 300, datasets=("scenes", "flora"), places=PLACES, dictionaries=DICTIONARIES) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    frames = []
    for (backbone, block), dictionary, dataset in product(places, dictionaries, datasets):
        frequency = 10 ** np.clip(rng.normal(-1.4, 0.8, width), -3.4, 0)
        dead = rng.random(width) < 0.07
        frames.append(
            pd.DataFrame(
                {
                    **ids(backbone, block, dictionary),
                    "seed": "0",
                    "dataset": dataset,
                    "latent": np.arange(width),
                    "frequency_image": np.where(dead, 0, frequency),
                    "frequency_token": np.where(dead, 0, frequency / 5),
                    "mean_activation": np.where(
                        dead, 0, 10 ** (rng.normal(-1.5, 0.5, width) + 0.3 * np.log10(frequency))
                    ),
                    "label_entropy": np.where(dead | (dataset == "scenes"), np.nan, rng.uniform(0, 2.3, width)),
                    "n_reference": np.where(dead, 0, 10),
                    "dead": dead,
                    "dense": frequency > 0.6,
                }
            )
        )
    return pd.concat(frames, ignore_index=True)


def _quality(backbone: str, block: int, dictionary: str) -> float:
    base = {"clip-tiny": 0.94, "image-tiny": 0.86, "random-tiny": 0.7}[backbone] - (0.03 if block == 2 else 0)
    return base - {"topk": 0, "relu-l1": 0.02, "random": 0.14, "raw": 0.12, "pca": 0.1}[dictionary]


def truth_factors(seeds=SEEDS) -> pd.DataFrame:
    rng = np.random.default_rng(2)
    rows = []
    for (backbone, block), dictionary, seed in product(PLACES, DICTIONARIES, seeds):
        latent = 0
        for factor, values in FACTORS.items():
            for value in values:
                latent += 3
                for metric in ("auroc", "average_precision"):
                    point = float(np.clip(_quality(backbone, block, dictionary) + rng.normal(0, 0.05), 0.5, 0.998))
                    row = {**ids(backbone, block, dictionary), "factor": factor, "value": value, "metric": metric}
                    row |= {"latent": latent, "sign": 1, "score": "max", "selected": min(point + 0.01, 1.0)}
                    row |= estimate(point, 0.015, seed=seed)
                    if (factor, value) == ("background", "brick") and dictionary == "topk":
                        row |= unknown("fewer than 5 images with or without it on a split", seed) | {"latent": -1}
                    rows.append(row)
    return pd.DataFrame(rows)


def truth_summary(seeds=SEEDS) -> pd.DataFrame:
    rows = []
    for (backbone, block), dictionary in product(PLACES, DICTIONARIES):
        quality = _quality(backbone, block, dictionary)
        shares = {
            "mean_auroc": quality,
            "recovered_at_0.90": max(0, 3 * quality - 2.1),
            "recovered_at_0.95": max(0, 3 * quality - 2.4),
        }
        for statistic, value in shares.items():
            name = {**ids(backbone, block, dictionary), "level": "image", "statistic": statistic}
            for index, seed in enumerate(seeds):
                rows.append(name | estimate(value + 0.01 * (index - 1), 0.02, seed=seed))
            rows.append(name | estimate(value, 0.025, seed="all"))
    return pd.DataFrame(rows)


def truth_comparison() -> pd.DataFrame:
    """Every null of every hook point against the best, as the measure writes it."""
    rows = []
    for statistic, (backbone, block), dictionary in product(("mean_auroc", "recovered_at_0.90"), PLACES, DICTIONARIES):
        if dictionary in ("topk", "relu-l1") and backbone != "random-tiny":
            continue
        kind = "random backbone" if backbone == "random-tiny" else dictionary
        row = {**ids("clip-tiny", 4, "topk"), "level": "image", "statistic": statistic}
        row |= {"null_backbone": backbone, "null_block": block, "null_dictionary": dictionary, "null_kind": kind}
        row |= {"best_estimate": 0.94, "null_estimate": 0.8, "p": 0.001, "q": 0.004}
        gap = _quality("clip-tiny", 4, "topk") - _quality(backbone, block, dictionary)
        rows.append(row | estimate(gap, 0.02, seed="all"))
    return pd.DataFrame(rows)


def accuracy(tasks=("flora", "terra"), seeds=SEEDS) -> pd.DataFrame:
    rng = np.random.default_rng(3)
    level = {"zero-shot": (0.22, 0.31), "linear-probe": (0.86, None), "maple": (0.71, 0.28)}
    rows = []
    for task, (method, (base, novel)) in product(tasks, level.items()):
        for half, value in (
            ("base", base),
            ("novel", novel),
            ("harmonic_mean", None if novel is None else 2 * base * novel / (base + novel)),
        ):
            name = {"task": task, "method": method, "half": half, "n_seeds": len(seeds)}
            if value is None:
                rows.append(name | unknown("a linear probe has no weights for novel classes"))
                continue
            used = seeds[:1] if method == "zero-shot" else seeds
            rows += [name | estimate(value + rng.normal(0, 0.02), 0.03, seed=seed) for seed in used]
            rows.append(name | estimate(value, 0.04, seed="all"))
    return pd.DataFrame(rows)


def overlap(tasks=("flora", "terra"), methods=("maple",), ks=(10, 25, 50, 100)) -> pd.DataFrame:
    rows = []
    start = {"gap": 0.3, "adapted": 0.55, "adapted_halves": 0.5, "null_halves": 0.82, "null_class": 0.3}
    for task, method, half, (comparison, value) in product(tasks, methods, ("base", "novel"), start.items()):
        for label, name in ((-1, "all"), (0, "crow-footed bellwort"), (1, "pale tansy")):
            common = {
                "task": task,
                "method": method,
                "half": half,
                "label": label,
                "class_name": name,
                "comparison": comparison,
            }
            for index, k in enumerate(ks):
                rows.append(
                    common | {"k": k, "statistic": "jaccard"} | estimate(value + 0.03 * index, 0.03, seed="all")
                )
            rows.append(common | {"k": 0, "statistic": "rank_correlation"} | estimate(value + 0.1, 0.02, seed="all"))
    return pd.DataFrame(rows)


def decomposition(tasks=("flora", "terra"), methods=("maple",)) -> pd.DataFrame:
    rows = []
    for task, method, half, variant, outcome, players in product(
        tasks, methods, ("base", "novel"), ("averaged", "own"), ("accuracy", "log_likelihood"), (2, 3)
    ):
        gain = 0.5 if half == "base" else -0.01
        seen = 0.62 if variant == "averaged" else 0.7
        parts = (
            {"perception": seen, "mapping": 1 - seen}
            if players == 2
            else {"perception": seen, "blocks": 0.1, "text": 0.9 - seen}
        )
        name = {
            "task": task,
            "method": method,
            "half": half,
            "variant": variant,
            "outcome": outcome,
            "players": players,
        }
        rows.append(name | {"part": "gain"} | estimate(gain, 0.05, seed="all"))
        for part, share in parts.items():
            rows.append(name | {"part": part} | estimate(gain * share, 0.04, seed="all"))
            value = estimate(share, 0.08, seed="all")
            if half == "novel":
                value = unknown("the gain is not distinguishable from 0 (interval -0.06 to 0.04)")
            rows.append(name | {"part": f"{part}_share"} | value)
    return pd.DataFrame(rows)


def exemplars(count: int = 6, k: int = 5, size: int = 64, grid: int = 8) -> ExemplarSheet:
    rng = np.random.default_rng(4)
    images = np.full((count, k, size, size, 3), 90, dtype=np.uint8)
    images[...] = rng.integers(60, 140, (count, k, 1, 1, 3))
    maps = np.zeros((count, k, grid, grid), dtype=np.float32)
    for latent, rank in product(range(count), range(k)):
        row, column = rng.integers(0, grid - 2, 2)
        cell = size // grid
        box = (slice(row * cell, (row + 3) * cell), slice(column * cell, (column + 3) * cell))
        images[latent, rank][box] = rng.integers(0, 255, 3)
        maps[latent, rank, row : row + 3, column : column + 3] = rng.random(
            (min(3, grid - row), min(3, grid - column))
        ) * (1 - 0.1 * rank)
    maps[-1, -1] = np.nan
    images[-1, -1] = 0
    titles = ("colour = red", "shape = crescent", "fill = striped", "place = bottom right", "background = grass")
    return ExemplarSheet(
        images=images,
        maps=maps,
        latent=np.arange(count) * 97,
        score=rng.random((count, k)),
        image=rng.integers(0, 4096, (count, k)),
        title=np.array([titles[i % 5] for i in range(count)]),
        note="Latents of clip-tiny, block 4, topk, seed 0, on scenes (split val): for each factor in turn the value "
        "with the largest AUROC on split A.",
    )


def zero_shot() -> pd.DataFrame:
    values = {
        "colour": 0.99,
        "background": 1.0,
        "shape": 0.79,
        "fill": 0.91,
        "size": 0.83,
        "place": 0.71,
        "recall_at_1": 0.8,
    }
    rows = [
        {"backbone": "clip-tiny", "factor": factor, "images": images, "chance": 0.125} | estimate(value - drop, 0.02)
        for factor, value in values.items()
        for images, drop in (("common compositions", 0.0), ("held-out compositions", 0.06))
        if not (factor == "recall_at_1" and drop)
    ]
    return pd.DataFrame(rows)


def kinds(backbones=("clip-tiny", "image-tiny"), seeds=("all",)) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(5)
    rows, null = [], []
    for backbone, seed in product(backbones, seeds):
        name = {"backbone": backbone, "dictionary": "topk", "seed": seed}
        for kind in ("wug", "dax", "blick", "fep"):
            value = rng.normal(0.88 if backbone == "clip-tiny" else 0.6, 0.03)
            row = {**name, "kind": kind, "latent": 3, "null_median": 0.58, "null_high": 0.72, "q": 0.02}
            rows.append(row | estimate(value, 0.05, seed=seed))
        null += [{**name, "group": g, "n_members": 3, "estimate": rng.normal(0.58, 0.06)} for g in range(60)]
    return pd.DataFrame(rows), pd.DataFrame(null)


def pareto(places=PLACES) -> pd.DataFrame:
    rows = []
    for (backbone, block), (at, dictionary) in product(places, enumerate(DICTIONARIES)):
        role = "null" if dictionary in ("random", "raw", "pca") else "learned"
        name = {**ids(backbone, block, dictionary), "configured": dictionary, "family": dictionary, "role": role}
        name |= {"width": 64}
        name |= {"on_front": at == 0}
        values = {"fvu": 0.1 * (at + 1), "l0": 8.0 * (at + 1), "recovered_energy": 1 - 0.1 * (at + 1)}
        for statistic, value in (values | {"recovered_norm": 0.6 - 0.1 * at}).items():
            rows.append(name | {"statistic": statistic} | estimate(value, 0.02, n=3, seed="all"))
            rows.append(name | {"statistic": statistic} | unknown("one seed", "0") | {"estimate": value})
    return pd.DataFrame(rows)


def stability(places=PLACES) -> pd.DataFrame:
    rows = []
    values = {"mcc": 0.5, "energy_mcc": 0.7, "floor_random": 0.2, "floor_shuffled": 0.3, "shared_decoder": 0.3}
    values |= {"floor_energy_mcc": 0.35, "floor_shared_decoder": 0.01, "floor_shared_both": 0.0}
    values |= {f"floor_frequency_{quarter}": 0.1 * quarter for quarter in (1, 2, 3, 4)}
    values |= {"shared_both": 0.1, **{f"frequency_{quarter}": 0.2 * quarter for quarter in (1, 2, 3, 4)}}
    for (backbone, block), dictionary, runs in product(places, ("topk", "random"), ("seeds", "halves")):
        name = {**ids(backbone, block, dictionary), "family": dictionary, "runs": runs, "matching": "assignment"}
        for statistic, value in values.items():
            rows.append(name | {"statistic": statistic} | estimate(value, 0.03, n=3, seed="all"))
            rows.append(name | {"statistic": statistic} | unknown("one pair of runs", "0 and 1") | {"estimate": value})
    return pd.DataFrame(rows)


def monosemanticity(places=PLACES[:2]) -> tuple[pd.DataFrame, pd.DataFrame]:
    rng = np.random.default_rng(6)
    latents, summary = [], []
    for (backbone, block), dictionary in product(places, ("topk", "random")):
        name = ids(backbone, block, dictionary) | {"family": dictionary}
        firing = rng.integers(5, 500, 40)
        table = {"latent": np.arange(40), "firing_images": firing, "excess": rng.normal(0.1, 0.05, 40), "q": 0.01}
        note = np.where(firing < 20, "fires on fewer than 20 images", "")
        latents.append(pd.DataFrame({**name, "seed": "0", **table, "note": note}))
        name |= {"embedding": "image-tiny"}
        for statistic, value in (("mean_excess", 0.1), ("median_z", 5.0), ("significant_share", 0.8)):
            rows = [estimate(value, 0.02, seed="0"), estimate(value, 0.02, seed="all")]
            summary += [name | {"statistic": statistic} | row for row in rows]
            permuted = {"statistic": f"permuted_{statistic}", **unknown("one permutation"), "estimate": 0.0}
            summary.append(name | permuted)
    return pd.concat(latents, ignore_index=True), pd.DataFrame(summary)


def densities(places=PLACES[:2]) -> tuple[pd.DataFrame, pd.DataFrame]:
    cards, bins = [], []
    for (backbone, block), dictionary, seed in product(places, ("topk", "random"), ("0", "1")):
        name = ids(backbone, block, dictionary) | {"seed": seed}
        shares = {"dead_share": 0.1, "dense_share": 0.02, "cosine": 0.9, "coherence": 0.8, "nearest_atom": np.nan}
        cards.append(name | {"method": dictionary} | shares)
        for low, share in ((-3.0, 0.2), (-2.0, 0.5), (-1.0, 0.3)):
            bins.append(name | {"log10_from": low, "log10_to": low + 1.0, "latents": int(100 * share), "share": share})
    return pd.DataFrame(cards), pd.DataFrame(bins)


def leaderboard() -> pd.DataFrame:
    rows = []
    for rank, dictionary in enumerate(DICTIONARIES, start=1):
        role = "null" if rank > 2 else "learned"
        name = {**ids("clip-tiny", 4, dictionary), "family": dictionary, "role": role, "rank": rank}
        name |= {"criterion": "recovered_above_null"}
        for column, value, floor in (
            ("recovered_above_null", 0.4, 0.0),
            ("fvu_at_equal_l0", 0.1, 0.7),
            ("l0", 8, None),
        ):
            beside = {
                "null_dictionary": "" if floor is None else "pca",
                "null_estimate": floor,
                "beats_null": rank == 1,
            }
            rows.append({**name, "column": column, **estimate(value / rank, 0.02, seed="all"), **beside})
    return pd.DataFrame(rows).astype({"null_estimate": float})


def runtime() -> pd.DataFrame:
    rules = ("prepare_dataset", "record_activations", "learn_dictionaries", "encode_codes", "adapt", "record_adapted")
    seconds = dict(zip(rules, (12, 41, 160, 33, 210, 25), strict=True))
    return pd.DataFrame(
        [
            {"rule": r, "jobs": 1 + i % 3, "seconds": float(s), "startup_seconds": 2.5}
            for i, (r, s) in enumerate(seconds.items())
        ]
    )
