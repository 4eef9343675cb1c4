"""Tip-Adapter: zero-shot logits plus votes of the training images (Zhang et al. 2022), and its fine-tuned variant.

The two numbers of the vote are searched on the validation shots, never on test images. A class without training images
gets no vote: on novel classes the method is zero-shot.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from conceptbench.adaptation.adapter import Adapter, Logits, cosine_logits
from conceptbench.adaptation.engine import augmented_batch, cosine_plan, seeded, steps_per_epoch, train
from conceptbench.adaptation.fitting import Fitting, Stored
from conceptbench.adaptation.prompts.hooks import text_tower
from conceptbench.adaptation.specs import TipAdapterFSpec, TipAdapterSpec
from conceptbench.adaptation.storage import require_tensors
from conceptbench.adaptation.zero_shot import template_features
from conceptbench.seeds import torch_seed

if TYPE_CHECKING:
    from conceptbench.backbones import Backbone

GRID_START = 0.1
"""First value of both grids."""

CROP = 0.5
"""Smallest share of an image's area that the random crops of the cache keep."""

IMAGES_AT_ONCE = 256
"""Augmented images that one pass of the image tower encodes."""

ADAM_EPS = 1e-4
"""Epsilon of AdamW in the published fine-tuning."""


@dataclass(frozen=True, eq=False)
class TipAdapter(Adapter):
    """Keys [shot, embed], the position of each key's class in the card's classes, and the two numbers."""

    spec: TipAdapterSpec | TipAdapterFSpec
    keys: Tensor
    targets: Tensor
    beta: float
    alpha: float

    def tensors(self) -> dict[str, Tensor]:
        """`keys`, `targets`, `beta` and `alpha`."""
        numbers = {name: torch.tensor(getattr(self, name), dtype=torch.float64) for name in ("beta", "alpha")}
        return {"keys": self.keys, "targets": self.targets, **numbers}

    def _encode_classes(self, backbone: Backbone, class_names: Sequence[str]) -> Float[Tensor, "class embed"]:
        return template_features(backbone, self.spec.template, class_names)

    def classify(
        self, backbone: Backbone, features: Float[Tensor, "image embed"], class_names: Sequence[str]
    ) -> Logits:
        """Zero-shot logits plus the votes for those of `class_names` that were trained."""
        plain = super().classify(backbone, features, class_names)
        trained = list(self.card["classes"])
        values = F.one_hot(self.targets, len(trained)).to(features)
        known = [i for i, name in enumerate(class_names) if name in trained]
        votes = torch.zeros_like(plain)
        chosen = [trained.index(class_names[i]) for i in known]
        cache = cache_votes(F.normalize(features, dim=-1), self.keys.to(features), values, self.beta)
        votes[:, known] = cache[:, chosen]
        return plain + self.alpha * votes


def cache_votes(
    images: Float[Tensor, "image embed"],
    keys: Float[Tensor, "shot embed"],
    values: Float[Tensor, "shot class"],
    beta: float,
) -> Float[Tensor, "image class"]:
    """Sum over the shots of a class of exp(-beta (1 - s)), s the product of normalised image features and key."""
    return torch.exp(-beta * (1 - images @ keys.T)) @ values


def search_grid(stop: float, steps: int) -> list[float]:
    """`steps` evenly spaced values from `GRID_START` on, below `stop`."""
    return [GRID_START + i * (stop - GRID_START) / steps for i in range(steps)]


def search(
    plain: Float[Tensor, "image class"],
    affinity: Float[Tensor, "image shot"],
    values: Float[Tensor, "shot class"],
    targets: Int[Tensor, " image"],
    betas: Sequence[float],
    alphas: Sequence[float],
) -> tuple[float, float, float]:
    """The (beta, alpha) with the highest accuracy, and that accuracy; the first of the grid among equals."""
    best = (betas[0], alphas[0], -1.0)
    weights = torch.tensor(alphas, dtype=plain.dtype, device=plain.device)[:, None, None]
    for beta in betas:
        votes = torch.exp(-beta * (1 - affinity)) @ values
        hits = (plain + weights * votes).argmax(dim=-1) == targets
        scores = hits.double().mean(dim=-1)
        at = int(scores.argmax())
        if float(scores[at]) > best[2]:
            best = (beta, alphas[at], float(scores[at]))
    return best


