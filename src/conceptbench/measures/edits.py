"""Edits of activations at the hook point: latents are removed, and nothing else changes.

With f the code of a token x, x' its reconstruction and d_j the atoms in the units of x, removing a set S gives

    base - sum over j in S of f_j d_j,      base = x   (the dictionary's error stays: `keep-error`)
                                            base = x'  (the token is replaced by its reconstruction: `replace`).

An edit that removes nothing returns the base itself, bit for bit. A curve removes nested sets one after the other, so
that all its points together decode each firing once.

The value that an encoder gives a latent is an estimate of how much of its atom is there, and a shrunken one (Wright and
Sharkey 2024). `refit` keeps which latents fire and asks the token itself how much: least squares on their atoms.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.functional import embedding_bag

if TYPE_CHECKING:
    from conceptbench.dictionaries import Codes, Dictionary

Base = Literal["keep-error", "replace"]
BASES: Final[tuple[Base, ...]] = ("keep-error", "replace")
NEVER: Final = np.iinfo(np.int64).max
"""Step of a firing that a curve never removes."""
REFIT_STEPS: Final = 50
"""Steps of conjugate gradients of a refit, at most; as many as latents fire at a token are exact."""
REFIT_TOLERANCE: Final = 1e-5
"""A token is done when its gradient has shrunk to this share."""


@dataclass(frozen=True, eq=False)
class Firings:
    """Every firing of some images: where, which latent, how strongly. Ordered by row."""

    row: Int64[np.ndarray, " firing"]
    """image * tokens + token."""
    latent: Int64[np.ndarray, " firing"]
    value: Float[np.ndarray, " firing"]
    shape: tuple[int, int, int]
    """Images, tokens of an image, latents."""

    @classmethod
    def of(cls, codes: Codes) -> Firings:
        """The firings of codes."""
        row = np.repeat(np.arange(codes.n_rows, dtype=np.int64), np.diff(codes.indptr))
        return cls(row, codes.indices.astype(np.int64), codes.values, codes.shape)

    @property
    def image(self) -> Int64[np.ndarray, " firing"]:
        """Position of the image of each firing."""
        return self.row // self.shape[1]

    def images(self, chosen: slice) -> tuple[Firings, slice]:
        """The firings of consecutive images, counted from 0 again, and where they are among all firings."""
        start, stop = chosen.start, chosen.stop
        first, last = np.searchsorted(self.row, [start * self.shape[1], stop * self.shape[1]])
        part = slice(int(first), int(last))
        shape = (stop - start, *self.shape[1:])
        row = self.row[part] - start * self.shape[1]
        return Firings(row, self.latent[part], self.value[part], shape), part

    def pick(self, per_image: np.ndarray) -> np.ndarray:
        """For every firing, the value of an array [image, latent] at its image and latent."""
        return np.asarray(per_image[self.image, self.latent])


def refit(
    firings: Firings, error: Float[Tensor, "image token feature"], atoms: Float[Tensor, "latent feature"]
) -> Firings:
    """The same firings with the values that explain each token best, and the least change of them that does so.

    Solves min ||error - sum over the token's firings of g_j d_j||^2 from g = 0 by conjugate gradients (CGLS, Hestenes
    and Stiefel 1952), all tokens at once and each with its own steps; g is added to the values. Afterwards what is left
    of the token is orthogonal to every atom that fires at it.

    Args:
        error: the tokens less their reconstruction from these firings.
    """
    if not firings.row.size:
        return firings
    rows, first = np.unique(firings.row, return_index=True)
    at = torch.from_numpy(np.repeat(np.arange(rows.size), np.diff(first, append=firings.row.size))).to(atoms.device)
    mine = atoms[torch.from_numpy(firings.latent).to(atoms.device)]
    left = error.reshape(-1, error.shape[-1])[torch.from_numpy(rows).to(error.device)].to(atoms)

    def squared(values: Float[Tensor, " firing"]) -> Float[Tensor, " token"]:
        """Squared length of the values of each token."""
        return torch.zeros_like(left[:, 0]).index_add_(0, at, values * values)

    change = torch.zeros_like(mine[:, 0])
    gradient = (mine * left[at]).sum(dim=1)
    direction, size = gradient, squared(gradient)
    enough, zero = REFIT_TOLERANCE**2 * size, torch.zeros_like(size)
    for _ in range(REFIT_STEPS):
        moved = torch.zeros_like(left).index_add_(0, at, mine * direction[:, None])
        step = torch.where(size > enough, size / (moved * moved).sum(dim=1), zero)
        if not step.any():
            break
        change = change + step[at] * direction
        left = left - step[:, None] * moved
        gradient = (mine * left[at]).sum(dim=1)
        size, before = squared(gradient), size
        direction = gradient + torch.where(before > 0, size / before, zero)[at] * direction
    return replace(firings, value=firings.value + change.cpu().numpy().astype(firings.value.dtype))


def base_tokens(
    dictionary: Dictionary, tokens: Float[Tensor, "image token feature"], codes: Codes, base: Base
) -> Float[Tensor, "image token feature"]:
    """What an edit starts from: the tokens themselves, or their reconstruction from `codes`."""
    if base == "keep-error":
        return tokens
    return torch.from_numpy(dictionary.decode(codes)).reshape(tokens.shape).to(tokens)


def atoms_in_raw_units(dictionary: Dictionary, like: Tensor) -> Float[Tensor, "latent feature"]:
    """What one unit of each latent adds to a raw activation, with the dtype and device of `like`."""
    return torch.from_numpy(dictionary.directions).to(like)


def removal(
    firings: Firings, chosen: Bool[np.ndarray, " firing"], atoms: Float[Tensor, "latent feature"]
) -> Float[Tensor, "image token feature"]:
    """Sum over the chosen firings of value * atom, at their tokens."""
    images, tokens, _ = firings.shape
    starts = np.searchsorted(firings.row[chosen], np.arange(images * tokens))
    place = atoms.device
    latents = torch.from_numpy(firings.latent[chosen]).to(place)
    weights = torch.from_numpy(firings.value[chosen]).to(atoms)
    summed = embedding_bag(
        latents, atoms, torch.from_numpy(starts).to(place), mode="sum", per_sample_weights=weights
    )  # fmt: skip
    return summed.reshape(images, tokens, -1)


def remove(
    base: Float[Tensor, "image token feature"],
    firings: Firings,
    chosen: Bool[np.ndarray, " firing"],
    atoms: Float[Tensor, "latent feature"],
) -> Float[Tensor, "image token feature"]:
    """`base` without the chosen firings; `base` itself when none is chosen."""
    return base - removal(firings, chosen, atoms) if chosen.any() else base


def removal_curve(
    base: Float[Tensor, "image token feature"],
    firings: Firings,
    step: Int64[np.ndarray, " firing"],
    n_steps: int,
    atoms: Float[Tensor, "latent feature"],
) -> Iterator[Float[Tensor, "image token feature"]]:
    """Yield `base` without the firings of step < 1, < 2, ..., < `n_steps`: as many states as steps, nested.

    Firings of step 0 are missing from every state; those of a step of `n_steps` or more from none.
    """
    order = np.argsort(step, kind="stable")
    bounds = np.searchsorted(step[order], np.arange(n_steps + 1))
    state = base
    for at in range(n_steps):
        members = np.sort(order[bounds[at] : bounds[at + 1]])
        if members.size:
            part = Firings(firings.row[members], firings.latent[members], firings.value[members], firings.shape)
            state = state - removal(part, np.ones(members.size, dtype=bool), atoms)
        yield state


def off_steps(rank: Int64[np.ndarray, " firing"], ks: Int64[np.ndarray, " k"]) -> Int64[np.ndarray, " firing"]:
    """Steps of an off-top-k curve over ascending `ks`: a firing of rank r is missing where r < k."""
    return np.asarray(np.searchsorted(ks, rank, side="right"))


def on_steps(rank: Int64[np.ndarray, " firing"], ks: Int64[np.ndarray, " k"]) -> Int64[np.ndarray, " firing"]:
    """Steps of an on-top-k curve over descending k (the reverse of `ks`): rank r is missing where r >= k."""
    return np.asarray(len(ks) - np.searchsorted(ks, rank, side="right"))
