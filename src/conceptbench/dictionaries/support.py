"""Which latents fire on which token of a batch: compressed rows, the form in which every sparse loop takes codes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64


@dataclass(frozen=True, eq=False)
class Support:
    """The firings of token t are the entries `start[t]:start[t + 1]`; values are positive."""

    start: Int64[np.ndarray, "token_plus_1"]
    latents: Int32[np.ndarray, "firing"]
    values: Float32[np.ndarray, "firing"]

    @property
    def tokens(self) -> int:
        """Number of tokens."""
        return len(self.start) - 1

    @property
    def firings(self) -> int:
        """Number of entries."""
        return len(self.latents)

    def fired(self, width: int) -> Bool[np.ndarray, "latent"]:
        """Return which of `width` latents fire on at least one token."""
        fires = np.zeros(width, bool)
        fires[self.latents] = True
        return fires

    def keep(self, wanted: Bool[np.ndarray, "firing"]) -> "Support":
        """Return the support with only the wanted entries."""
        before = np.concatenate([np.zeros(1, np.int64), np.cumsum(wanted)])
        return Support(before[self.start], self.latents[wanted], self.values[wanted])

    @classmethod
    def empty(cls, tokens: int) -> "Support":
        """Return the support of tokens on which nothing fires."""
        return cls(np.zeros(tokens + 1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))

    @classmethod
    def of_slots(
        cls,
        count: Int64[np.ndarray, "token"],
        latents: Int32[np.ndarray, "token slot"],
        values: Float32[np.ndarray, "token slot"],
    ) -> "Support":
        """Return the support of tables in which row t holds `count[t]` firings, first in the row."""
        start = np.concatenate([np.zeros(1, np.int64), np.cumsum(count)])
        if start[-1] == latents.size:
            return cls(start, latents.ravel(), values.ravel())
        filled = np.arange(latents.shape[1]) < count[:, None]
        return cls(start, latents[filled], values[filled])

    @classmethod
    def join(cls, parts: Sequence["Support"]) -> "Support":
        """Return the support of consecutive tokens."""
        if len(parts) == 1:
            return parts[0]
        firings = np.cumsum([0, *(part.firings for part in parts)])
        return cls(
            np.concatenate([np.zeros(1, np.int64), *(p.start[1:] + n for p, n in zip(parts, firings, strict=False))]),
            np.concatenate([part.latents for part in parts]),
            np.concatenate([part.values for part in parts]),
        )
