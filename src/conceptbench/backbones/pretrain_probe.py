"""What a backbone in training knows of the rendered world: the figures in the log of a trained backbone's card.

The measure `conceptbench.measures.backbones` reports the same quantities with intervals, for any backbone and data set.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from open_clip.model import CLIP
from torch import Tensor

from conceptbench.backbones.pretrain import Probe, normalise
from conceptbench.backbones.pretrain_batches import Tokenizer
from conceptbench.data.captions import captions
from conceptbench.data.prompts import factor_prompts
from conceptbench.data.scene_pixels import render
from conceptbench.data.scenes import COLOUR, FILL, SHAPE, sample_scenes

_OBJECT_FACTORS = {"shape": SHAPE, "colour": COLOUR, "fill": FILL}


def zero_shot_probe(n_single: int = 512, n_gallery: int = 256, seed: int = 0) -> Probe:
    """A probe of zero-shot accuracy on scenes with one object, and of image-to-text recall@1 among full captions.

    It returns the shares of hits under shape, colour, fill, background and recall_at_1. The scenes come from streams of
    their own, which no training and no data set sees.
    """
    single = sample_scenes(seed, "probe", np.arange(n_single), n_objects=(1.0, 0.0, 0.0))
    gallery = sample_scenes(seed, "probe2", np.arange(n_gallery))
    pictures, shown, texts = normalise(render(single)), normalise(render(gallery)), captions(gallery, full=True)
    truth = {name: single.objects[:, 0, column] for name, column in _OBJECT_FACTORS.items()}
    truth["background"] = single.backgrounds

    def probe(model: CLIP, tokenize: Tokenizer) -> dict[str, float]:
        training = model.training
        model.eval()
        with torch.no_grad():
            features = model.encode_image(pictures, normalize=True)
            figures = {
                name: _share((features @ _classes(model, tokenize, name).T).argmax(dim=1).numpy() == values)
                for name, values in truth.items()
            }
            described = model.encode_text(tokenize(texts), normalize=True)
            nearest = (model.encode_image(shown, normalize=True) @ described.T).argmax(dim=1)
            figures["recall_at_1"] = _share(nearest.numpy() == np.arange(n_gallery))
        model.train(training)
        return figures

    return probe


def _classes(model: CLIP, tokenize: Tokenizer, factor: str) -> Float[Tensor, "value embed"]:
    """One text feature a value of a factor: the mean of its prompts."""
    means = [model.encode_text(tokenize(t), normalize=True).mean(dim=0) for t in factor_prompts(factor).values()]
    return F.normalize(torch.stack(means), dim=-1)


def _share(hits: np.ndarray) -> float:
    return round(float(hits.mean()), 3)
