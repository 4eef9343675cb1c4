"""MaPLe's training step written the way its authors write it, on open_clip's modules.

Explicit prompt insertion instead of hooks: the embeddings of all 77 positions are kept and put together with the
learned context in each step, every block of both towers is called by name with its prompt in place, text features of
all classes are recomputed at full length, and the optimiser is handed every parameter of the model.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from conceptbench.adaptation.maple import MapleLearner


class ReferenceStep:
    """One SGD step of MaPLe on a native open_clip `CLIP`, whose learned tensors start from a copy of `learner`'s."""

    def __init__(self, model: Any, learner: MapleLearner, tokens: Tensor, lr: float) -> None:
        """Keep the embeddings around the context; `tokens` [class, position] are those of the prompts."""
        self.model, self.learner = model, learner
        self.n_ctx = len(learner.context)
        with torch.no_grad():
            embedded = model.token_embedding(tokens)
        self.prefix, self.suffix = embedded[:, :1], embedded[:, 1 + self.n_ctx :]
        self.ends = tokens.argmax(dim=-1)
        parameters = [*learner.parameters(), *model.parameters()]
        self.optimizer = torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=5e-4)

    def __call__(self, pixels: Tensor, targets: Tensor) -> float:
        """Train on one batch; returns the loss before the step."""
        texts = [self.learner.context, *self.learner.deep]
        images = [couple(prompt) for couple, prompt in zip(self.learner.couplings, texts, strict=True)]
        image = F.normalize(self.encode_image(pixels, images), dim=-1)
        text = F.normalize(self.encode_text(texts), dim=-1)
        loss = F.cross_entropy(self.model.logit_scale.exp() * image @ text.T, targets)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())

    def encode_text(self, prompts: Sequence[Tensor]) -> Tensor:
        """Features of all classes, at the full length of the context window."""
        n_classes = len(self.prefix)
        x = torch.cat([self.prefix, prompts[0].expand(n_classes, -1, -1), self.suffix], dim=1)
        x = x + self.model.positional_embedding
        x = self._blocks(self.model.transformer.resblocks, x, prompts, 1, self.model.attn_mask)
        x = self.model.ln_final(x)
        features: Tensor = x[torch.arange(n_classes), self.ends] @ self.model.text_projection
        return features

    def encode_image(self, pixels: Tensor, prompts: Sequence[Tensor]) -> Tensor:
        """Image features with the prompts behind the patches."""
        visual = self.model.visual
        patches = visual.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([visual.class_embedding.expand(len(pixels), 1, -1), patches], dim=1)
        x = torch.cat([x + visual.positional_embedding, prompts[0].expand(len(pixels), -1, -1)], dim=1)
        place = x.shape[1] - self.n_ctx
        x = self._blocks(visual.transformer.resblocks, visual.ln_pre(x), prompts, place, None)
        features: Tensor = visual.ln_post(x[:, 0]) @ visual.proj
        return features

    def _blocks(
        self, blocks: nn.ModuleList, x: Tensor, prompts: Sequence[Tensor], place: int, mask: Tensor | None
    ) -> Tensor:
        """All blocks, each of the first ones with its prompt in the places from `place` on."""
        for i, block in enumerate(blocks):
            if 0 < i < len(prompts):
                prompt = prompts[i].expand(len(x), -1, -1)
                x = torch.cat([x[:, :place], prompt, x[:, place + self.n_ctx :]], dim=1)
            x = block(x, attn_mask=mask)
        return x
