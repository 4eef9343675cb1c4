"""Random streams: every one is derived from the experiment's seed and the names of the thing it serves.

A stream depends on nothing else: neither on the order in which jobs run nor on the process, the machine or Python's
salted `hash`. Two things with different names never share a stream.
"""

from zlib import crc32

import numpy as np

from conceptbench.errors import ConceptBenchError

_WORD = 1 << 32


def _word(name: str | int) -> list[int]:
    """Two 32-bit words for a name; the first tells text from numbers, so that `"1"` and `1` are different names."""
    if isinstance(name, str):
        return [1, crc32(name.encode())]
    number = int(name)
    if not 0 <= number < _WORD:
        raise ConceptBenchError(f"Seed component {name} is outside 0..2^32-1; choose a non-negative smaller number.")
    return [2, number]


def seed_sequence(base: int, *names: str | int) -> np.random.SeedSequence:
    """Return the seed sequence of (base, names).

    The number of names is part of the entropy, because NumPy pads short entropy with zeros: without it the streams
    of `(base,)` and `(base, 0)` would be one.

    Raises:
        ConceptBenchError: when the base or a numeric name is negative or does not fit 32 bits.
    """
    words = [word for name in names for word in _word(name)]
    return np.random.SeedSequence([*_word(base), len(names), *words])


def rng(base: int, *names: str | int) -> np.random.Generator:
    """Return a NumPy generator for the stream (base, names)."""
    return np.random.Generator(np.random.PCG64(seed_sequence(base, *names)))


def torch_seed(base: int, *names: str | int) -> int:
    """Return a 63-bit seed for `torch.Generator.manual_seed` for the stream (base, names)."""
    state = seed_sequence(base, *names).generate_state(1, np.uint64)
    return int(state[0] >> np.uint64(1))
