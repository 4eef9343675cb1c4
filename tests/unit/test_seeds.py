from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from conceptbench.errors import ConceptBenchError
from conceptbench.seeds import rng, seed_sequence, torch_seed

NAMES = st.lists(st.one_of(st.text(max_size=8), st.integers(0, 2**32 - 1)), max_size=4)


def test_stream_is_fixed_for_ever() -> None:
    """These numbers are part of the format: a change of them changes every result."""
    assert rng(0, "scenes", 3).integers(0, 1 << 30, 3).tolist() == [839536768, 189628590, 566059804]
    assert torch_seed(0, "scenes", 3) == 8318713711061746501


@given(st.integers(0, 2**32 - 1), NAMES)
def test_same_names_same_stream(base: int, names: list[str | int]) -> None:
    assert np.array_equal(rng(base, *names).random(4), rng(base, *names).random(4))
    assert 0 <= torch_seed(base, *names) < 2**63


def test_different_names_are_different_streams() -> None:
    names: list[tuple[str | int, ...]] = [(), (0,), (0, 0), ("0",), ("a",), ("a", "b"), ("b", "a"), ("ab",), (1,)]
    states = [tuple(seed_sequence(0, *name).generate_state(4)) for name in names]
    assert all(first != second for first, second in combinations(states, 2))
    assert tuple(seed_sequence(1).generate_state(4)) not in states


def test_streams_are_uncorrelated() -> None:
    draws = np.stack([rng(0, "scenes", i).standard_normal(4000) for i in range(8)])
    correlation = np.corrcoef(draws) - np.eye(8)
    assert np.abs(correlation).max() < 5 / np.sqrt(4000)


@pytest.mark.parametrize("bad", [-1, 2**32])
def test_numbers_out_of_range_are_refused(bad: int) -> None:
    with pytest.raises(ConceptBenchError, match="outside"):
        seed_sequence(bad)
    with pytest.raises(ConceptBenchError, match="outside"):
        seed_sequence(0, bad)
