"""What a plan is made of: jobs with the amounts of work in them, and the experiment from which they follow."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Final, Literal, TypeAlias

from conceptbench.adaptation import moves_images
from conceptbench.config import Config, DictionaryMethod
from conceptbench.config.stages import DETERMINISTIC
from conceptbench.planning.images import Images, images_of
from conceptbench.planning.towers import Tower, tower_of

Unit: TypeAlias = Literal[
    "job", "image", "file", "picture", "pass", "forward_gflop", "training_gflop", "step", "token", "learning_gflop",
    "encoding_gflop", "firing", "latent_image", "assignment", "edit_gflop", "repetition", "stored_gib",
]  # fmt: skip
"""In what work is counted.

job: once. image: described or drawn. file: read and decoded. picture: drawn and trained on. pass: one image through a
tower, whatever its size. forward_gflop, training_gflop: 1e9 operations of a backbone. step: one of an optimiser.
token: seen by one dictionary in training. learning_gflop, encoding_gflop: 1e9 operations of products with an encoder,
or of atoms with atoms.
firing: a stored value of a code. latent_image: one latent on one image. assignment: 1e9 operations of matching latents
(the cube of the width). edit_gflop: 1e9 operations of the blocks behind a hook point. repetition: one of a planted
adaptation. stored_gib: 2^30 bytes of activations, read and verified.
"""

Folder: TypeAlias = Literal[
    "data sets", "backbones", "activations", "dictionaries", "codes", "outputs", "synthetic", "adapters", "adapted",
    "tables", "figures",
]  # fmt: skip
"""Where results lie."""

VALUE_BYTES: Final = 2
"""A stored activation (float16)."""
FIRING_BYTES: Final = 8
"""A stored firing: its latent and its value."""
INDEX_BYTES: Final = 8
"""Where a token's firings begin."""


@dataclass(frozen=True)
class Job:
    """One job of the workflow."""

    rule: str
    name: str = ""
    """Its wildcards, joined by dots."""
    needs: tuple[str, ...] = ()
    """Jobs (`rule/name`) and rules (all their jobs) that come before it."""
    amounts: Mapping[Unit, float] = field(default_factory=lambda: {"job": 1.0})
    threads: int = 1
    gpu: bool = False
    """Whether it can use a GPU."""
    priority: int = 0
    arrays: float = 0.0
    """Bytes of arrays in memory at its peak that grow with the experiment."""
    leaves: Mapping[Folder, float] = field(default_factory=dict)
    """Bytes of its results by folder."""
    images: float = 0.0
    """Images that it describes or passes through a tower, each as often as it does; 0 where there are none."""
    tokens: float = 0.0
    """Tokens that it records, learns from or encodes, each as often as it does; 0 where there are none."""
    gpus: int = 1
    """GPUs that it takes where it can use one."""
    divided: float = 0.0
    """Share of its `learning_gflop` that its GPUs divide; each of them does all the others."""

    @property
    def label(self) -> str:
        """`rule/name`, or the rule alone."""
        return f"{self.rule}/{self.name}" if self.name else self.rule


@dataclass(frozen=True)
class Learnt:
    """A dictionary of the configuration at one hook point of width d."""

    name: str
    method: str
    latents: int
    """Latents of a code; two an atom where coefficients have signs."""
    l0: float | None
    """Firings of a token, where the method fixes them; None for penalised methods."""
    seeds: int
    batch_size: int
    epochs: int
    trained: bool
    """Whether it is learnt by steps over all tokens."""

    @classmethod
    def of(cls, name: str, spec: DictionaryMethod, d: int, seeds: int) -> "Learnt":
        """Read what a plan needs from the section of a method."""
        options = spec.model_dump()
        signed = spec.method in ("raw", "pca", "ica") or options.get("sign") == "split"
        width = int(options.get("width") or d)
        return cls(
            name=name,
            method=spec.method,
            latents=2 * width if signed else width,
            l0=1.0 if spec.method == "k-means" else options.get("k"),
            seeds=1 if spec.method in DETERMINISTIC else seeds,
            batch_size=int(options.get("batch_size") or 0),
            epochs=int(options.get("epochs") or 1),
            trained="lr" in options,
        )

    def firings(self, penalised: float) -> float:
        """Firings of a token; `penalised` stands for methods whose penalty decides."""
        return float(self.l0) if self.l0 is not None else min(penalised, self.latents)


@dataclass(frozen=True)
class Study:
    """An experiment, with everything a plan asks of it again and again."""

    config: Config
    penalised_l0: float = 32.0
    """Firings of a token under a penalty, as measured; the configuration does not tell."""

    @cached_property
    def images(self) -> dict[str, Images]:
        """Images of the data sets that any part of the workflow reads."""
        root = Path(self.config.data_root) if self.config.data_root else None
        return {name: images_of(name, self.config.datasets[name], root) for name in self.config.used_datasets()}

    @cached_property
    def towers(self) -> dict[str, Tower]:
        """Sizes of the backbones with hook points."""
        return {name: tower_of(name, self.config.backbones[name]) for name in self.config.hooks}

    @property
    def adapted(self) -> str:
        """The backbone that is adapted."""
        return self.config.adaptations.backbone

    @property
    def tasks(self) -> tuple[str, ...]:
        """Tasks of the adaptations."""
        return self.config.adaptations.tasks

    @property
    def seeds(self) -> int:
        """Repetitions."""
        return len(self.config.seeds)

    @cached_property
    def moving(self) -> tuple[str, ...]:
        """Adaptations that change what the image tower computes."""
        methods = self.config.adaptations.methods
        return tuple(name for name, spec in methods.items() if moves_images(spec.model_dump()))

    @property
    def learning(self) -> tuple[str, ...]:
        """Adaptations besides zero-shot."""
        return tuple(name for name in self.config.adaptations.methods if name not in self.before)

    @cached_property
    def before(self) -> tuple[str, ...]:
        """Zero-shot, under its names."""
        methods = self.config.adaptations.methods
        return tuple(name for name, spec in methods.items() if spec.method == "zero-shot")

    def dictionaries(self, backbone: str) -> list[Learnt]:
        """Dictionaries of every hook point of a backbone."""
        methods, width = self.config.dictionaries.methods, self.towers[backbone].image.width
        return [Learnt.of(name, spec, width, self.seeds) for name, spec in methods.items()]

    def followed(self) -> Learnt:
        """The dictionary that the measures of adaptations follow."""
        name = self.config.measures.dictionary
        return next(learnt for learnt in self.dictionaries(self.adapted) if learnt.name == name)

    def token_bytes(self, learnt: Learnt) -> float:
        """Bytes of the code of a token."""
        return INDEX_BYTES + FIRING_BYTES * learnt.firings(self.penalised_l0)

    def blocks(self, backbone: str) -> int:
        """Hook points of a backbone."""
        return len(self.config.hooks[backbone])
