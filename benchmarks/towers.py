"""Models of published size for benchmarks that need no trained weights."""

import open_clip
import torch
from open_clip.model import CLIP

from conceptbench.backbones import Backbone

MODEL = "ViT-B-16-quickgelu"


def random_base() -> Backbone:
    """A ViT-B/16 with random weights, which cost as much as trained ones."""
    config = open_clip.get_model_config(MODEL)
    torch.manual_seed(0)
    return Backbone(
        CLIP(**config, output_dict=False),
        name="ViT-B/16",
        digest="0" * 64,
        model_config=config,
        preprocess_config={"size": 224},
        make_tokenizer=lambda: open_clip.get_tokenizer(MODEL),
    )
