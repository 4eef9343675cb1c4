"""A bounded uniform sample of a stream of tokens, and what the methods that are fitted to it share."""

from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from conceptbench.dictionaries.learner import Setting


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
        """Take over such a state.

        Raises:
            ValueError: when it is not of a sample of this size and dimension.
        """
        if state.keys() != {"kept", "seen"} or state["seen"].shape != (1,):
            raise ValueError("not the state of a sample")
        seen = int(state["seen"][0])
        if state["kept"].shape != (min(seen, self._capacity), self._d):
            raise ValueError("a sample of another size or dimension")
        self._kept, self._seen = np.array(state["kept"], np.float32), seen

    def tokens(self) -> Float32[np.ndarray, "token feature"]:
        """Return the sample."""
        return self._kept


class SampleLearner:
    """A method that only looks at tokens while they pass, and is fitted to a uniform sample of them at the end."""

    def __init__(self, capacity: int, setting: Setting) -> None:
        """Start with no tokens."""
        self._reservoir = Reservoir(capacity, setting.sample.shape[1], setting.generator)

    def step(self, x: Float[Tensor, "token feature"]) -> None:
        """Look at one batch."""
        self._reservoir.add(x)

    def state(self) -> dict[str, np.ndarray]:
        """Return the sample so far; see `checkpoint.Resumable`."""
        return self._reservoir.state()

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over such a state."""
        self._reservoir.restore(state)
