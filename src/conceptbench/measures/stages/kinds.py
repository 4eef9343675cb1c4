"""Rule measure_kinds: dictionaries over outputs, asked whether one latent unites the members of a named kind."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from conceptbench.data import Dataset, object_table
from conceptbench.dictionaries import Codes
from conceptbench.inference import benjamini_hochberg, permutation_p
from conceptbench.measures.kinds import KindSpec, unite_kinds
from conceptbench.measures.kinds_text import kind_compositions
from conceptbench.measures.resampling import ALL_SEEDS
from conceptbench.measures.stages.encoded import label_columns
from conceptbench.measures.truth import FactorLabels, Side, TruthSpec, sides
from conceptbench.seeds import rng
from conceptbench.tables import read_json

_PLACE = ("backbone", "dictionary")


def measure_kinds(sources: Mapping[str, Path], dataset: Dataset, spec: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Tables kinds and kinds_null of docs/method.md: latents are chosen on ``val`` and scored on ``test``.

    Args:
        sources: backbone -> folder of its dictionaries over outputs. spec: seed, resamples, permutations.

    Returns:
        The tables of `unite_kinds` with backbone, dictionary and seed. Rows with seed ``all`` hold the mean over the
        seeds of a dictionary, and compare it with the same mean for every random group; only they have a q, which
        corrects over kinds and backbones for each dictionary.
    """
    found: dict[str, list[pd.DataFrame]] = {"kinds": [], "kinds_null": []}
    rows = (dataset.rows("val"), dataset.rows("test"))
    objects = object_table(dataset)
    shown = [objects[objects["image"].isin(part)] for part in rows]
    images = (rows[0].tolist(), rows[1].tolist())
    options = KindSpec(n_null=spec["permutations"], n_resamples=spec["resamples"])
    for backbone, folder in sources.items():
        manifest = read_json(folder / "manifest.json")
        for name, seeds in manifest["spec"]["seeds_of"].items():
            for seed in seeds:
                a, b = _sides(Codes.load(folder / name / f"seed{seed}" / "codes.safetensors"), manifest["rows"], rows)
                stream = rng(spec["seed"], "kinds")
                tables = unite_kinds(a, b, shown[0], shown[1], images, kind_compositions(), stream, options)
                ids = {"backbone": backbone, "dictionary": name, "seed": str(seed)}
                for table, kept in zip(tables, found.values(), strict=True):
                    kept.append(label_columns(table, ids))
    kinds, null = (pd.concat(parts, ignore_index=True) for parts in found.values())
    pooled_null = _mean_over_seeds(null, [*_PLACE, "group"], ["estimate"])
    parts = [_pooled(part, pooled_null) for _, part in kinds.groupby([*_PLACE, "kind"], sort=False)]
    pooled = pd.concat(parts, ignore_index=True)
    pooled["q"] = np.nan
    for _, part in pooled[pooled["p"].notna()].groupby("dictionary"):
        pooled.loc[part.index, "q"] = benjamini_hochberg(part["p"].to_numpy())
    kinds = pd.concat([kinds.assign(q=np.nan), pooled], ignore_index=True)
    return {"kinds": kinds, "kinds_null": pd.concat([null, pooled_null], ignore_index=True)}


def _sides(codes: Codes, encoded: list[int], rows: tuple[np.ndarray, np.ndarray]) -> tuple[Side, Side]:
    """Scores of both splits; the images have one token, and no factor is looked at."""
    position = {row: at for at, row in enumerate(encoded)}
    parts = [codes.select_images([position[int(row)] for row in part]) for part in rows]
    labels = [FactorLabels(np.zeros((len(part), 0), np.bool_), ()) for part in rows]
    return sides(parts[0], labels[0], parts[1], labels[1], TruthSpec(prefix_tokens=0))


def _mean_over_seeds(table: pd.DataFrame, names: list[str], values: list[str]) -> pd.DataFrame:
    """One row a group with the mean of `values` over seeds; other columns are those of the first seed."""
    grouped = table.groupby(names, sort=False)
    return grouped.first().assign(**{value: grouped[value].mean() for value in values}, seed=ALL_SEEDS).reset_index()


def _pooled(rows: pd.DataFrame, null: pd.DataFrame) -> pd.DataFrame:
    """The mean over seeds of one kind, its interval over seeds and images, and where it lies among random groups."""
    pooled = _mean_over_seeds(rows, [*_PLACE, "kind"], ["estimate", "selected"])
    own = null[(null[list(_PLACE)] == pooled.loc[0, list(_PLACE)]).all(axis=1)]["estimate"].to_numpy()
    point = float(pooled["estimate"].to_numpy()[0])
    pooled["low"], pooled["high"] = _over_seeds(rows)
    if len(own) and np.isfinite(point):
        found = {"null_median": np.median(own), "null_high": np.quantile(own, 0.95), "p": permutation_p(point, own)}
        pooled = pooled.assign(**{name: float(value) for name, value in found.items()})
    single = len(rows) == 1
    return pooled if single else pooled.assign(latent=-1, weakest_member="")


def _over_seeds(rows: pd.DataFrame) -> tuple[float, float]:
    """Interval of a mean over seeds: half-widths over images, which all seeds share, widened by the spread of seeds.

    All seeds share the images, so their part does not shrink with the number of seeds; the standard error of the mean
    over seeds is added to it in quadrature.
    """
    spread = 1.96 * float(rows["estimate"].std(ddof=1)) / np.sqrt(len(rows)) if len(rows) > 1 else 0.0
    point = float(rows["estimate"].mean())
    below, above = float((rows["estimate"] - rows["low"]).mean()), float((rows["high"] - rows["estimate"]).mean())
    return point - float(np.hypot(below, spread)), point + float(np.hypot(above, spread))
