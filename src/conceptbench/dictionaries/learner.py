"""What the training engine asks of a method, and the parts that the trained methods share."""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

from conceptbench.dictionaries.dictionary import Dictionary
from conceptbench.dictionaries.normaliser import Normaliser
from conceptbench.dictionaries.rules import CodeRule
from conceptbench.dictionaries.specs import Start

MEDIAN_ITERATIONS = 100
MEDIAN_TOLERANCE = 1e-5
MEDIAN_PART = 4_096
SCALE_TOKENS = 8192
Precision: TypeAlias = Literal["auto", "bf16", "fp32"]
"""Of the product that proposes candidates; `auto` is bfloat16 where the processor multiplies it natively."""
TOKEN_SHARE = 0.8
"""Part of the token in an atom that starts from one, before it is normalised."""
TINY = float(torch.finfo(torch.float32).tiny)


@dataclass(eq=False)
class Sample:
    """The first training tokens, normalised, with what is worked out of them once for all dictionaries."""

    tokens: Float[Tensor, "token feature"]

    @cached_property
    def median(self) -> Float[Tensor, "feature"]:
        """The geometric median."""
        return geometric_median(self.tokens)


@dataclass(frozen=True, eq=False)
class Setting:
    """What a learner is given at the start; tokens are normalised already."""

    sample: Float[Tensor, "token feature"]
    """The first training tokens, for initial values."""
    normaliser: Normaliser
    generator: torch.Generator
    total_steps: int | None
    device: torch.device
    shared: Sample | None = None
    """The sample as all dictionaries of one call share it."""
    candidates: Precision = "auto"
    """Precision in which firing latents are proposed on a CPU: it changes the speed, never the result."""

    def median(self) -> Float[Tensor, "feature"]:
        """Return the geometric median of the sample; a copy."""
        return (self.shared or Sample(self.sample)).median.clone()


@dataclass(frozen=True)
class StepReport:
    """One step on one batch; `fvu` is that of the batch, before the step."""

    loss: float
    fvu: float
    l0: float
    dead_share: float


class Learner(Protocol):
    """A method in training: fed with normalised batches of its specification's size, then asked for the dictionary."""

    def step(self, x: Float[Tensor, "token feature"]) -> StepReport | None:
        """Learn from one batch; None when the method has nothing to report."""

    def finish(self) -> Dictionary:
        """Return what was learnt."""


@dataclass(eq=False)
class Parameters:
    """The four tensors of an autoencoder; atoms are rows of unit norm and share no memory with the encoder."""

    atoms: Float[Tensor, "latent feature"]
    encoder: Float[Tensor, "latent feature"]
    encoder_bias: Float[Tensor, "latent"]
    decoder_bias: Float[Tensor, "feature"]

    @classmethod
    def start(cls, width: int, k: int | None, setting: Setting, start: Start = "random") -> "Parameters":
        """Unit atoms, the encoder a scaled copy of them, the decoder bias at the geometric median of the tokens.

        The scale is the one of least squared error on the sample, so that training starts with neither a vanishing
        nor an overshooting reconstruction.
        """
        atoms = starting_atoms(width, setting, start)
        centre = setting.median()
        encoder = atoms * tied_scale(setting.sample[:SCALE_TOKENS] - centre, atoms, k)
        return cls(*(tensor.to(setting.device) for tensor in (atoms, encoder, atoms.new_zeros(width), centre)))

    def all(self) -> list[Tensor]:
        """Return the tensors in a fixed order."""
        return [self.atoms, self.encoder, self.encoder_bias, self.decoder_bias]

    def dictionary(self, normaliser: Normaliser, rule: CodeRule) -> Dictionary:
        """Freeze the parameters into a dictionary."""
        atoms, encoder, encoder_bias, decoder_bias = (to_numpy(tensor) for tensor in self.all())
        return Dictionary(atoms, encoder, encoder_bias, decoder_bias, normaliser, rule)


