"""Tokens without a store: the values and the order of a store, in bounded memory."""

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from activations_standins import StandInBackbone, StandInDataset, expected, record_small
from hypothesis import given
from hypothesis import strategies as st

from conceptbench.activations import ActivationStore, LiveTokens, record
from conceptbench.activations import live as live_module
from conceptbench.backbones import load_backbone
from conceptbench.backbones.shipped import SHIPPED
from conceptbench.data import open_dataset, prepare_dataset
from conceptbench.data.spec import DatasetSpec
from conceptbench.dictionaries import learn_many, specify
from conceptbench.errors import ConceptBenchError

SHARD = 16


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> ActivationStore:
    return ActivationStore.open(record_small(tmp_path_factory.mktemp("live"), shard_images=SHARD))


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> LiveTokens:
    monkeypatch.setattr(live_module, "SHARD_IMAGES", SHARD)
    return LiveTokens(StandInBackbone(), StandInDataset(), [1, 4], batch_images=5)


def live_tokens() -> LiveTokens:
    return LiveTokens(StandInBackbone(), StandInDataset(), [1, 4], batch_images=5)


def test_it_is_the_store_of_the_same_specification(store: ActivationStore, live: LiveTokens) -> None:
    assert live.spec_digest == store.spec_digest
    assert live.shape == store.shape
    np.testing.assert_array_equal(live.read(4, [7, 30, 7]), store.read(4, [7, 30, 7]))


def test_images_are_prepared_while_the_model_runs() -> None:
    """The model's second pass begins after the third batch was asked for, not before."""
    asked: list[int] = []

    class Watched(StandInDataset):
        def images(self, rows: Sequence[int]) -> np.ndarray:
            asked.append(int(rows[0]))
            return super().images(rows)

    class Slow(StandInBackbone):
        def tokens(self, pixels: torch.Tensor, blocks: Sequence[int]) -> dict[int, torch.Tensor]:
            deadline = time.monotonic() + 5
            while len(asked) < min(self.passes + 2, 3) and time.monotonic() < deadline:
                time.sleep(0.001)
            seen.append(len(asked))
            return super().tokens(pixels, blocks)

    seen: list[int] = []
    found = LiveTokens(Slow(), Watched(), [4], batch_images=5, workers=2).read(4, range(15))
    np.testing.assert_array_equal(found, expected(range(15), 4))
    assert asked == [0, 5, 10] and seen[0] >= 2 and seen[1] == 3


@given(
    batch=st.integers(1, 60),
    extra=st.integers(0, 200),
    epoch=st.integers(0, 2),
    rows=st.none() | st.lists(st.integers(0, 39), unique=True, min_size=1),
)
def test_tokens_come_in_the_order_of_the_store(
    store: ActivationStore, batch: int, extra: int, epoch: int, rows: list[int] | None
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live_module, "SHARD_IMAGES", SHARD)
        found = list(live_tokens().shuffled_tokens(4, batch, 3, epoch, batch + extra, rows))
    expected = list(store.shuffled_tokens(4, batch, 3, epoch, batch + extra, rows))
    assert len(found) == len(expected)
    assert all((left == right).all() for left, right in zip(found, expected, strict=True))


def test_only_the_asked_block_is_computed_and_only_when_it_is_asked_for() -> None:
    backbone = StandInBackbone()
    tokens = LiveTokens(backbone, StandInDataset(), [1, 4], batch_images=5)
    stream = tokens.shuffled_tokens(4, 10, 0, 0, 20)
    assert backbone.passes == 0
    next(stream)
    assert 0 < backbone.passes < 8


def test_memory_does_not_grow_with_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """The images in memory at once are those of one chunk, a quarter of the buffer, however many there are."""
    compute, seen = LiveTokens._compute, []

    def noted(self: LiveTokens, block: int, rows: np.ndarray) -> np.ndarray:
        seen.append(len(rows))
        return compute(self, block, rows)

    monkeypatch.setattr(LiveTokens, "_compute", noted)
    for n in (200, 2000):
        seen.clear()
        tokens = LiveTokens(StandInBackbone(), StandInDataset(n), [4], batch_images=5)
        assert sum(map(len, tokens.shuffled_tokens(4, 10, 0, 0, 100))) == 5 * n
        assert max(seen) == 100 // (4 * 5)


def test_a_value_that_cannot_be_stored_is_named() -> None:
    backbone = StandInBackbone()
    backbone.planted = {(3, 4): float("nan")}
    tokens = LiveTokens(backbone, StandInDataset(), [4])
    with pytest.raises(ConceptBenchError, match=r"image 3 of dataset dots at block 4 .* is NaN"):
        list(tokens.shuffled_tokens(4, 10, 0, 0, 1000))


def test_repeated_rows_and_small_buffers_are_refused() -> None:
    with pytest.raises(ConceptBenchError, match="named twice"):
        live_tokens().shuffled_tokens(4, 10, 0, 0, 100, [1, 1])
    with pytest.raises(ConceptBenchError, match="cannot fill batches"):
        live_tokens().shuffled_tokens(4, 10, 0, 0, 9)


def test_a_dictionary_learnt_live_is_that_of_the_store(tmp_path: Path) -> None:
    prepare_dataset(DatasetSpec("scenes", "scenes", sizes={"train": 96}), tmp_path / "data", None, 0)
    dataset = open_dataset(tmp_path / "data")
    backbone = load_backbone(SHIPPED / "clip-tiny", "cpu")
    record(backbone, dataset, [4], tmp_path / "out", work=tmp_path / "work", progress=False)
    recorded = ActivationStore.open(tmp_path / "out")
    spec = specify(name="topk", method="topk", width=64, k=8, lr=0.003, batch_size=512, warmup_steps=2)
    learnt = []
    for source in (recorded, LiveTokens(backbone, dataset, [4])):
        found = learn_many(
            [spec],
            lambda epoch, source=source: source.shuffled_tokens(4, 1024, 0, epoch, 2**20),
            d=128,
            seeds=[0],
            held_out=source.read(4, range(8)).reshape(-1, 128),
            tokens_per_epoch=96 * 65,
            progress=False,
        )
        learnt.append(found["topk", 0])
    assert torch.allclose(*(torch.from_numpy(one.atoms) for one in learnt), atol=1e-3)
    assert learnt[0].card["metrics"]["fvu"] == pytest.approx(learnt[1].card["metrics"]["fvu"], rel=1e-3)
