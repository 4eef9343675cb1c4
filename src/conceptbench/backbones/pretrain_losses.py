"""Forward passes and losses of pretraining, on the parts of an ordinary open_clip ``CLIP``."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from open_clip.model import CLIP
from torch import Tensor, nn

from conceptbench.backbones.pretrain_batches import IMAGE_FACTORS, N_PRESENCE, PATCH_FACTORS


def image_tokens(model: CLIP, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n token width"]:
    """All tokens of the image tower after its last norm; token 0 is CLS."""
    tower = model.visual
    tokens: Tensor = tower.ln_post(tower.transformer(tower._embeds(pixels)))
    return tokens


def text_features(model: CLIP, tokens: Int[Tensor, "n context"]) -> Float[Tensor, "n embed"]:
    """Text embeddings, computed up to the longest text only: under the causal mask nothing later can matter."""
    length = int((tokens != 0).sum(dim=1).max())
    x = model.token_embedding(tokens[:, :length]) + model.positional_embedding[:length]
    x = model.ln_final(model.transformer(x, attn_mask=model.attn_mask[:length, :length]))
    features: Tensor = x[torch.arange(len(x)), tokens.argmax(dim=-1)] @ model.text_projection
    return features


def contrastive_loss(images: Float[Tensor, "n embed"], texts: Float[Tensor, "n embed"], scale: Tensor) -> Tensor:
    """CLIP's symmetric cross-entropy over the batch (Radford et al. 2021, figure 3)."""
    logits = scale.exp() * F.normalize(images.float(), dim=-1) @ F.normalize(texts.float(), dim=-1).T
    target = torch.arange(len(logits))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def view_loss(first: Float[Tensor, "n embed"], second: Float[Tensor, "n embed"], temperature: float = 0.2) -> Tensor:
    """NT-Xent of two views of the same pictures (Chen et al. 2020, eq. 1)."""
    z = F.normalize(torch.cat([first, second]).float(), dim=-1)
    logits = z @ z.T / temperature
    logits.fill_diagonal_(float("-inf"))
    n = len(first)
    return F.cross_entropy(logits, torch.cat([torch.arange(n, 2 * n), torch.arange(n)]))


class AttributeHeads(nn.Module):
    """Auxiliary linear heads, dropped after training.

    One tells the object on each covered patch, the other the factor values that a picture contains.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patch = nn.Linear(width, sum(len(values) for values in PATCH_FACTORS))
        self.image = nn.Linear(width, N_PRESENCE)

    def forward(
        self,
        tokens: Float[Tensor, "n token width"],
        patch_labels: Int[Tensor, "n patch factor"],
        presence: Float[Tensor, "n value"],
    ) -> Tensor:
        """Mean cross-entropy over covered patches and factors, plus the mean binary cross-entropy of presence."""
        shown = patch_labels[..., 0] >= 0
        logits = self.patch(tokens[:, 1:][shown]).float()
        labels = patch_labels[shown].long()
        parts = logits.split([len(values) for values in PATCH_FACTORS], dim=-1)
        patch = sum((F.cross_entropy(part, labels[:, i]) for i, part in enumerate(parts)), torch.zeros(()))
        known = ~presence.isnan().any(dim=1)
        image = F.binary_cross_entropy_with_logits(self.image(tokens[known, 0]).float(), presence[known])
        return patch / len(PATCH_FACTORS) + image * len(IMAGE_FACTORS)
