"""Zero-shot classification: the backbone as it is, one prompt per class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from conceptbench.adaptation.adapter import Adapter
from conceptbench.adaptation.fitting import Fitting, Stored
from conceptbench.adaptation.prompts.hooks import text_tower
from conceptbench.adaptation.prompts.text import encode_tokens, prompt_tokens, template_prompts
from conceptbench.adaptation.specs import DEFAULT_TEMPLATE, ZeroShotSpec
from conceptbench.adaptation.storage import require_tensors

if TYPE_CHECKING:
    from conceptbench.backbones import Backbone


@dataclass(frozen=True, eq=False)
class ZeroShotAdapter(Adapter):
    """Nothing learned."""

    spec: ZeroShotSpec

    def tensors(self) -> dict[str, Tensor]:
        """No tensors."""
        return {}

    def _encode_classes(self, backbone: Backbone, class_names: Sequence[str]) -> Float[Tensor, "class embed"]:
        return template_features(backbone, self.spec.template, class_names)


def template_features(
    backbone: Backbone, template: str | None, class_names: Sequence[str]
) -> Float[Tensor, "class embed"]:
    """Plain text features (not normalised) of the classes in a template; None takes `DEFAULT_TEMPLATE`."""
    prompts = template_prompts(template or DEFAULT_TEMPLATE, class_names)
    return encode_tokens(backbone, prompt_tokens(backbone, prompts))


def fit_zero_shot(spec: ZeroShotSpec, fitting: Fitting) -> ZeroShotAdapter:
    """Nothing to fit; the backbone must have a text tower."""
    text_tower(fitting.backbone)
    return ZeroShotAdapter(spec, fitting.card)


def restore_zero_shot(spec: ZeroShotSpec, stored: Stored) -> ZeroShotAdapter:
    """The adapter of a card; there must be no tensors."""
    text_tower(stored.backbone)
    require_tensors(stored.tensors, {}, stored.source)
    return ZeroShotAdapter(spec, stored.card)