@torch.no_grad()
def cache_keys(fitting: Fitting, name: str, views: int) -> Float[Tensor, "shot embed"]:
    """Normalised mean of the features (not normalised before) of `views` augmented views of each training image."""
    backbone, task = fitting.backbone, fitting.task
    n_images, total = len(task.train_rows), torch.zeros(len(task.train_rows), backbone.embed_dim)
    with seeded(torch_seed(task.seed, "adaptation", name, "cache")):
        for _ in range(views):
            for start in range(0, n_images, IMAGES_AT_ONCE):
                stop = min(start + IMAGES_AT_ONCE, n_images)
                pixels, _ = augmented_batch(backbone, task, range(start, stop), CROP)
                total[start:stop] += backbone.encode_image(pixels).float().cpu()
    return F.normalize(total / views, dim=-1).to(backbone.device)


def fit_tip_adapter(spec: TipAdapterSpec, fitting: Fitting) -> TipAdapter:
    """Fill the cache and search its two numbers.

    Raises ConceptBenchError when the backbone has no text tower or a class no validation images.
    """
    _require(fitting)
    return _searched(spec, fitting, cache_keys(fitting, spec.name, spec.views), {})


def fit_tip_adapter_f(spec: TipAdapterFSpec, fitting: Fitting) -> TipAdapter:
    """Fill the cache, train its keys with the numbers of the specification, and search these numbers afterwards.

    Raises ConceptBenchError as `fit_tip_adapter` does, and for a loss that is not finite.
    """
    _require(fitting)
    backbone, task = fitting.backbone, fitting.task
    keys = cache_keys(fitting, spec.name, spec.views).requires_grad_()
    values = _values(fitting)
    with torch.no_grad():
        texts = F.normalize(template_features(backbone, spec.template, task.class_names), dim=-1)

    def step_loss(pixels: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy of zero-shot logits plus votes of the current keys."""
        with torch.no_grad():
            images = F.normalize(backbone.encode_image(pixels), dim=-1)
        votes = cache_votes(images, keys, values, spec.beta)
        return F.cross_entropy(cosine_logits(backbone, images, texts) + spec.alpha * votes, targets)

    optimizer = torch.optim.AdamW([keys], lr=spec.lr, weight_decay=spec.weight_decay, eps=ADAM_EPS)
    steps = spec.epochs * steps_per_epoch(len(task.train_rows), spec.batch_size)
    plan = cosine_plan(optimizer, steps, spec.batch_size, crop=CROP)
    training = train(plan, step_loss, backbone, task, name=spec.name, progress=fitting.progress)
    return _searched(spec, fitting, keys.detach(), training | {"n_parameters": keys.numel()})


def restore_tip_adapter(spec: TipAdapterSpec | TipAdapterFSpec, stored: Stored) -> TipAdapter:
    """The adapter of a card and its tensors."""
    text_tower(stored.backbone)
    n_keys = len(stored.tensors["targets"]) if "targets" in stored.tensors else 0
    expected: dict[str, tuple[int, ...]] = {"keys": (n_keys, stored.backbone.embed_dim), "targets": (n_keys,)}
    require_tensors(stored.tensors, expected | {"beta": (), "alpha": ()}, stored.source)
    device = stored.backbone.device
    keys, targets = stored.tensors["keys"].to(device), stored.tensors["targets"].to(device)
    return TipAdapter(spec, stored.card, keys, targets, float(stored.tensors["beta"]), float(stored.tensors["alpha"]))


def _require(fitting: Fitting) -> None:
    """Raise ConceptBenchError when something is missing that both variants need."""
    text_tower(fitting.backbone)
    fitting.task.require_validation("search Tip-Adapter's alpha and beta")


def _values(fitting: Fitting) -> Float[Tensor, "shot class"]:
    """The class of every key, one-hot."""
    targets = torch.from_numpy(fitting.task.train_targets).to(fitting.backbone.device)
    return F.one_hot(targets, len(fitting.task.class_names)).float()


@torch.no_grad()
def _searched(
    spec: TipAdapterSpec | TipAdapterFSpec, fitting: Fitting, keys: Tensor, training: dict[str, Any]
) -> TipAdapter:
    """The adapter of these keys with the best two numbers of the grid on the validation shots."""
    backbone, task = fitting.backbone, fitting.task
    images = F.normalize(fitting.features(task.val_rows), dim=-1)
    texts = F.normalize(template_features(backbone, spec.template, task.class_names), dim=-1)
    beta, alpha, score = search(
        cosine_logits(backbone, images, texts),
        images @ keys.T,
        _values(fitting),
        torch.from_numpy(task.val_targets).to(backbone.device),
        search_grid(spec.beta_max, spec.beta_steps),
        search_grid(spec.alpha_max, spec.alpha_steps),
    )
    found = {"beta": beta, "alpha": alpha, "val_accuracy": score, "n_val": len(task.val_rows)}
    card = fitting.card | {"training": training | found | {"n_train": len(task.train_rows)}}
    return TipAdapter(spec, card, keys, torch.from_numpy(task.train_targets).to(backbone.device), beta, alpha)
