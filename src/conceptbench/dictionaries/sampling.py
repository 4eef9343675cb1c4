"""A bounded uniform sample of a stream of tokens, for methods that need many of them at once."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor


class Reservoir:
    """The first `capacity` tokens, each later replaced so that every token of the stream is as likely to be kept.

    Vitter's algorithm R (1985), a batch at a time; which tokens are kept depends on the generator and the order only.
    """

    def __init__(self, capacity: int, d: int, generator: torch.Generator) -> None:
        """Start empty; memory grows to capacity x d floats."""
        self._capacity, self._d = capacity, d
        self._generator = generator
        self._kept = np.empty((0, d), np.float32)
        self._seen = 0

    def add(self, x: Float[Tensor, "token feature"]) -> None:
        """Look at a batch of tokens."""
        tokens = x.cpu().numpy()
        room = min(self._capacity - len(self._kept), len(tokens))
        if room:
            self._kept = np.concatenate([self._kept, tokens[:room]])
        rest = tokens[room:]
        draws = torch.rand(len(rest), generator=self._generator, dtype=torch.float64).numpy()
        places = np.floor(draws * (self._seen + room + np.arange(1, len(rest) + 1))).astype(np.int64)
        self._seen += len(tokens)
        hits = places < self._capacity
        # of several tokens for one place the last one stays, as if they had come one by one
        self._kept[places[hits]] = rest[hits]

    def state(self) -> dict[str, np.ndarray]:
        """Return the sample and how many tokens have passed."""
        return {"kept": self._kept, "seen": np.array([self._seen])}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over such a state."""
        self._kept, self._seen = np.array(state["kept"], np.float32), int(state["seen"][0])

    def tokens(self) -> Float32[np.ndarray, "token feature"]:
        """Return the sample."""
        return self._kept
