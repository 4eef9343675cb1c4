"""Zero-shot classification: the backbone as it is, one prompt per class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jaxtyping import Float
from torch import Tensor

from conceptbench.adaptation.adapter import Adapter
from conceptbench.adaptation.prompts.hooks import text_tower
from conceptbench.adaptation.prompts.text import encode_tokens, plain_name
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
        template = self.spec.template or DEFAULT_TEMPLATE
        prompts = [template.replace("{}", plain_name(name)) for name in class_names]
        return encode_tokens(backbone, backbone.tokenize(prompts).to(backbone.device))


def fit_zero_shot(spec: ZeroShotSpec, backbone: Backbone, card: dict[str, Any]) -> ZeroShotAdapter:
    """Nothing to fit; the backbone must have a text tower."""
    text_tower(backbone)
    return ZeroShotAdapter(spec, card)


def restore_zero_shot(
    spec: ZeroShotSpec, backbone: Backbone, card: dict[str, Any], tensors: dict[str, Tensor], source: str
) -> ZeroShotAdapter:
    """The adapter of a card; there must be no tensors."""
    text_tower(backbone)
    require_tensors(tensors, {}, source)
    return ZeroShotAdapter(spec, card)
