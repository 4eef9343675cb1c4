"""Specification of K-SVD, which learns atoms for codes found by orthogonal matching pursuit."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from conceptbench.dictionaries.specs.base import Named


@dataclass(frozen=True, kw_only=True)
class KSvd(Named):
    """K-SVD in chunks (Aharon, Elad and Bruckstein 2006; DB-KSVD, arXiv 2505.18441), signed or non-negative.

    A signed atom has two latents, one for each sign: it has twice the capacity of a non-negative one of the same width,
    at the same number of firings.
    """

    method: ClassVar[Literal["k-svd"]] = "k-svd"
    width: int
    """Number of atoms; signed codes have twice as many latents."""
    k: int
    """Atoms used for each token, at most."""
    sign: Literal["positive", "split"] = "split"
    """Coefficients are never negative, or of both signs, which two latents an atom keep apart."""
    epochs: int = 3
    """Passes over the training tokens."""
    batch_size: int = 65_536
    """Tokens of a chunk, on which the tokens are coded and all atoms are updated once."""
    init: Literal["data", "uniform"] = "data"
    """The first atoms are random training tokens, or uniform draws from a cube."""
    block_size: int | None = None
    """Atoms updated in parallel, at most; 1 is the serial K-SVD, None takes more the sparser the codes are."""
    power_steps: int = 3
    """Alternations of an atom and its coefficients in an update: power steps for the top singular pair."""

    def __post_init__(self) -> None:
        """Refuse values that cannot be learnt with."""
        self.require(1 <= self.k <= self.width, f"k is {self.k}, it must lie in 1..{self.width}")
        self.require(self.sign in ("positive", "split"), f"sign is '{self.sign}', it must be positive or split")
        self.require(self.epochs >= 1, f"epochs is {self.epochs}, it must be at least 1")
        self.require(self.batch_size >= 2, f"batch_size is {self.batch_size}, it must be at least 2")
        self.require(self.init in ("data", "uniform"), f"init is '{self.init}', it must be data or uniform")
        fits = self.block_size is None or self.block_size >= 1
        self.require(fits, f"block_size is {self.block_size}, it must be at least 1")
        self.require(self.power_steps >= 1, f"power_steps is {self.power_steps}, it must be at least 1")

    @property
    def latents(self) -> int:
        """Number of latents of the dictionary."""
        return 2 * self.width if self.sign == "split" else self.width
