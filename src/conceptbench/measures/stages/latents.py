"""Rule measure_latents: statistics and exemplars of every latent on every data set, and the pictures of a few."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from conceptbench.data import Dataset
from conceptbench.errors import ConceptBenchError
from conceptbench.measures.latents import LatentSpec, latent_statistics
from conceptbench.measures.stages.encoded import label_columns, prefix_tokens, read_encoded

SHOWN_LATENTS = 20


def measure_latents(
    sources: Mapping[str, tuple[Path, Dataset]], grids: Mapping[str, tuple[int, int]], spec: Mapping[str, Any]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables ``latents`` and ``exemplars`` (docs/method.md) over data sets, blocks, dictionaries and seeds; split B.

    Args:
        sources: data set name -> (folder of its codes, the data set). grids: data set name -> patch grid.
        spec: exemplars (reference images a latent), firing_threshold (definition B).

    Raises:
        ConceptBenchError: when a data set has no images of the split ``test``.
    """
    statistics, exemplars = [], []
    for name, (folder, dataset) in sources.items():
        rows, names = dataset.rows("test"), dict(enumerate(dataset.classes))
        if not len(rows):
            raise ConceptBenchError(f"Data set {name} has no test images to describe latents on; give it a test split.")
        for encoded in read_encoded(folder):
            n_prefix = prefix_tokens(encoded.codes, grids[name])
            options = LatentSpec(top_k=spec["exemplars"], tau=spec["firing_threshold"], prefix_tokens=n_prefix)
            table, images = latent_statistics(encoded.of(rows), dataset.labels(rows), rows, names, options)
            ids = {**encoded.ids, "dataset": name}
            statistics.append(label_columns(table, ids))
            exemplars.append(label_columns(images, ids))
    return pd.concat(statistics, ignore_index=True), pd.concat(exemplars, ignore_index=True)


@dataclass(frozen=True)
class Shown:
    """Latents of one dictionary on one data set whose exemplars are drawn."""

    dataset: str
    block: int
    dictionary: str
    seed: str
    latents: tuple[int, ...]


def choose_latents(latents: pd.DataFrame, spec: Mapping[str, Any]) -> Shown:
    """The latents of the exemplar figure: of the followed dictionary on the first data set, by a fixed rule.

    Live, not dense latents that fire on at least as many images as exemplars are shown, spread evenly over the ranking
    by mean activation, so that strong and weak ones are seen alike.
    """
    dataset, seed = spec["latents_on"][0], str(spec["seeds_of"][spec["dictionary"]][0])
    mine = latents[
        (latents["dataset"] == dataset)
        & (latents["block"] == spec["block"])
        & (latents["dictionary"] == spec["dictionary"])
        & (latents["seed"] == seed)
    ]
    usable = mine[~mine["dead"] & ~mine["dense"] & (mine["n_reference"] >= spec["exemplars"])]
    ranked = usable.sort_values(["mean_activation", "latent"], ascending=[False, True])["latent"].to_numpy()
    at = np.unique(np.linspace(0, len(ranked) - 1, min(SHOWN_LATENTS, len(ranked))).round().astype(int))
    chosen = tuple(int(latent) for latent in ranked[at])
    return Shown(dataset, spec["block"], spec["dictionary"], seed, chosen)


def picture_exemplars(
    folder: Path,
    dataset: Dataset,
    grid: tuple[int, int],
    exemplars: pd.DataFrame,
    shown: Shown,
    n_images: int = 10,
) -> dict[str, np.ndarray]:
    """Arrays of the exemplar figure: pictures and patch activation maps of the top images (split B) of some latents.

    Returns:
        images uint8 [latent, rank, h, w, 3]; maps float32 [latent, rank, grid_h, grid_w] (prefix tokens left out; NaN
        where a latent has fewer images); latent int [latent]; score float32 [latent, rank]; note (where they are from).
    """
    encoded = next(e for e in read_encoded(folder, [shown.block], [shown.dictionary]) if e.seed == shown.seed)
    n_prefix = prefix_tokens(encoded.codes, grid)
    blank = dataset.thumbnails([int(encoded.rows[0])])[0]
    images = np.zeros((len(shown.latents), n_images, *blank.shape), dtype=np.uint8)
    maps = np.full((len(shown.latents), n_images, *grid), np.nan, dtype=np.float32)
    score = np.full((len(shown.latents), n_images), np.nan, dtype=np.float32)
    mine = exemplars[
        (exemplars["dataset"] == shown.dataset)
        & (exemplars["block"] == shown.block)
        & (exemplars["dictionary"] == shown.dictionary)
        & (exemplars["seed"] == shown.seed)
    ]
    for at, latent in enumerate(shown.latents):
        rows = mine[mine["latent"] == latent].sort_values("rank").head(n_images)
        column = encoded.of(rows["image"].to_numpy()).csr()[:, [latent]].toarray().reshape(len(rows), -1)
        images[at, : len(rows)] = dataset.thumbnails(rows["image"].tolist())
        maps[at, : len(rows)] = column[:, n_prefix:].reshape(len(rows), *grid)
        score[at, : len(rows)] = rows["score"]
    note = (
        f"Dictionary {shown.dictionary}, block {shown.block}, seed {shown.seed}, on {shown.dataset} (test); "
        "latents evenly spaced over the ranking by mean activation, not picked by hand."
    )
    latents = np.asarray(shown.latents)
    return {"images": images, "maps": maps, "latent": latents, "score": score, "note": np.asarray(note)}
