"""Schedules: what the formulas say at the ends and in the middle, and that training follows them."""

import numpy as np
import pytest
import torch

from conceptbench.dictionaries import specify
from conceptbench.dictionaries.learner import Setting
from conceptbench.dictionaries.normaliser import Normaliser
from conceptbench.dictionaries.schedules import kept, learning_rate, ramp
from conceptbench.dictionaries.topk import TopKLearner
from conceptbench.errors import ConceptBenchError


def topk(**options):
    return specify(name="t", method="topk", **{"width": 16, "k": 2, "lr": 1.0, "warmup_steps": 0} | options)


def test_warm_up_and_linear_fall():
    spec = topk(warmup_steps=4, decay_share=0.5)
    rates = [learning_rate(spec, step, 20) for step in range(20)]
    np.testing.assert_allclose(rates[:5], [0.25, 0.5, 0.75, 1, 1])
    np.testing.assert_allclose(rates[10:], np.arange(10, 0, -1) / 10)
    assert learning_rate(spec, 20, 20) == 0


def test_cosine_fall_has_the_same_ends_and_half_the_rate_in_the_middle():
    spec = topk(decay_share=1.0, decay="cosine")
    rates = [learning_rate(spec, step, 10) for step in range(11)]
    assert rates[0] == pytest.approx(1)
    assert rates[5] == pytest.approx(0.5)
    assert rates[10] == pytest.approx(0)
    assert rates[1] == pytest.approx((1 + np.cos(np.pi / 10)) / 2)
    assert (np.diff(rates) < 0).all()


def test_without_a_fall_the_rate_stays():
    assert learning_rate(topk(decay_share=0.0), 10**6, 10) == 1
    assert learning_rate(topk(), 10**6, None) == 1


def test_ramp():
    assert [ramp(step, 2) for step in range(3)] == [0.5, 1, 1]
    assert ramp(0, 0) == 1


def test_k_changes_linearly_and_training_follows():
    spec = topk(k_start=10, k_steps=4, batch_size=32)
    assert [kept(spec, step) for step in range(6)] == [10, 8, 6, 4, 2, 2]
    tokens = torch.from_numpy(np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32))
    start = torch.Generator().manual_seed(0)
    learner = TopKLearner(spec, Setting(tokens, Normaliser.identity(8), start, None, torch.device("cpu")))
    l0 = [learner.step(tokens).l0 for _ in range(6)]
    assert l0[0] > 6 > l0[-1]
    assert l0[-1] <= 2
    assert learner.finish().rule.k == 2


@pytest.mark.parametrize("options", [{"decay": "sine"}, {"k_start": 0}, {"k_start": 17}, {"k_steps": -1}])
def test_bad_schedules_are_named(options):
    with pytest.raises(ConceptBenchError, match=next(iter(options))):
        topk(**options)


def test_sae_v_preset_is_the_published_recipe():
    spec = specify(name="v", method="relu-l1", preset="sae-v")
    assert (spec.width, spec.batch_size, spec.lr, spec.warmup_steps, spec.decay_share) == (24_576, 16_384, 3e-3, 500, 0)
    assert spec.l1 == pytest.approx(8e-4 * 768)
    assert not spec.norm_divided
    assert not spec.ghost_gradients
