"""The shuffled reader: every token exactly once, reproducibly, in an order that the seed and the epoch decide."""

import numpy as np
import pytest
from activations_standins import record_small
from hypothesis import given, settings
from hypothesis import strategies as st

from conceptbench.activations import ActivationStore
from conceptbench.errors import ConceptBenchError


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    return ActivationStore.open(record_small(tmp_path_factory.mktemp("shuffle")))


def names(batches: list[np.ndarray]) -> list[tuple[int, int]]:
    """(image, token) of every token, in the order in which they came."""
    tokens = np.concatenate(batches)
    return [(int(image) - 400, int(token)) for image, token in tokens[:, :2]]


@settings(deadline=None, max_examples=150)
@given(
    batch=st.integers(1, 230),
    extra=st.integers(0, 250),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 3),
    rows=st.none() | st.lists(st.integers(0, 39), unique=True),
    tokens=st.sampled_from(["all", "patch", "prefix"]),
)
def test_every_token_exactly_once(
    store: ActivationStore, batch: int, extra: int, seed: int, epoch: int, rows: list[int] | None, tokens: str
) -> None:
    def read() -> list[np.ndarray]:
        return list(store.shuffled_tokens(4, batch, seed, epoch, batch + extra, rows, tokens=tokens))

    batches = read()
    positions = {"all": range(5), "patch": range(1, 5), "prefix": range(1)}[tokens]
    wanted = [(image, token) for image in (range(40) if rows is None else sorted(rows)) for token in positions]
    assert sorted(names(batches) if batches else []) == wanted
    assert all(len(found) == batch for found in batches[:-1])
    assert all(found.dtype == np.float32 for found in batches)
    assert all((again == found).all() for again, found in zip(read(), batches, strict=True))


def test_seed_and_epoch_change_the_order(store: ActivationStore) -> None:
    orders = [names(list(store.shuffled_tokens(4, 16, seed, epoch, 60))) for seed in (0, 1) for epoch in (0, 1)]
    assert all(orders[i] != orders[j] for i in range(4) for j in range(i))


def test_a_buffer_for_everything_gives_a_uniform_permutation(store: ActivationStore) -> None:
    """Mean position of each token over many epochs: 200 tokens, standard error 57.7 / sqrt(400) = 2.9."""
    totals = np.zeros((40, 5))
    epochs = 400
    for epoch in range(epochs):
        for position, (image, token) in enumerate(names(list(store.shuffled_tokens(4, 50, 3, epoch, 10_000)))):
            totals[image, token] += position
    assert np.abs(totals / epochs - 99.5).max() < 5 * 57.7 / np.sqrt(epochs)


def test_a_small_buffer_still_mixes_images(store: ActivationStore) -> None:
    batches = list(store.shuffled_tokens(4, 20, 0, 0, 60))
    assert min(len({image for image, _ in names([batch])}) for batch in batches[:-1]) > 5


def test_a_buffer_smaller_than_a_batch_is_refused(store: ActivationStore) -> None:
    with pytest.raises(ConceptBenchError, match="buffer of 10 tokens cannot fill batches of 20"):
        store.shuffled_tokens(4, 20, 0, 0, 10)


def test_a_row_named_twice_is_refused(store: ActivationStore) -> None:
    with pytest.raises(ConceptBenchError, match="named twice"):
        store.shuffled_tokens(4, 20, 0, 0, 100, rows=[1, 2, 1])
