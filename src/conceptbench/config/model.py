"""The whole configuration and the references between its sections."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from conceptbench.config.adaptations import Adaptations, needs_text, prompt_depths
from conceptbench.config.backbones import BackboneSpec, has_text, known_blocks, known_prompt_depth
from conceptbench.config.datasets import (
    DatasetSpec,
    Scenes,
    has_classes,
    needs_data_root,
    train_images_per_class,
)
from conceptbench.config.dictionaries import Dictionaries
from conceptbench.config.kinds import Kinds
from conceptbench.config.measures import Figures, Measures
from conceptbench.config.names import nearest
from conceptbench.config.recording import Record
from conceptbench.config.sections import Index, Indices, Name, Section
from conceptbench.config.synthetic import Synthetic, swept_methods


class Config(Section):
    """One experiment, in the order of the workflow. Things are named once and referred to by name."""

    experiment: Name
    """Name of the experiment; its results go to `results/<experiment>`."""
    seed: Index = 0
    """Every random stream derives from this number and the names of the things it serves."""
    seeds: Indices = (0, 1, 2)
    """Repetitions of dictionary learning and adaptation."""
    data_root: str | None = None
    """Folder with the real data sets."""
    downloads: Literal["never", "missing"] = "never"
    """Whether published data sets that are not below `data_root` may be downloaded into it."""
    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    """auto: a GPU when the job was granted one, else the CPU; or `cpu`, `cuda`, `cuda:<number>`."""
    datasets: Annotated[dict[Name, DatasetSpec], Field(min_length=1)]
    """Data sets by name."""
    backbones: Annotated[dict[Name, BackboneSpec], Field(min_length=1)]
    """Backbones by name."""
    hooks: Annotated[dict[Name, Indices], Field(min_length=1)]
    """Blocks (0-based) of each backbone whose output is recorded."""
    record: Record = Record()
    """How activations are recorded."""
    dictionaries: Dictionaries
    """Sparse dictionaries."""
    synthetic: Synthetic = Synthetic()
    """Recovery of known atoms on synthetic activations."""
    kinds: Kinds | None = None
    """Named kinds: dictionaries over the outputs of backbones; null leaves them out."""
    adaptations: Adaptations
    """Adaptations and their tasks."""
    measures: Measures
    """Measures."""
    figures: Figures = Figures()
    """Figures."""

    @model_validator(mode="after")
    def _check_references(self) -> Self:
        self._check_datasets()
        self._check_hooks()
        self._check_adaptations()
        self._check_measures()
        self._check_synthetic()
        self._check_kinds()
        return self

    def _refer(self, where: str, name: str, among: tuple[str, ...], what: str) -> None:
        if name not in among:
            raise ValueError(f"'{where}' names {what} '{name}', which does not exist{nearest(name, among)}")

    def _check_datasets(self) -> None:
        names = tuple(self.datasets)
        self._refer("dictionaries.train_on", self.dictionaries.train_on, names, "the data set")
        for name, spec in self.datasets.items():
            if needs_data_root(spec) and self.data_root is None:
                raise ValueError(f"the data set '{name}' is looked for under 'data_root', which is not set; set it")
        spec = self.datasets[self.dictionaries.train_on]
        wanted = self.dictionaries.images
        if isinstance(spec, Scenes) and wanted is not None and wanted > spec.sizes.train:
            where = f"'datasets.{self.dictionaries.train_on}.sizes.train' is {spec.sizes.train}"
            raise ValueError(f"'dictionaries.images' is {wanted}, but {where}; lower the first or raise the second")

    def _check_hooks(self) -> None:
        for backbone, blocks in self.hooks.items():
            self._refer("hooks", backbone, tuple(self.backbones), "the backbone")
            depth = known_blocks(self.backbones[backbone])
            if depth is not None and blocks[-1] >= depth:
                last = f"its blocks are 0 to {depth - 1}"
                raise ValueError(f"'hooks.{backbone}' asks for block {blocks[-1]}, but {last}; choose one of these")

    def _check_adaptations(self) -> None:
        chosen = self.adaptations
        self._refer("adaptations.backbone", chosen.backbone, tuple(self.backbones), "the backbone")
        for task in chosen.tasks:
            self._refer("adaptations.tasks", task, tuple(self.datasets), "the data set")
            if not has_classes(self.datasets[task]):
                raise ValueError(f"'adaptations.tasks' names '{task}', a data set without classes; choose another")
            available = train_images_per_class(self.datasets[task])
            if available is not None and chosen.shots > available:
                have = f"'{task}' has {available} training images in a class"
                raise ValueError(f"'adaptations.shots' is {chosen.shots}, but {have}; lower it or add images")
        if chosen.tasks and not chosen.methods:
            raise ValueError("'adaptations.tasks' is given, but 'adaptations.methods' is empty; add a method")
        self._check_methods()

    def _check_methods(self) -> None:
        spec = self.backbones[self.adaptations.backbone]
        deepest = {"image": known_blocks(spec), "both": known_prompt_depth(spec)}
        for name, method in self.adaptations.methods.items():
            if needs_text(method) and not has_text(spec):
                text = f"the backbone '{self.adaptations.backbone}' has none"
                others = "linear-probe, vpt-deep or clip-lora with towers: image"
                raise ValueError(f"'adaptations.methods.{name}' needs a text tower, but {text}; use {others}")
            for field, towers in prompt_depths(method).items():
                wanted, blocks = getattr(method, field), deepest[towers]
                if blocks is not None and wanted > blocks:
                    tower = "its image tower" if towers == "image" else "its smaller tower"
                    has = f"'{self.adaptations.backbone}' has {blocks} blocks in {tower}"
                    raise ValueError(f"'adaptations.methods.{name}.{field}' is {wanted}, but {has}; lower it")

    def _check_measures(self) -> None:
        chosen, backbone = self.measures, self.adaptations.backbone
        self._refer("measures.dictionary", chosen.dictionary, tuple(self.dictionaries.methods), "the dictionary")
        if self.adaptations.tasks and chosen.block not in self.hooks.get(backbone, ()):
            recorded = list(self.hooks.get(backbone, ()))
            raise ValueError(f"'measures.block' is {chosen.block}, but 'hooks.{backbone}' records {recorded}; add it")
        for name in chosen.embed_with:
            self._refer("measures.embed_with", name, tuple(self.backbones), "the backbone")
        for name in self.dictionaries.halves:
            self._refer("dictionaries.halves", name, tuple(self.dictionaries.methods), "the dictionary")
        for where, section in (("masking", chosen.masking), ("concepts", chosen.concepts)):
            for name in (section.methods if section else None) or ():
                self._refer(f"measures.{where}.methods", name, tuple(self.adaptations.methods), "the adaptation")
        for name in chosen.concepts.relearn if chosen.concepts else ():
            self._refer("measures.concepts.relearn", name, tuple(self.adaptations.methods), "the adaptation")
        if chosen.plants is not None and chosen.plants.task is not None:
            self._refer("measures.plants.task", chosen.plants.task, self.adaptations.tasks, "the task")
        for name in chosen.latents_on:
            self._refer("measures.latents_on", name, tuple(self.datasets), "the data set")
        if chosen.truth_on is not None:
            self._refer("measures.truth_on", chosen.truth_on, tuple(self.datasets), "the data set")
            if not isinstance(self.datasets[chosen.truth_on], Scenes):
                raise ValueError(
                    f"'measures.truth_on' names '{chosen.truth_on}', which is no rendered scenes; set null"
                )

    def embedding_of(self, backbone: str) -> str | None:
        """Return the backbone whose image embeddings judge the latents of this one; None when there is no other."""
        others = (name for name in self.measures.embed_with if name in self.hooks and name != backbone)
        return next(others, None)

    def _check_synthetic(self) -> None:
        for name in self.synthetic.methods or ():
            self._refer("synthetic.methods", name, tuple(self.dictionaries.methods), "the dictionary")
        if self.synthetic.worlds:
            swept_methods(self.synthetic, self.dictionaries.methods)

    def _check_kinds(self) -> None:
        if self.kinds is None:
            return
        self._refer("kinds.dataset", self.kinds.dataset, tuple(self.datasets), "the data set")
        if not isinstance(self.datasets[self.kinds.dataset], Scenes):
            raise ValueError(f"'kinds.dataset' names '{self.kinds.dataset}', which is no rendered scenes; choose one")
        for name in self.kinds.backbones:
            self._refer("kinds.backbones", name, tuple(self.hooks), "the backbone with hooks")

    def recorded(self, backbone: str) -> tuple[str, ...]:
        """Return the data sets whose activations of this backbone are recorded, in the order of `datasets`."""
        wanted = {self.dictionaries.train_on}
        if self.measures.truth_on is not None:
            wanted.add(self.measures.truth_on)
        if backbone == self.adaptations.backbone:
            wanted |= {*self.adaptations.tasks, *self.measures.latents_on}
        return tuple(name for name in self.datasets if name in wanted)

    def used_datasets(self) -> tuple[str, ...]:
        """Return the data sets that any part of the workflow reads; others are never prepared."""
        wanted = {name for backbone in self.hooks for name in self.recorded(backbone)} | set(self.adaptations.tasks)
        if self.kinds is not None:
            wanted.add(self.kinds.dataset)
        return tuple(name for name in self.datasets if name in wanted)
