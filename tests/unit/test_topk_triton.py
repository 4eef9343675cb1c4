"""The Triton step of TopK: its kernels run by Triton's interpreter against dense autograd, and compiled for GPUs."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
import triton_interpreter
from topk_reference import AUX, TOKENS, WIDTH, K, dense_gradients, dense_training, start

from conceptbench.dictionaries import TopK, learn
from conceptbench.dictionaries import topk as topk_module
from conceptbench.dictionaries.checkpoint import CheckpointPolicy
from conceptbench.dictionaries.learner import Setting
from conceptbench.dictionaries.normaliser import Normaliser
from conceptbench.dictionaries.topk_fused import FusedTopK

pytest.importorskip("triton", reason="Triton is not installed")
SPEC = TopK(name="t", width=WIDTH, k=K, aux_k=AUX, aux_alpha=0.5)
NONE, DEAD = torch.arange(0), torch.arange(11) * 3


@pytest.fixture
def module() -> Iterator[ModuleType]:
    with triton_interpreter.interpreted() as loaded:
        yield loaded


def bits(engine):
    """Return a copy of all that steps change."""
    return {name: np.array(array) for name, array in engine.state().items()}


def assert_same_bits(left, right):
    assert left.keys() == right.keys()
    for name, array in left.items():
        np.testing.assert_array_equal(array, right[name], err_msg=name)


def assert_near(parameters, expected, atol=2e-6):
    for ours, theirs in zip(parameters.all(), expected, strict=True):
        np.testing.assert_allclose(ours.double().cpu(), theirs, atol=atol)


@pytest.mark.parametrize("dead", [NONE, DEAD[:3], DEAD])
def test_steps_equal_dense_autograd(module, dead):
    """Loss within 1e-6 and parameters within 2e-6 of a dense float64 run after five steps of Adam; d is 12."""
    reference, x = start(dtype=torch.float64)
    losses, expected = dense_training(reference, [x] * 5, dead, 0.5, lr=1e-2)
    parameters, x = start()
    engine = module.TritonTopK(parameters, SPEC)
    assert [engine.step(x, dead, lr=1e-2).loss for _ in losses] == pytest.approx(losses, rel=1e-6)
    assert_near(parameters, expected)


def test_as_many_latents_are_kept_as_the_step_asks_for(module):
    """The numbers are those of a schedule: more than a program reads at once, the specification's, and one."""
    assert module.MAX_CHUNK < 37
    reference, x = start(dtype=torch.float64)
    losses, expected = dense_training(reference, [x] * 3, NONE, 0.5, lr=1e-2, ks=(37, K, 1))
    parameters, x = start()
    engine = module.TritonTopK(parameters, SPEC)
    assert [engine.step(x, NONE, 1e-2, k).loss for k in (37, None, 1)] == pytest.approx(losses, rel=1e-6)
    assert_near(parameters, expected)


def first_step(module, dead):
    """Return the engine after one step; its first moments are 0.1 times the gradients."""
    parameters, x = start()
    engine = module.TritonTopK(parameters, SPEC)
    engine.step(x, dead, lr=1e-3)
    return engine


def test_gradients_equal_dense_autograd(module):
    expected = dense_gradients(*start(dtype=torch.float64), DEAD, 0.5)
    for moments, gradient in zip(first_step(module, DEAD).adam.moments().values(), expected, strict=True):
        np.testing.assert_allclose(10 * moments[0], gradient, atol=1e-6)


def test_aux_gradient_reaches_the_encoder(module):
    without, with_aux = (first_step(module, dead).adam.moments()["encoder"][0] for dead in (NONE, DEAD))
    others = np.setdiff1d(np.arange(WIDTH), DEAD)
    assert (with_aux[DEAD] - without[DEAD]).abs().max() > 1e-4
    np.testing.assert_array_equal(with_aux[others], without[others])


def test_latents_that_do_not_fire_move_by_their_moments_as_in_dense_adam(module):
    """The second batch holds two tokens, on which most latents are silent."""
    reference, x = start(dtype=torch.float64)
    _, expected = dense_training(reference, [x, x[:2]], NONE, 0.5, lr=1e-2)
    parameters, x = start()
    engine = module.TritonTopK(parameters, SPEC)
    engine.step(x, NONE, lr=1e-2)
    before = parameters.encoder.clone()
    silent = ~engine.step(x[:2], NONE, lr=1e-2).fired
    assert silent.sum() >= WIDTH - 2 * K
    assert ((parameters.encoder - before)[silent].abs().amax(1) > 1e-3).sum() > WIDTH // 4
    assert_near(parameters, expected)


