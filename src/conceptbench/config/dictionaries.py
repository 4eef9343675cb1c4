"""Dictionaries of the configuration; the fields and defaults are those of `conceptbench.dictionaries.specs`."""

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from conceptbench.config.sections import Count, Name, NonNegative, Positive, Section, Share


class _Method(Section):
    normalise: bool = True
    """Subtract the mean of the training tokens and divide by one scale, stored in the dictionary."""


class _TrainedMethod(_Method):
    width: Count
    """Number of latents."""
    lr: Positive = 1e-3
    """Learning rate of Adam after the warm-up."""
    warmup_steps: Annotated[int, Field(ge=0)] = 200
    """Steps over which the learning rate rises linearly from 0."""
    decay_share: Share = 0.2
    """Last share of all steps over which the learning rate falls linearly to 0; 0 keeps it constant."""
    epochs: Count = 1
    """Passes over the training tokens."""
    batch_size: Annotated[int, Field(ge=2)] = 2048
    """Tokens per step."""
    dead_tokens: Count = 100_000
    """A latent that has not fired for this many tokens is dead."""


class TopK(_TrainedMethod):
    """TopK autoencoder with the AuxK loss on dead latents (Gao et al., arXiv 2406.04093)."""

    method: Literal["topk"]
    k: Count
    """Latents kept for each token, at most."""
    aux_k: Count | None = None
    """Dead latents that predict the residual; null means half the number of features."""
    aux_alpha: NonNegative = 1 / 32
    """Weight of the AuxK loss; 0 switches it off."""

    @model_validator(mode="after")
    def _wide_enough(self) -> Self:
        if self.width < self.k:
            raise ValueError(f"width {self.width} is smaller than k {self.k}")
        return self


class ReluL1(_TrainedMethod):
    """ReLU autoencoder with an L1 penalty (PatchSAE, arXiv 2412.05276)."""

    method: Literal["relu-l1"]
    l1: NonNegative
    """Weight of the mean L1 norm of the codes."""
    l1_warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Steps over which that weight rises linearly from 0."""
    norm_divided: bool = True
    """Divide squared errors by the token's norm and average over features, as PatchSAE does; else sum them."""
    ghost_gradients: bool = True
    """Let dead latents predict the residual through the exponential of their pre-activations."""
    init: Literal["decoder", "kaiming"] = "decoder"
    """Start the encoder as a copy of the atoms, or as an independent Kaiming-uniform draw."""


class Random(_Method):
    """Null: random unit atoms, the k largest coordinates kept."""

    method: Literal["random"]
    width: Count
    """Number of latents."""
    k: Count
    """Latents kept for each token, at most."""

    @model_validator(mode="after")
    def _wide_enough(self) -> Self:
        if self.width < self.k:
            raise ValueError(f"width {self.width} is smaller than k {self.k}")
        return self


class Raw(_Method):
    """Null: the coordinates themselves, each split into its positive and its negative part."""

    method: Literal["raw"]
    k: Count | None = None
    """Coordinates kept for each token, at most; null keeps all."""


class Pca(_Method):
    """Null: principal components, each split into its positive and its negative part."""

    method: Literal["pca"]
    k: Count
    """Scores kept for each token, at most."""
    components: Count | None = None
    """Leading components used; null means all."""

    @model_validator(mode="after")
    def _enough_components(self) -> Self:
        if self.components is not None and self.components < self.k:
            raise ValueError(f"components {self.components} is smaller than k {self.k}")
        return self


DictionaryMethod: TypeAlias = Annotated[TopK | ReluL1 | Random | Raw | Pca, Field(discriminator="method")]
"""Every method, told apart by `method`."""


class Dictionaries(Section):
    """Sparse dictionaries, learnt for every hook point of every backbone."""

    train_on: Name
    """Data set whose train split the dictionaries learn from; its val split is held out for their metrics."""
    images: Count | None = None
    """Use only this many training images; null uses all."""
    methods: Annotated[dict[Name, DictionaryMethod], Field(min_length=1)]
    """Dictionaries by name."""
    halves: tuple[Name, ...] = ()
    """Dictionaries that are also learnt on two disjoint halves of the training images, for their stability."""