class FiringClock:
    """Tokens since each latent last fired; dead latents are those silent for longer than the window."""

    def __init__(self, width: int, window: int, device: torch.device) -> None:
        """Start with every latent alive."""
        self._silent = torch.zeros(width, dtype=torch.int64, device=device)
        self._window = window

    def dead(self) -> Int64[Tensor, "dead"]:
        """Return the dead latents, ascending."""
        return (self._silent > self._window).nonzero().squeeze(1)

    def dead_share(self) -> float:
        """Return the share of latents that are dead."""
        return float((self._silent > self._window).float().mean())

    def state(self) -> Int64[np.ndarray, "latent"]:
        """Return the tokens since each latent fired."""
        silent: np.ndarray = self._silent.cpu().numpy()
        return silent

    def restore(self, silent: Int64[np.ndarray, "latent"]) -> None:
        """Take over such a state."""
        self._silent.copy_(torch.from_numpy(silent))

    def update(self, fired: Bool[Tensor, "latent"], tokens: int) -> None:
        """Account for a batch of `tokens` on which the latents `fired` fired at least once."""
        self._silent += tokens
        self._silent[fired] = 0


def starting_atoms(width: int, setting: Setting, start: Start) -> Float[Tensor, "latent feature"]:
    """Return unit atoms to start from, on the host: random directions, or centred tokens blended with them.

    Training tokens as atoms are used by saev; the random part keeps atoms of equal or scarce tokens apart. Tokens are
    drawn without replacement as long as there are enough.
    """
    random = unit_rows(torch.randn(width, setting.sample.shape[1], generator=setting.generator))
    if start == "random":
        return random
    order = torch.randperm(max(width, len(setting.sample)), generator=setting.generator)[:width]
    drawn = setting.sample[order % len(setting.sample)] - setting.median()
    return unit_rows(TOKEN_SHARE * unit_rows(drawn) + (1 - TOKEN_SHARE) * random)


def unit_rows(rows: Float[Tensor, "row feature"]) -> Float[Tensor, "row feature"]:
    """Return rows divided by their norms."""
    return torch.div(rows, rows.norm(dim=1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny))


def remove_radial_(gradient: Float[Tensor, "row feature"], rows: Float[Tensor, "row feature"]) -> None:
    """Remove from each gradient row its component along the (unit) row, in place."""
    gradient.sub_((gradient * rows).sum(1, keepdim=True) * rows)


def tied_scale(centred: Float[Tensor, "token feature"], atoms: Float[Tensor, "latent feature"], k: int | None) -> float:
    """Return the least-squares s for tokens against s * ReLU(tokens atoms') atoms, the k largest kept (None: all)."""
    along, squares = 0.0, 0.0
    for tokens in torch.split(centred, 2048):
        codes = (tokens @ atoms.T).relu()
        if k is not None:
            top = codes.topk(k, dim=1)
            codes = torch.zeros_like(codes).scatter_(1, top.indices, top.values)
        y = codes @ atoms
        along += float((tokens * y).sum())
        squares += float(y.square().sum())
    return along / squares if squares > 0 else 1.0


def geometric_median(tokens: Float[Tensor, "token feature"]) -> Float[Tensor, "feature"]:
    """Return the point of least summed distance to the tokens (Weiszfeld's iteration, from the mean)."""
    point = tokens.mean(0)
    parts = torch.split(tokens, MEDIAN_PART)
    floor = 1e-6 * math.fsum(float((part - point).norm(dim=1).sum()) for part in parts) / len(tokens)
    least = max(floor, torch.finfo(tokens.dtype).tiny)
    for _ in range(MEDIAN_ITERATIONS):
        moved, total = torch.zeros_like(point), 0.0
        for part in parts:
            weights = 1 / (part - point).norm(dim=1).clamp_min(least)
            moved += weights @ part
            total += float(weights.sum())
        moved /= total
        change, point = float((moved - point).norm()), moved
        if change <= MEDIAN_TOLERANCE * float(point.norm()) + floor:
            break
    return point


def squared_norm(x: Float[Tensor, "token feature"]) -> float:
    """Return the sum of squares, without a graph."""
    flat = x.detach().flatten()
    return float(torch.dot(flat, flat))


def total_variation(x: Float[Tensor, "token feature"]) -> float:
    """Return the summed squared distance to the batch mean, without a graph."""
    return squared_norm(x - x.mean(0))


def to_numpy(tensor: Tensor) -> Float32[np.ndarray, "..."]:
    """Return a float32 copy on the host."""
    copy: np.ndarray = tensor.detach().to("cpu", torch.float32, copy=True).contiguous().numpy()
    return copy