def test_what_fires_and_what_is_lost_are_those_of_the_cpu(module):
    """Some tokens have fewer than k positive pre-activations, one has none; one latent never fires."""
    outcomes = []
    for make in (FusedTopK, module.TritonTopK):
        parameters, x = start()
        x[0] = parameters.decoder_bias
        parameters.encoder_bias -= 2
        outcomes.append(make(parameters, SPEC).step(x, DEAD, lr=1e-2))
    expected, ours = outcomes
    assert 0 < ours.firings == expected.firings < (TOKENS - 1) * K
    assert torch.equal(ours.fired, expected.fired) and not ours.fired.all()
    assert (ours.loss, ours.fvu) == pytest.approx((expected.loss, expected.fvu), rel=1e-6)
    assert ours.loss > ours.fvu


@pytest.mark.filterwarnings("ignore::RuntimeWarning:triton", "ignore::RuntimeWarning:numpy")
def test_a_residual_that_does_not_vary_adds_nothing(module):
    parameters, x = start()
    outcome = module.TritonTopK(parameters, SPEC).step(x[:1].expand(TOKENS, -1), DEAD, lr=1e-2)
    assert outcome.loss == outcome.fvu > 0
    assert float(module.spread(x[:1].expand(TOKENS, -1))) == 0 < float(module.spread(x))


def with_nan_token(parameters, x):
    x[3, 2] = np.nan


def with_infinite_token(parameters, x):
    x[3, 2] = np.inf


def with_nan_encoder(parameters, x):
    parameters.encoder[7, 1] = np.nan


def with_silent_infinity(parameters, x):
    parameters.encoder_bias[7] = -np.inf


@pytest.mark.parametrize("spoil", [with_nan_token, with_infinite_token, with_nan_encoder, with_silent_infinity])
@pytest.mark.parametrize("dead", [NONE, DEAD])
@pytest.mark.filterwarnings("ignore::RuntimeWarning:triton", "ignore::RuntimeWarning:numpy")
def test_a_loss_that_is_not_finite_leaves_everything_as_it_was(module, spoil, dead):
    parameters, x = start()
    spoil(parameters, x)
    engine = module.TritonTopK(parameters, SPEC)
    before = bits(engine)
    assert not np.isfinite(engine.step(x, dead, lr=1e-2).loss)
    assert_same_bits(bits(engine), before)


def test_a_nan_among_the_values_reaches_the_squares_of_its_token_alone(module):
    parameters, x = start()
    slots, _ = module.strongest(x, parameters, K, NONE, AUX)
    slots.values[3, 1] = np.nan
    term = module.explain(x, slots, parameters.atoms, torch.ones((), dtype=torch.float64))
    assert term.squares.isnan().nonzero().tolist() == [[3]]


def test_two_runs_and_a_restored_one_give_the_same_bits(module):
    x = start()[1]
    straight, again = (module.TritonTopK(start()[0], SPEC) for _ in range(2))
    for engine in (straight, again):
        engine.step(x, DEAD, lr=1e-2)
    assert_same_bits(bits(straight), bits(again))
    resumed = module.TritonTopK(start(seed=1)[0], SPEC)
    resumed.restore(bits(again))
    for engine in (straight, resumed):
        engine.step(x[::2], DEAD[:2], lr=1e-3)
    assert_same_bits(bits(straight), bits(resumed))
    assert straight.state().keys() == FusedTopK(start()[0], SPEC).state().keys()


def test_the_size_of_a_tile_does_not_change_the_result(module, monkeypatch):
    parameters, x = start()
    kept, revived = module.strongest(x, parameters, K, DEAD, AUX)
    monkeypatch.setattr(module, "TILE_BYTES", 4 * WIDTH * 7)
    rows, held, addmm = [], [], torch.addmm

    def recorded(*args, out):
        rows.append(len(out))
        held.append(out.untyped_storage().nbytes())
        return addmm(*args, out=out)

    monkeypatch.setattr(torch, "addmm", recorded)
    tiled = module.strongest(x, parameters, K, DEAD, AUX)
    assert sum(rows) == TOKENS and max(held) <= module.TILE_BYTES
    for one, other in zip((kept, revived), tiled, strict=True):
        assert torch.equal(one.latents.sort(1).values, other.latents.sort(1).values)
        np.testing.assert_allclose(one.values.sort(1).values, other.values.sort(1).values, atol=1e-5)


def learnt(folder=None, stop=None):
    """Learn in two epochs of four batches; a stream that stops in the second is a machine that is switched off."""
    draw = np.random.default_rng(0)
    tokens = (draw.standard_normal((200, 6)) ** 3 @ draw.standard_normal((6, 12))).astype(np.float32)

    def batches(epoch):
        for first in range(0, 200, 50):
            if epoch == 1 and first == stop:
                raise KeyboardInterrupt
            yield tokens[first : first + 50]

    spec = TopK(name="x", width=16, k=2, batch_size=50, epochs=2, dead_tokens=100, warmup_steps=0)
    policy = CheckpointPolicy(folder, every_tokens=50) if folder else None
    return learn(
        spec, batches, d=12, seed=0, held_out=tokens[:50], tokens_per_epoch=200, progress=False, checkpoint=policy
    )


