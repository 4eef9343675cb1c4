"""Planted adaptations: the adapted model is made by hand, so that what it changed is known.

A plant changes the text side by new class vectors, and the image side by a hook at one block that adds, on the images
of affected classes, a direction of its own or a multiple of latents that already fire. Which images are of an affected
class the plant is told: it stands for a tower that tells them apart.

* relabel: class vectors move towards the classes' image features; the image side is untouched. Perception is exactly 0
  and nothing is recruited.
* recruit: an atom that fires on no image appears on images of a class, and the class vector reads it. All is recruited.
  The atom is one that the dictionary measures well (`plant_recruit`).
* recruit-any: the same with any silent atom.
* amplify: latents that already speak for a class fire more strongly; the class vectors stay. Mapping is exactly 0 and
  nothing is recruited.
* mixed: some classes recruit, some amplify, all others are relabelled; the shares are known for every seed.
* null: nothing changes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from conceptbench.dictionaries import Codes, Dictionary
from conceptbench.errors import ConceptBenchError
from conceptbench.measures.association import Effects
from conceptbench.measures.edits import Firings, atoms_in_raw_units, removal
from conceptbench.measures.plant_recruit import recruit
from conceptbench.measures.readout import Activations, Readout
from conceptbench.measures.selection import Selected

if TYPE_CHECKING:
    from conceptbench.backbones import Backbone

PlantName = Literal["relabel", "recruit", "recruit-any", "amplify", "mixed", "null"]
PLANTS: Final[tuple[PlantName, ...]] = ("relabel", "recruit", "recruit-any", "amplify", "mixed", "null")
TEXT_STEP: Final = 0.4
"""How far relabel moves a class vector of unit length along the class's centred image feature."""
RELABEL_SHOTS: Final = 8
"""Images of each class of which that feature is the mean."""
MIXED_TEXT_STEP: Final = 0.1
"""The same where other classes recruit: a small step, so that these are not outshouted."""
RECRUIT_SHARE: Final = 0.6
"""Share of images on which a recruited direction appears, by a random linear test of the image's mean token."""
AMPLIFIED: Final = 20
"""Latents of a class that amplify strengthens."""
AMONG: Final = 26
"""They are drawn among so many."""
AMPLIFY_BY: Final = 0.5
"""Share by which they are strengthened."""
KNOWN_ON: Final = 0.3
"""A latent that is amplified fires on at least this share of the class's images."""


@dataclass(frozen=True, eq=False)
class Plant:
    """An adapted model with the interface of an adapter, once it has been told the classes of its images."""

    name: PlantName
    block: int
    dictionary: Dictionary
    class_names: tuple[str, ...]
    texts: Float[Tensor, "class embed"]
    """Class vectors of the adapted text side; their length counts."""
    added: Float[Tensor, "class feature"]
    """The recruited direction of each class; zero for the others."""
    gate: Float[Tensor, " feature"]
    """A recruited direction appears on images whose mean token has more than `level` along this."""
    level: float
    gains: Float[np.ndarray, "class latent"]
    """By which multiple of itself each latent is strengthened on images of each class."""

    def change(
        self,
        tokens: Float[Tensor, "image token feature"],
        targets: Int64[np.ndarray, " image"],
        *,
        recruited: bool = True,
    ) -> Float[Tensor, "image token feature"]:
        """The adapted model's activations at the hook point; without what was recruited for the known truth.

        Activations of a plant that does not touch the image side are the tensor itself.
        """
        out = tokens
        if self.gains.any():
            codes = self.dictionary.encode(tokens.float().cpu().numpy())
            firings = Firings.of(codes)
            factor = self.gains[targets[firings.image], firings.latent].astype(np.float32)
            stronger = Firings(firings.row, firings.latent, firings.value * factor, firings.shape)
            out = out + removal(stronger, factor > 0, atoms_in_raw_units(self.dictionary, tokens))
        if recruited and bool(self.added.any()):
            there = (tokens.mean(dim=1) @ self.gate.to(tokens) > self.level).to(tokens)
            out = out + there[:, None, None] * self.added.to(tokens)[torch.from_numpy(targets)][:, None]
        return out

    def classify(
        self, backbone: Backbone, features: Float[Tensor, "image embed"], class_names: Sequence[str]
    ) -> Float[Tensor, "image class"]:
        """Logits of image features under the planted class vectors."""
        rows = [self.class_names.index(name) for name in class_names]
        return backbone.logit_scale * F.normalize(features, dim=-1) @ self.texts[rows].T

    def missing_note(self, class_names: Sequence[str]) -> str:
        """Why these classes cannot be scored; empty when they can."""
        missing = [name for name in class_names if name not in self.class_names]
        return f"the plant has no class vector for {', '.join(missing)}" if missing else ""

    @contextmanager
    def image_context(self, backbone: Backbone) -> Iterator[None]:
        """The blocks above the hook point are those of the backbone."""
        yield

    @contextmanager
    def told(self, backbone: Backbone, targets: Int64[np.ndarray, " image"]) -> Iterator[None]:
        """Inside it the backbone's image tower is the planted one, for one batch of images of these classes.

        Raises:
            ConceptBenchError: when a batch of another size goes through.
        """

        def hook(_module: Any, _inputs: Any, output: Tensor) -> Tensor:
            """Change the activations at the hook point."""
            if len(output) != len(targets):
                raise ConceptBenchError(
                    f"The plant was told the classes of {len(targets)} images, but {len(output)} went through; "
                    "tell it those of each batch."
                )
            return self.change(output, targets)

        handle = backbone.vision_blocks[self.block].register_forward_hook(hook)
        try:
            yield
        finally:
            handle.remove()


