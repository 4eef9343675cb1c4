"""Methods of dictionaries in the configuration; fields and defaults are those of `conceptbench.dictionaries.specs`."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from conceptbench.config.grid import allow_lists
from conceptbench.config.presets import PRESETS
from conceptbench.config.sections import Count, NonNegative, Positive, Section, Share
from conceptbench.config.sources import OWN_PATTERN, found

_Steps = Annotated[int, Field(ge=0)]
_Sample = Annotated[int, Field(ge=2)]


class _Method(Section):
    model_config = ConfigDict(json_schema_extra=allow_lists)

    normalise: bool = True
    """Subtract the mean of the training tokens and divide by one scale, stored in the dictionary."""

    @model_validator(mode="after")
    def _wide_enough(self) -> Self:
        width, k = getattr(self, "width", None), getattr(self, "k", None)
        if width is not None and k is not None and width < k:
            raise ValueError(f"width {width} is smaller than k {k}")
        return self


class _Trained(_Method):
    width: Count
    """Number of latents."""
    lr: Positive = 1e-3
    """Learning rate of Adam after the warm-up."""
    warmup_steps: _Steps = 200
    """Steps over which the learning rate rises linearly from 0."""
    decay_share: Share = 0.2
    """Last share of all steps over which the learning rate falls to 0; 0 keeps it constant."""
    decay: Literal["linear", "cosine"] = "linear"
    """Shape of that fall."""
    epochs: Count = 1
    """Passes over the training tokens."""
    batch_size: Annotated[int, Field(ge=2)] = 2048
    """Tokens per step."""
    dead_tokens: Count = 100_000
    """A latent that has not fired for this many tokens is dead."""


class _Revived(_Trained):
    aux_k: Count | None = None
    """Dead latents that predict the residual; null means half the number of features."""
    aux_alpha: NonNegative = 1 / 32
    """Weight of the AuxK loss; 0 switches it off."""


class _Started(_Trained):
    start: Literal["tokens", "random"] = "tokens"
    """Atoms at the start: centred training tokens blended with noise, or random directions."""


class _Selecting(_Revived):
    k: Count
    """Latents kept for each token, at most or on average."""


class TopK(_Started, _Selecting):
    """TopK autoencoder with the AuxK loss on dead latents (Gao et al., arXiv 2406.04093)."""

    method: Literal["topk"]
    k_start: Count | None = None
    """Latents kept on the first step, from where the number changes linearly to k; null means k."""
    k_steps: _Steps = 0
    """Steps over which it changes."""


def _preset_schema(schema: dict[str, Any]) -> None:
    """Say in the JSON schema that a preset stands for the required options."""
    allow_lists(schema)
    wanted = [name for name in schema["required"] if name != "method"]
    schema["required"] = ["method"]
    schema["anyOf"] = [{"required": ["preset"]}, {"required": wanted}]


class ReluL1(_Trained):
    """ReLU autoencoder with an L1 penalty (PatchSAE, arXiv 2412.05276)."""

    model_config = ConfigDict(json_schema_extra=_preset_schema)

    method: Literal["relu-l1"]
    preset: Literal["patchsae", "sae-v"] | None = Field(default=None, exclude=True)
    """A published recipe (`conceptbench.config.presets`), also for the required options; given options override it."""
    l1: NonNegative
    """Weight of the mean L1 norm of the codes."""
    l1_warmup_steps: _Steps = 0
    """Steps over which that weight rises linearly from 0."""
    norm_divided: bool = True
    """Divide squared errors by the token's norm and average over features, as PatchSAE does; else sum them."""
    ghost_gradients: bool = True
    """Let dead latents predict the residual through the exponential of their pre-activations."""
    init: Literal["decoder", "kaiming"] = "decoder"
    """Start the encoder as a copy of the atoms, or as an independent Kaiming-uniform draw."""

    @model_validator(mode="before")
    @classmethod
    def _filled(cls, written: Any) -> Any:
        """Put the recipe below what is written, so that stamps hold the values and not the name."""
        preset = written.get("preset") if isinstance(written, Mapping) else None
        if not isinstance(preset, str):
            return written
        if preset not in PRESETS:
            raise ValueError(f"preset '{preset}' is unknown; choose from {', '.join(sorted(PRESETS))}")
        return {**PRESETS[preset], **written}


class BatchTopK(_Started, _Selecting):
    """BatchTopK autoencoder (arXiv 2412.06410): k latents a token on average over a batch; one threshold encodes."""

    method: Literal["batch-topk"]


class Matryoshka(_Started, _Selecting):
    """Matryoshka BatchTopK autoencoder (arXiv 2503.17547): nested prefixes that each reconstruct the token."""

    method: Literal["matryoshka"]
    prefixes: tuple[Share, ...] = (0.0625, 0.125, 0.25, 0.5, 1.0)
    """Nested prefixes as shares of the width, rising to 1."""

    @model_validator(mode="after")
    def _nested(self) -> Self:
        rising = all(low < high for low, high in zip((0.0, *self.prefixes), self.prefixes, strict=False))
        if not self.prefixes or not rising or self.prefixes[-1] != 1:
            raise ValueError(f"prefixes are {list(self.prefixes)}, they must rise from above 0 to 1")
        return self