def test_the_learner_goes_on_from_a_checkpoint_and_ends_where_the_cpu_does(module, monkeypatch, tmp_path):
    on_cpu = learnt()
    monkeypatch.setattr(topk_module, "_engine", lambda parameters, spec, _: module.TritonTopK(parameters, spec))
    straight = learnt()
    with pytest.raises(KeyboardInterrupt):
        learnt(tmp_path, stop=100)
    assert list(tmp_path.iterdir())
    assert learnt(tmp_path).digest == straight.digest
    np.testing.assert_allclose(straight.atoms, on_cpu.atoms, atol=1e-4)
    assert straight.card["metrics"]["fvu"] == pytest.approx(on_cpu.card["metrics"]["fvu"], rel=1e-4)


@pytest.mark.parametrize(
    ("device", "capability", "lacking", "engine"),
    [
        ("cuda", (8, 0), None, "TritonTopK"),
        ("cuda", (9, 0), None, "TritonTopK"),
        ("cuda", (7, 5), None, "TorchTopK"),
        ("cuda", (9, 0), "triton", "TorchTopK"),
        ("cuda", (9, 0), "compiler", "TorchTopK"),
        ("cuda", (9, 0), "headers", "TorchTopK"),
        ("mps", None, None, "TorchTopK"),
        ("cpu", None, None, "FusedTopK"),
    ],
)
def test_which_step_a_device_takes(module, monkeypatch, tmp_path, device, capability, lacking, engine):
    (tmp_path / "Python.h").touch()
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(topk_module, "find_spec", lambda name: None if lacking == "triton" else "found")
    monkeypatch.setattr(topk_module, "which", lambda name: None if lacking == "compiler" or name != "gcc" else "found")
    include = tmp_path / "none" if lacking == "headers" else tmp_path
    monkeypatch.setattr(topk_module.sysconfig, "get_config_var", lambda name: str(include))
    parameters, x = start()
    setting = Setting(x, Normaliser.identity(x.shape[1]), torch.Generator(), None, torch.device(device))
    assert type(topk_module._engine(parameters, SPEC, setting)).__name__ == engine


@pytest.mark.skipif(sys.platform != "linux", reason="Triton's compiler for GPUs comes with it on Linux only")
@pytest.mark.parametrize("capability", [80, 90])
def test_the_kernels_compile_for_gpus(capability, tmp_path):
    environment = {
        **os.environ,
        "TRITON_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    environment.pop("TRITON_INTERPRET", None)
    script = Path(__file__).with_name("triton_compile.py")
    done = subprocess.run(
        [sys.executable, script, str(capability)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert "FP_FUSION" not in done.stderr, "the rounding is left to Triton's version"
    built = json.loads(done.stdout)
    kernels = "explain_tokens", "sum_firings", "update_latents"
    assert built.keys() == {f"{kernel} {d}" for kernel in kernels for d in (12, 768)}
    for kernel in built.values():
        assert f".target sm_{capability}" in kernel["ptx"] and kernel["bytes"] > 1000
        assert not re.search(r"\b(atom|red)\.", kernel["ptx"]), "sums by atomic additions differ from run to run"


def test_nothing_of_the_interpreter_is_left_behind():
    with triton_interpreter.interpreted() as loaded:
        assert type(loaded.triton_kernels.explain_tokens).__name__ == "InterpretedFunction"
    assert "TRITON_INTERPRET" not in os.environ
    from conceptbench.dictionaries import triton_kernels

    assert type(triton_kernels.explain_tokens).__name__ == "JITFunction"
    assert type(sys.modules["triton.language"].sum).__name__ == "JITFunction"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
@pytest.mark.parametrize("dead", [NONE, DEAD])
def test_a_gpu_steps_as_dense_autograd_does(dead):
    from conceptbench.dictionaries.topk_triton import TritonTopK

    reference, x = start(dtype=torch.float64)
    losses, expected = dense_training(reference, [x] * 5, dead, 0.5, lr=1e-2)
    parameters, x = start()
    parameters = type(parameters)(*(tensor.cuda() for tensor in parameters.all()))
    engine = TritonTopK(parameters, SPEC)
    assert [engine.step(x.cuda(), dead.cuda(), lr=1e-2).loss for _ in losses] == pytest.approx(losses, rel=1e-5)
    assert_near(parameters, expected, atol=2e-5)