@dataclass(frozen=True, eq=False)
class Soil:
    """What a plant grows on: the zero-shot model on split A, encoded."""

    readout: Readout
    activations: Activations
    codes: Codes
    dictionary: Dictionary
    selected: Selected
    texts: Float[Tensor, "class embed"]
    """Class vectors of the zero-shot model, of unit length."""
    features: Float[Tensor, "image embed"]
    """Image features, of unit length."""
    effects: Effects
    """First-order effects: which latents speak for which class."""
    probabilities: Float[np.ndarray, "image class"]
    """Predictions of the zero-shot model."""


def grow(name: PlantName, soil: Soil, rng: np.random.Generator) -> Plant:
    """A plant on classes that leave room for a gain, drawn at random, with random atoms.

    Raises:
        ConceptBenchError: when there are fewer than three classes, or too few latents are silent.
    """
    classes = len(soil.texts)
    if classes < 3:
        raise ConceptBenchError(f"A plant needs at least three classes, not {classes}; take another task.")
    poor = np.argsort(_accuracies(soil), kind="stable")
    groups = _groups(name, poor, rng)
    texts = soil.texts.clone()
    added = torch.zeros(classes, soil.dictionary.d, dtype=torch.float32, device=texts.device)
    gains = np.zeros((classes, soil.dictionary.width))
    step = MIXED_TEXT_STEP if name == "mixed" else TEXT_STEP
    _relabel(soil, groups.get("relabel", poor[:0]), texts, step, rng)
    recruit(soil, groups.get("recruit", poor[:0]), texts, added, rng, tuned=name != "recruit-any")
    for label in groups.get("amplify", ()):
        gains[label, _speakers(soil, int(label), rng)] = AMPLIFY_BY
    gate = torch.from_numpy(rng.normal(size=soil.dictionary.d).astype(np.float32))
    strength = soil.activations.tokens.mean(dim=1) @ gate.to(soil.activations.tokens)
    level = float(torch.quantile(strength.float(), 1 - RECRUIT_SHARE))
    names = soil.readout.class_names
    return Plant(name, soil.readout.block, soil.dictionary, names, texts, added, gate, level, gains)


def _accuracies(soil: Soil) -> Float[np.ndarray, " class"]:
    targets = soil.activations.targets
    right = soil.probabilities.argmax(axis=1) == targets
    return np.bincount(targets, weights=right) / np.bincount(targets)


def _groups(name: PlantName, poor: NDArray[np.int64], rng: np.random.Generator) -> dict[str, NDArray[np.int64]]:
    """Which classes are affected, and how; `poor` lists the classes from the lowest zero-shot accuracy on.

    Recruited directions go to the poorest third, where the readout's threshold costs no image that was right.
    """
    third, half = max(2, len(poor) // 3), max(2, len(poor) // 2)
    match name:
        case "relabel":
            return {"relabel": poor}
        case "recruit" | "recruit-any":
            return {"recruit": rng.permutation(poor[:third])[: max(1, third - 1)]}
        case "amplify":
            return {"amplify": rng.permutation(poor[:half])[: max(1, half - 1)]}
        case "mixed":
            recruit = rng.permutation(poor[:third])[: max(1, third // 2)]
            rest = np.setdiff1d(poor, recruit)
            amplify = rng.permutation(np.setdiff1d(poor[:half], recruit))[: max(1, half // 3)]
            return {"recruit": recruit, "amplify": amplify, "relabel": rest}
        case "null":
            return {}


def _relabel(soil: Soil, labels: NDArray[np.int64], texts: Tensor, step: float, rng: np.random.Generator) -> None:
    """Move class vectors along the classes' image features, centred over these classes, in place.

    The features are means over a few images of each class, as an adaptation would have them.
    """
    if not len(labels):
        return
    means = []
    for label in labels:
        mine = np.flatnonzero(soil.activations.targets == label)
        means.append(soil.features[rng.choice(mine, min(RELABEL_SHOTS, len(mine)), replace=False)].mean(dim=0))
    towards = torch.stack(means)
    texts[labels] += step * F.normalize(towards - towards.mean(dim=0), dim=-1)


def _speakers(soil: Soil, label: int, rng: np.random.Generator) -> Int64[np.ndarray, " latent"]:
    """Latents that the class has and that speak for it, drawn among the best ones.

    What counts is the first-order effect on the logit of the class less that on its strongest rival of each image.
    """
    mine = soil.activations.targets == label
    effect, rivals = soil.effects.effect[mine], soil.probabilities[mine].copy()
    rivals[:, label] = -1
    raised = (effect[:, label] - effect[np.arange(len(effect)), rivals.argmax(axis=1)]).mean(axis=0)
    known: Bool[np.ndarray, " column"] = soil.selected.class_share[label, soil.effects.latents] >= KNOWN_ON
    usable = known & (raised > 0)
    order = np.argsort(-np.where(usable, raised, -np.inf), kind="stable")
    best = order[: min(AMONG, int(usable.sum()))]
    return np.asarray(soil.effects.latents[rng.permutation(best)[:AMPLIFIED]])
