"""On a device apart from the host every method learns what it learns on the CPU, and goes on from its checkpoints."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from foreign_device import FOREIGN, foreign

from conceptbench.dictionaries import Dictionary, learn, specify
from conceptbench.dictionaries.checkpoint import CheckpointPolicy
from conceptbench.dictionaries.contract import OPTIONS

D, TOKENS = 12, 2_100
_DRAW = np.random.default_rng(0)
_SOURCES, _NOISE = _DRAW.standard_normal((TOKENS, 6)) ** 3, _DRAW.standard_normal((TOKENS, D))
TRAIN = (_SOURCES @ _DRAW.standard_normal((6, D)) + 0.1 * _NOISE).astype(np.float32)
TRAINED: dict[str, Any] = {"width": 32, "batch_size": 100, "epochs": 2, "dead_tokens": 300, "warmup_steps": 3}
METHODS: dict[str, dict[str, Any]] = {
    "topk": {**TRAINED, "k": 2},
    "relu-l1": {**TRAINED, "l1": 0.01},
    "batch-topk": {**TRAINED, "k": 2},
    "matryoshka": {**TRAINED, "k": 2},
    "jump-relu": {**TRAINED, "sparsity": 0.1},
    "archetypal": {**TRAINED, "k": 2, "candidates": 30},
    "frozen": {**TRAINED, "k": 2},
    "k-svd": {"width": 32, "k": 2, "batch_size": 1_000},
    "k-means": {"width": 32},
    "k-means-omp": {"width": 32, "k": 2},
    "ica": {"k": 2},
    "semi-nmf": {"width": 32, "k": 2, "iterations": 5},
    "random": {"width": 32, "k": 2},
    "raw": {"k": 3},
    "pca": {"k": 2},
}


class StoppedError(Exception):
    """Stands for a machine that is switched off."""


def learnt(method: str, device: str, folder: Path | None = None, stop: int = TOKENS * 9, **options: Any) -> Dictionary:
    def batches(epoch: int) -> Iterator[np.ndarray]:
        order = np.random.default_rng(epoch).permutation(TOKENS)
        for start in range(0, TOKENS, 500):
            if epoch * TOKENS + start >= stop:
                raise StoppedError
            yield TRAIN[order[start : start + 500]]

    spec = specify(name="x", method=method, **METHODS[method], **options)
    policy = CheckpointPolicy(folder, every_tokens=1_000) if folder else None
    return learn(
        spec, batches, d=D, seed=0, held_out=TRAIN[:200], tokens_per_epoch=TOKENS, device=device, progress=False,
        checkpoint=policy,
    )  # fmt: skip


def test_the_device_is_apart() -> None:
    with foreign() as device:
        here, there = torch.ones(3), torch.ones(3, device=device)
        assert torch.equal((there * 2 + 1).cpu(), here * 3)
        assert (there + torch.tensor(1.0)).device == FOREIGN
        with pytest.raises(RuntimeError, match="same device"):
            here + there
        with pytest.raises((RuntimeError, TypeError)):
            there.numpy()


def test_every_method_is_tried() -> None:
    assert METHODS.keys() == OPTIONS.keys()


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_device_learns_what_the_cpu_learns(method: str) -> None:
    on_cpu = learnt(method, "cpu")
    with foreign() as device:
        elsewhere = learnt(method, str(device))
        codes = elsewhere.encode(TRAIN[:200], str(device))
    np.testing.assert_allclose(elsewhere.atoms, on_cpu.atoms, atol=2e-3)
    fvu = on_cpu.card["metrics"]["fvu"]
    assert elsewhere.card["metrics"]["fvu"] == pytest.approx(fvu, rel=1e-3, abs=1e-9)
    assert len(codes.values) == pytest.approx(200 * on_cpu.card["metrics"]["l0"], rel=0.01)


def test_an_independent_encoder_starts_on_the_device() -> None:
    with foreign() as device:
        elsewhere = learnt("relu-l1", str(device), init="kaiming")
    np.testing.assert_allclose(elsewhere.atoms, learnt("relu-l1", "cpu", init="kaiming").atoms, atol=2e-3)


@pytest.mark.parametrize("method", ["topk", "relu-l1", "batch-topk", "jump-relu", "archetypal"])
def test_training_goes_on_from_a_checkpoint_of_the_device(method: str, tmp_path: Path) -> None:
    with foreign() as device:
        with pytest.raises(StoppedError):
            learnt(method, str(device), tmp_path, stop=2_600)
        assert list(tmp_path.iterdir())
        assert learnt(method, str(device), tmp_path).digest == learnt(method, str(device)).digest
