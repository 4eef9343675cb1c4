"""What a vision-language backbone knows of the rendered world: zero-shot factors and image-to-text retrieval."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from conceptbench.data.prompts import factor_prompts
from conceptbench.errors import ConceptBenchError
from conceptbench.inference import bootstrap_mean

if TYPE_CHECKING:
    from conceptbench.backbones import Backbone
    from conceptbench.data import Dataset

FACTORS = ("colour", "background", "shape", "fill", "size", "place")
GALLERY = 256
COMMON = "common compositions"


def measure_backbone(
    backbone: "Backbone", scenes: "Dataset", rng: np.random.Generator, n_resamples: int = 1000
) -> pd.DataFrame:
    """Zero-shot accuracy of every factor on scenes with one object, and recall@1 among 256 full captions.

    A factor value stands for the mean of its normalised prompt embeddings over everything else (prompt ensemble).
    Single objects come from the test split; held-out compositions, where the data set has them, are reported apart.

    Returns:
        backbone, statistic (zero_shot.<factor>, zero_shot_held_out.<factor>, recall_at_1), factor (or recall_at_1),
        images (common or held-out compositions), chance, estimate, low, high, n, seed, note. Intervals resample
        images; for recall they resample the queries of all galleries of 256.

    Raises:
        ConceptBenchError: when the backbone has no text tower.
    """
    if not backbone.has_text:
        raise ConceptBenchError(f"Backbone {backbone.name} has no text tower; zero-shot accuracy cannot be measured.")
    rows: list[dict[str, Any]] = []

    def add(statistic: str, factor: str, images: str, hits: np.ndarray, chance: float) -> None:
        estimate = bootstrap_mean(hits.astype(np.float64), rng=rng, n_resamples=n_resamples).row("all")
        names = {"backbone": backbone.name, "statistic": statistic, "factor": factor, "images": images}
        rows.append({**names, "chance": chance, **estimate})

    for prefix, images, part in _single_objects(scenes):
        features = _image_features(backbone, scenes, part["image"].to_numpy())
        for factor in FACTORS:
            add(f"{prefix}.{factor}", factor, images, *_factor_hits(backbone, features, part, factor))
    add("recall_at_1", "recall_at_1", COMMON, _retrieval_hits(backbone, scenes), 1 / GALLERY)
    return pd.DataFrame(rows)


def _single_objects(scenes: "Dataset") -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Scenes with one object, of the test split and of held-out compositions: prefix of the statistic, shown, rows."""
    manifest = scenes.manifest
    single = manifest[(manifest["object0_shape"] != "") & (manifest["object1_shape"] == "")]
    for prefix, images, split in (
        ("zero_shot", COMMON, "test"),
        ("zero_shot_held_out", "held-out compositions", "held-out"),
    ):
        part = single[single["split"] == split]
        if len(part):
            yield prefix, images, part


def _image_features(backbone: "Backbone", scenes: "Dataset", images: np.ndarray) -> Float[Tensor, "image embed"]:
    parts = [images[start : start + GALLERY] for start in range(0, len(images), GALLERY)]
    with torch.no_grad():
        return torch.cat([backbone.embed_images(backbone.preprocess(scenes.images(part))) for part in parts])


def _factor_hits(
    backbone: "Backbone", features: Float[Tensor, "image embed"], part: pd.DataFrame, factor: str
) -> tuple[np.ndarray, float]:
    prompts = factor_prompts(factor)
    with torch.no_grad():
        classes = torch.stack(
            [F.normalize(backbone.embed_text(texts).mean(dim=0), dim=-1) for texts in prompts.values()]
        )
    predicted = np.array(list(prompts))[(features @ classes.T).argmax(dim=1).cpu().numpy()]
    column = "background" if factor == "background" else f"object0_{factor}"
    return predicted == part[column].to_numpy(), 1 / len(prompts)


def _retrieval_hits(backbone: "Backbone", scenes: "Dataset") -> np.ndarray:
    """Whether each image of the test split finds its own full caption among those of its gallery of 256."""
    rows = np.asarray(scenes.rows("test"))
    hits = []
    for start in range(0, len(rows) - GALLERY + 1, GALLERY):
        part = rows[start : start + GALLERY]
        texts = scenes.manifest["full_caption"].iloc[part].tolist()
        with torch.no_grad():
            similarity = _image_features(backbone, scenes, part) @ backbone.embed_text(texts).T
        hits.append((similarity.argmax(dim=1).cpu() == torch.arange(GALLERY)).numpy())
    if not hits:
        raise ConceptBenchError(
            f"Data set {scenes.name} has {len(rows)} test images but recall@1 needs {GALLERY}; enlarge sizes.test."
        )
    return np.concatenate(hits)
