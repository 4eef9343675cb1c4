"""Rule measure_monosemanticity: every latent of every dictionary judged by the image embeddings of another backbone."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32

from conceptbench.activations import ActivationStore
from conceptbench.backbones import Backbone, inference
from conceptbench.errors import ConceptBenchError
from conceptbench.inference import Estimate
from conceptbench.measures.intervals import group_interval
from conceptbench.measures.monosemanticity import (
    PERMUTED,
    STATISTICS,
    Monosemanticity,
    Panel,
    make_panel,
    measure_latents_alike,
)
from conceptbench.measures.resampling import ALL_SEEDS, UNBOUNDED
from conceptbench.measures.sparse import image_scores
from conceptbench.measures.stages.encoded import Encoded, label_columns, prefix_tokens, read_encoded
from conceptbench.seeds import rng

BATCH = 256
_Key = tuple[str, int, str, str, str]
"""Backbone, block, dictionary, family, embedding."""


def embed_stored(
    backbone: Backbone, store: ActivationStore, rows: np.ndarray
) -> Float32[np.ndarray, "image embedding"]:
    """Image embeddings from recorded activations: only the blocks above the last recorded one run.

    Activations are recorded as float16, so embeddings have that precision.
    """
    block, parts = max(store.blocks), []
    with inference():
        for _, tokens in store.iterate(block, rows, BATCH):
            own = torch.from_numpy(tokens).to(backbone.device, backbone.dtype)
            parts.append(backbone.upper(own, block).float().cpu().numpy())
    return np.concatenate(parts)


def measure_monosemanticity(
    codes: Mapping[str, Path],
    grids: Mapping[str, tuple[int, int]],
    embeddings: Mapping[str, Float32[np.ndarray, "image embedding"]],
    rows: np.ndarray,
    spec: Mapping[str, Any],
) -> dict[str, pd.DataFrame]:
    """Tables ``monosemanticity`` (a row a latent) and ``monosemanticity_summary`` (docs/method.md); split B.

    Args:
        codes: backbone -> folder of its codes. grids: backbone -> patch grid. embeddings: backbone -> embeddings of the
            images `rows`. spec: embedding_of (backbone -> the backbone that judges it), dictionaries (name -> method,
            the column `family`), seed.

    Raises:
        ConceptBenchError: when a backbone would judge itself.
    """
    panels = {name: make_panel(table, rng(spec["seed"], "monosemanticity")) for name, table in embeddings.items()}
    latents: list[pd.DataFrame] = []
    found: dict[_Key, dict[str, Monosemanticity]] = {}
    for backbone, folder in codes.items():
        judge = spec["embedding_of"][backbone]
        if judge == backbone:
            raise ConceptBenchError(f"Backbone {backbone} cannot judge its own latents; name another in embed_with.")
        for encoded in read_encoded(folder):
            family = spec["dictionaries"][encoded.dictionary]
            result = _judge(encoded, grids[backbone], rows, panels[judge])
            latents.append(label_columns(result.table, {**encoded.ids, "family": family, "embedding": judge}))
            key = (backbone, encoded.block, encoded.dictionary, family, judge)
            found.setdefault(key, {})[encoded.seed] = result
    summaries = [row for key, seeds in found.items() for row in _summary(key, seeds, len(rows))]
    return {
        "monosemanticity": pd.concat(latents, ignore_index=True),
        "monosemanticity_summary": pd.DataFrame(summaries),
    }


def _judge(encoded: Encoded, grid: tuple[int, int], rows: np.ndarray, panel: Panel) -> Monosemanticity:
    """An image's activation of a latent is the largest over its patch tokens, as in factor recovery."""
    mine = encoded.of(rows)
    return measure_latents_alike(image_scores(mine, prefix_tokens=prefix_tokens(mine, grid)), panel)


def _summary(key: _Key, seeds: Mapping[str, Monosemanticity], n_images: int) -> list[dict[str, Any]]:
    """One row a statistic for every seed and for all seeds together."""
    ids = dict(zip(("backbone", "block", "dictionary", "family", "embedding"), key, strict=True))
    out = []
    for statistic in STATISTICS:
        bounds = (0.0, 1.0) if statistic == "significant_share" else UNBOUNDED
        points = np.array([result.points[statistic] for result in seeds.values()])
        left_out = np.stack([result.left_out[statistic] for result in seeds.values()])
        for at, seed in enumerate(seeds):
            one = group_interval(points[at : at + 1], left_out[at : at + 1], n_images, bounds)
            out.append({**ids, "statistic": statistic, **one.row(seed)})
        joint = group_interval(points, left_out, n_images, bounds)
        out.append({**ids, "statistic": statistic, **joint.row(ALL_SEEDS)})
        permuted = float(np.mean([result.points[PERMUTED + statistic] for result in seeds.values()]))
        null = Estimate(permuted, np.nan, np.nan, n_images, "one permutation of the images")
        out.append({**ids, "statistic": PERMUTED + statistic, **null.row(ALL_SEEDS)})
    return out