class JumpRelu(_Started, _Revived):
    """JumpReLU autoencoder (arXiv 2407.14435): a learnt threshold for each latent."""

    method: Literal["jump-relu"]
    sparsity: NonNegative
    """Weight of the sparsity penalty; the reconstruction loss is the batch's FVU."""
    penalty: Literal["l0", "target", "tanh"] = "l0"
    """Mean L0; squared relative deviation of the mean L0 from k; or mean of sum tanh(tanh_scale x code)."""
    k: Count | None = None
    """Mean L0 aimed at with the penalty `target`, which needs it; the others ignore it."""
    tanh_scale: Positive = 4.0
    """Steepness of the tanh penalty."""
    sparsity_warmup_steps: _Steps = 0
    """Steps over which the penalty's weight rises linearly from 0."""
    threshold: Positive = 1.0
    """Threshold of every latent at the start, in units of pre-activations."""
    bandwidth: Positive = 1.0
    """Width of the window around a threshold in which its pseudo-gradient is not 0."""

    @model_validator(mode="after")
    def _has_target(self) -> Self:
        if self.penalty == "target" and self.k is None:
            raise ValueError("the penalty target needs k, the mean L0 aimed at")
        return self


class Archetypal(_Selecting):
    """Relaxed archetypal TopK autoencoder (arXiv 2502.12892): atoms stay near the convex hull of the tokens."""

    method: Literal["archetypal"]
    candidates: _Sample = 1024
    """Points whose row-stochastic combinations are the atoms: k-means centres of the first training tokens."""
    relaxation: NonNegative = 0.1
    """Largest distance of an atom from its combination, as a share of the candidates' mean norm; 0: none."""


class Frozen(_Selecting):
    """Null: a TopK autoencoder whose random atoms stay as they were drawn, so that only the encoder learns."""

    method: Literal["frozen"]


class _Sampled(_Method):
    sample: _Sample = 32_768
    """Training tokens it is fitted to: a uniform sample of all of them, drawn under the seed."""

    @model_validator(mode="after")
    def _enough_tokens(self) -> Self:
        width = getattr(self, "width", None)
        if width is not None and self.sample < width:
            raise ValueError(f"sample {self.sample} is smaller than width {width}")
        return self


class KSvd(_Method):
    """K-SVD in chunks, coded by orthogonal matching pursuit (DB-KSVD, arXiv 2505.18441), signed or non-negative."""

    method: Literal["k-svd"]
    width: Count
    """Number of atoms; signed codes have twice as many latents."""
    k: Count
    """Atoms used for each token, at most."""
    sign: Literal["positive", "split"] = "split"
    """Coefficients are never negative, or of both signs, which two latents an atom keep apart."""
    epochs: Count = 3
    """Passes over the training tokens."""
    batch_size: Annotated[int, Field(ge=2)] = 65_536
    """Tokens of a chunk, on which the tokens are coded and all atoms are updated once."""
    init: Literal["data", "uniform"] = "data"
    """The first atoms are random training tokens, or uniform draws from a cube."""
    block_size: Count | None = None
    """Atoms updated in parallel, at most; 1 is the serial K-SVD, null takes more the sparser the codes are."""
    power_steps: Count = 3
    """Alternations of an atom and its coefficients in an update: power steps for the top singular pair."""


class KMeans(_Sampled):
    """k-means (scikit-learn's MiniBatchKMeans): a token is its nearest centre."""

    method: Literal["k-means"]
    width: _Sample
    """Number of centres."""


class KMeansPursuit(_Sampled):
    """k-means whose centres' directions are combined by non-negative orthogonal matching pursuit."""

    method: Literal["k-means-omp"]
    width: _Sample
    """Number of centres."""
    k: Count
    """Centres used for each token, at most."""


class Ica(_Sampled):
    """Independent components (scikit-learn's FastICA), each split into its positive and its negative part."""

    method: Literal["ica"]
    sample: _Sample = 16_384
    """Training tokens it is fitted to: a uniform sample of all of them, drawn under the seed."""
    k: Count
    """Components kept for each token, at most."""
    components: Count | None = None
    """Number of components; null means as many as features."""
    max_iter: Count = 200
    """Iterations of FastICA, at most; the card says whether they were enough."""

    @model_validator(mode="after")
    def _enough_components(self) -> Self:
        if self.components is not None and self.components < self.k:
            raise ValueError(f"components {self.components} is smaller than k {self.k}")
        return self


class SemiNmf(_Sampled):
    """Semi-NMF (Ding, Li and Jordan 2010): free atoms, non-negative codes; tokens are encoded by matching pursuit."""

    method: Literal["semi-nmf"]
    sample: _Sample = 16_384
    """Training tokens it is fitted to: a uniform sample of all of them, drawn under the seed."""
    width: _Sample
    """Number of latents."""
    k: Count
    """Latents used for each token, at most."""
    iterations: Count = 60
    """Rounds of updates of the codes and the atoms."""


class Random(_Method):
    """Null: random unit atoms, the k largest coordinates kept."""

    method: Literal["random"]
    width: Count
    """Number of latents."""
    k: Count
    """Latents kept for each token, at most."""


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


class Own(_Method):
    """A class of your own, `package.module:Class`; docs/extend.md says what it must have."""

    method: Annotated[str, Field(pattern=OWN_PATTERN), AfterValidator(found)]
    """Where the class is; its module is looked for on Python's path and in the working folder."""
    width: Count
    """Number of latents."""
    epochs: Count = 1
    """Passes over the training tokens."""
    batch_size: Annotated[int, Field(ge=2)] = 2048
    """Tokens in each call of `partial_fit`."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Further keyword arguments of the class."""
