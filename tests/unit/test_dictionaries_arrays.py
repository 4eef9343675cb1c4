"""Arrays as training tokens: every token once an epoch, in an order of seed and epoch."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from conceptbench.dictionaries.arrays import shuffled_epochs


@given(n=st.integers(1, 60), size=st.integers(1, 70), seed=st.integers(0, 5), epoch=st.integers(0, 3))
def test_every_token_comes_once_an_epoch(n: int, size: int, seed: int, epoch: int) -> None:
    x = np.arange(2 * n, dtype=np.float32).reshape(n, 2)
    parts = list(shuffled_epochs(x, size, seed)(epoch))
    assert all(len(part) == size for part in parts[:-1]) and len(parts[-1]) <= size
    joined = np.concatenate(parts)
    np.testing.assert_array_equal(joined[np.argsort(joined[:, 0])], x)


def test_the_order_depends_on_seed_and_epoch_only() -> None:
    x = np.arange(80, dtype=np.float32).reshape(40, 2)
    orders = [np.concatenate(list(shuffled_epochs(x, 7, seed)(epoch))) for seed, epoch in ((0, 0), (0, 1), (1, 0))]
    again = np.concatenate(list(shuffled_epochs(x, 13, 0)(0)))
    np.testing.assert_array_equal(orders[0], again)
    assert not np.array_equal(orders[0], orders[1]) and not np.array_equal(orders[0], orders[2])
