"""Does language unite the members of a named kind? The noun's text embedding against the image embedding.

This is the reference for the named kinds of a dictionary (``kinds.py``): how far the whole model, read out along the
noun's own direction, ranks images of *every* unlike member above images without any.
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Bool, Float
from sklearn.metrics import roc_auc_score

from conceptbench.data import object_table
from conceptbench.data.prompts import factor_prompts
from conceptbench.data.vocabulary import KINDS
from conceptbench.inference import bootstrap
from conceptbench.measures.kinds import Composition, composition_presence

if TYPE_CHECKING:
    from conceptbench.backbones import Backbone
    from conceptbench.data import Dataset

_BATCH = 256


def kind_compositions() -> dict[str, list[Composition]]:
    """The members of every named kind as (factor -> value), without the factors that do not matter."""
    return {
        kind: [
            {name: value for name, value in zip(("shape", "colour", "fill"), member, strict=True) if value is not None}
            for member in members
        ]
        for kind, members in KINDS.items()
    }


def measure_kinds_text(
    backbone: "Backbone", scenes: "Dataset", rng: np.random.Generator, n_resamples: int = 200
) -> pd.DataFrame:
    """United AUROC of every noun: the smallest, over a kind's members, of the AUROC of the noun's similarity.

    Returns:
        backbone, statistic (named_kind.<kind>), estimate, low, high (test images resampled), n, seed, note.

    Raises:
        ConceptBenchError: when the backbone has no text tower.
    """
    rows, objects = np.asarray(scenes.rows("test")), object_table(scenes)
    with torch.no_grad():
        parts = [rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH)]
        images = torch.cat([backbone.embed_images(backbone.preprocess(scenes.images(part))) for part in parts])
        nouns = {kind: backbone.embed_text(texts).mean(dim=0) for kind, texts in factor_prompts("kind").items()}
    out: list[dict[str, Any]] = []
    for kind, members in kind_compositions().items():
        shown = composition_presence(objects[objects["image"].isin(rows)], rows.tolist(), members)
        scores = (images @ nouns[kind]).cpu().numpy()
        estimate = bootstrap(united_auroc, scores, shown, rng=rng, n_resamples=n_resamples)
        out.append({"backbone": backbone.name, "statistic": f"named_kind.{kind}", **estimate.row("all")})
    return pd.DataFrame(out)


def united_auroc(scores: Float[np.ndarray, " image"], shown: Bool[np.ndarray, "image member"]) -> float:
    """The smallest, over members, of the AUROC of images with the member against images with no member."""
    none = ~shown.any(axis=1)
    worst = 1.0
    for member in shown.T:
        kept = member | none
        if member[kept].all() or not member.any():
            return float("nan")
        worst = min(worst, float(roc_auc_score(member[kept], scores[kept])))
    return worst
