"""Rule measure_kinds: dictionaries over outputs, asked whether one latent unites the members of a named kind."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from conceptbench.data import Dataset, object_table
from conceptbench.dictionaries import Codes
from conceptbench.inference import benjamini_hochberg
from conceptbench.measures.kinds import KindSpec, unite_kinds
from conceptbench.measures.kinds_text import kind_compositions
from conceptbench.measures.resampling import MOST_GROUPS
from conceptbench.measures.stages.encoded import label_columns
from conceptbench.measures.truth import FactorLabels, Side, TruthSpec, sides
from conceptbench.seeds import rng
from conceptbench.tables import read_json


def measure_kinds(sources: Mapping[str, Path], dataset: Dataset, spec: Mapping[str, Any]) -> dict[str, pd.DataFrame]:
    """Tables kinds and kinds_null of docs/method.md: latents are chosen on ``val`` and scored on ``test``.

    Args:
        sources: backbone -> folder of its dictionaries over outputs. spec: seed, resamples, permutations.

    Returns:
        The tables of `unite_kinds` with backbone, dictionary and seed; q corrects over all kinds of a dictionary
        name and all its seeds, on every backbone.
    """
    found: dict[str, list[pd.DataFrame]] = {"kinds": [], "kinds_null": []}
    rows = (dataset.rows("val"), dataset.rows("test"))
    objects = object_table(dataset)
    shown = [objects[objects["image"].isin(part)] for part in rows]
    images = (rows[0].tolist(), rows[1].tolist())
    options = KindSpec(n_null=min(spec["permutations"], MOST_GROUPS), n_resamples=spec["resamples"])
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
    tables = {name: pd.concat(parts, ignore_index=True) for name, parts in found.items()}
    tables["kinds"]["q"] = _corrected(tables["kinds"])
    return tables


def _sides(codes: Codes, encoded: list[int], rows: tuple[np.ndarray, np.ndarray]) -> tuple[Side, Side]:
    """Scores of both splits; the images have one token, and no factor is looked at."""
    position = {row: at for at, row in enumerate(encoded)}
    parts = [codes.select_images([position[int(row)] for row in part]) for part in rows]
    labels = [FactorLabels(np.zeros((len(part), 0), np.bool_), ()) for part in rows]
    return sides(parts[0], labels[0], parts[1], labels[1], TruthSpec(prefix_tokens=0))


def _corrected(table: pd.DataFrame) -> pd.Series:
    """Benjamini-Hochberg over kinds, backbones and seeds of each dictionary name."""
    q = pd.Series(np.nan, index=table.index)
    for _, part in table[table["p"].notna()].groupby("dictionary"):
        q[part.index] = benjamini_hochberg(part["p"].to_numpy())
    return q
