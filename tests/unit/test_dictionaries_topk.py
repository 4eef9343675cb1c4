"""The fused TopK step and the torch one against a dense reference written on its own (`topk_reference`)."""

import numpy as np
import pytest
import torch
from topk_reference import AUX, WIDTH, K, dense_gradients, dense_training, start

from conceptbench.dictionaries.specs import TopK
from conceptbench.dictionaries.topk_fused import FusedTopK
from conceptbench.dictionaries.topk_torch import TorchTopK, aux_loss


@pytest.mark.parametrize("engine", [FusedTopK, TorchTopK])
@pytest.mark.parametrize("n_dead", [0, 3, 11])
def test_steps_equal_dense_autograd(engine, n_dead):
    """Loss within 1e-6 and parameters within 2e-5 of a dense float64 run after five steps of Adam."""
    dead = torch.arange(n_dead) * 3
    reference, x = start(dtype=torch.float64)
    losses, expected = dense_training(reference, [x] * 5, dead, 0.5, lr=1e-2)
    parameters, x = start()
    spec = TopK(name="t", width=WIDTH, k=K, aux_k=AUX, aux_alpha=0.5)
    fast = engine(parameters, spec)
    for loss in losses:
        assert fast.step(x, dead, lr=1e-2).loss == pytest.approx(loss, rel=1e-5)
    for ours, theirs in zip(parameters.all(), expected, strict=True):
        np.testing.assert_allclose(ours.detach().double(), theirs, atol=2e-5)


def fused_gradients(n_dead, alpha):
    """Read the first-step gradients off Adam's first moments: m = (1 - beta1) g."""
    parameters, x = start()
    engine = FusedTopK(parameters, TopK(name="t", width=WIDTH, k=K, aux_k=AUX, aux_alpha=alpha))
    engine.step(x, torch.arange(n_dead), lr=1e-3)
    first = {name: moments[0] * 10 for name, moments in engine.adam.moments().items()}
    return first["atoms"], first["encoder"], first["decoder_bias"]


def test_gradients_equal_dense_autograd():
    of_atoms, of_encoder, _, of_centre = dense_gradients(*start(dtype=torch.float64), torch.arange(11), 0.5)
    atoms, encoder, centre = fused_gradients(11, 0.5)
    np.testing.assert_allclose(atoms, of_atoms, atol=1e-6)
    np.testing.assert_allclose(encoder, of_encoder, atol=1e-6)
    np.testing.assert_allclose(centre, of_centre, atol=1e-6)


def test_aux_gradient_reaches_the_encoder():
    without, with_aux = fused_gradients(11, 0.0), fused_gradients(11, 0.5)
    assert np.abs(with_aux[1][:11] - without[1][:11]).max() > 1e-3
    np.testing.assert_allclose(with_aux[1][11:], without[1][11:], atol=1e-7)


def test_aux_loss_ignores_the_decoder_bias_and_detaches_the_residual():
    g = torch.Generator().manual_seed(0)
    residual = torch.randn(9, 4, generator=g, requires_grad=True)
    pre, atoms = torch.randn(9, 5, generator=g, requires_grad=True), torch.randn(5, 4, generator=g)
    loss = aux_loss(residual, pre, atoms, 2)
    loss.backward()
    assert residual.grad is None
    top = pre.detach().topk(2)
    guess = torch.zeros(9, 5).scatter(1, top.indices, top.values.relu()) @ atoms
    target = residual.detach()
    expected = (guess - target).square().sum() / (target - target.mean(0)).square().sum()
    assert float(loss.detach()) == pytest.approx(float(expected), rel=1e-6)
    assert pre.grad.abs().sum() > 0


def test_aux_loss_is_zero_without_dead_latents_or_variation():
    pre, atoms = torch.randn(3, 2), torch.randn(2, 4)
    assert aux_loss(torch.randn(3, 4), pre[:, :0], atoms[:0], 2) == 0
    assert aux_loss(torch.ones(3, 4), pre, atoms, 2) == 0


def test_unit_norm_and_separate_storage():
    parameters, x = start()
    engine = FusedTopK(parameters, TopK(name="t", width=WIDTH, k=K))
    for _ in range(20):
        engine.step(x, torch.arange(4), lr=1e-2)
    np.testing.assert_allclose(parameters.atoms.norm(dim=1), 1, atol=1e-6)
    assert parameters.atoms.data_ptr() != parameters.encoder.data_ptr()


def test_number_of_threads_does_not_change_the_result():
    threads = torch.get_num_threads()
    results = []
    try:
        for n in (1, 2):
            torch.set_num_threads(n)
            parameters, x = start()
            engine = FusedTopK(parameters, TopK(name="t", width=WIDTH, k=K, aux_k=AUX))
            for _ in range(3):
                engine.step(x, torch.arange(7), lr=1e-2)
            results.append(parameters.atoms.clone())
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_allclose(results[0], results[1], atol=1e-6)
