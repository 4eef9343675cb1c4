"""What `learn_many` is asked for: devices, seeds and tokens that cannot be had; and the seconds a card counts."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from conceptbench.dictionaries import learn_many, specify
from conceptbench.dictionaries import train as train_module
from conceptbench.dictionaries.checkpoint import CheckpointPolicy
from conceptbench.dictionaries.semi_nmf import SemiNmfLearner
from conceptbench.errors import ConceptBenchError

TOKENS = np.random.default_rng(0).standard_normal((400, 6)).astype(np.float32)
TOPK = {"method": "topk", "width": 12, "k": 2, "batch_size": 100}


def ask(method: dict[str, Any] = TOPK, tokens: np.ndarray = TOKENS, **request: Any) -> Any:
    options = {"d": 6, "seeds": [0], "held_out": TOKENS[:50], "tokens_per_epoch": 400, "progress": False} | request
    return learn_many([specify(name="x", **method)], lambda _: iter([tokens]), **options)


@pytest.mark.parametrize("seeds", [[], {}, {"other": [0]}, {"x": []}])
def test_a_dictionary_without_a_seed_is_named(seeds: Any) -> None:
    with pytest.raises(ConceptBenchError, match="Dictionary 'x' has no seed to be learnt with"):
        ask(seeds=seeds)


def test_a_device_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConceptBenchError, match="'graphics' is no device of torch"):
        ask(device="graphics")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConceptBenchError, match="'cuda' was asked for, but torch finds no GPU here"):
        ask(device="cuda")


def test_tokens_that_are_all_alike_are_not_blamed_on_the_learning_rate() -> None:
    with np.errstate(all="ignore"), pytest.raises(ConceptBenchError, match="its tokens are all alike"):
        ask({**TOPK, "normalise": False}, np.full((400, 6), 3.0, np.float32))


def test_a_checkpoint_without_its_identity_is_refused(tmp_path: Any) -> None:
    from safetensors.numpy import save_file

    from conceptbench.dictionaries.checkpoint import FORMAT

    policy = CheckpointPolicy(tmp_path, every_tokens=100)
    path = policy.path("x", 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"steps": np.zeros(1)}, path, metadata={"format": FORMAT})
    with pytest.raises(ConceptBenchError, match="delete it to start anew"):
        ask(checkpoint=policy)
    assert path.is_file()


def test_the_card_counts_the_seconds_of_start_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Semi-NMF does all its work at the end: a clock that only the end turns must be in the card."""
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(train_module.time, "perf_counter", lambda: clock.now)
    finish, start = SemiNmfLearner.finish, SemiNmfLearner.__init__

    def late(self: SemiNmfLearner) -> Any:
        clock.now += 40.0
        return finish(self)

    def early(self: SemiNmfLearner, *arguments: Any) -> None:
        clock.now += 2.0
        start(self, *arguments)

    monkeypatch.setattr(SemiNmfLearner, "finish", late)
    monkeypatch.setattr(SemiNmfLearner, "__init__", early)
    learnt = ask(
        {"method": "semi-nmf", "width": 8, "k": 2, "iterations": 2}, np.tile(TOKENS, (6, 1)), tokens_per_epoch=2_400
    )
    training = learnt["x", 0].card["training"]
    assert training["seconds"] == 42.0
    assert training["tokens_per_s"] == training["tokens"] / 42.0
