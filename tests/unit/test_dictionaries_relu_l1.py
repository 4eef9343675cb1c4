"""ReLU-L1: the losses of PatchSAE against a literal reading of their formulas."""

import numpy as np
import pytest
import torch

from conceptbench.dictionaries import specify
from conceptbench.dictionaries.learner import FiringClock, Parameters, Setting, geometric_median, unit_rows
from conceptbench.dictionaries.normaliser import Normaliser
from conceptbench.dictionaries.relu_l1 import ReluL1Learner
from conceptbench.dictionaries.relu_l1_fused import FusedReluL1
from conceptbench.dictionaries.relu_l1_loss import ghost_loss, squared_errors
from conceptbench.dictionaries.relu_l1_torch import TorchReluL1
from conceptbench.dictionaries.specs import ReluL1


def literal(z, atoms, pre, b_dec, dead, lam):
    """rec, l1 and ghost as written down for the published code, per token in a loop."""
    tokens = len(z)
    a = pre.clamp_min(0)
    z_hat = a @ atoms + b_dec
    rec_elem = torch.stack([(z_hat[t] - z[t]) ** 2 / z[t].norm() for t in range(tokens)])
    total = rec_elem.mean() + lam * a.sum(1).mean()
    if not len(dead):
        return total
    ghost = []
    for t in range(tokens):
        r = (z[t] - z_hat[t]).detach()
        g = torch.exp(pre[t, dead]) @ atoms[dead]
        s = (r.norm() / (2 * g.norm() + 1e-6)).detach()
        e = (s * g - r) ** 2 / r.norm()
        ghost.append((rec_elem[t] / (e + 1e-6)).detach() * e)
    return total + torch.stack(ghost).mean()


@pytest.mark.parametrize("dead", [[], [1, 4, 5]])
def test_loss_and_gradients_equal_the_literal_formula(dead):
    g = torch.Generator().manual_seed(0)
    z = torch.randn(10, 6, generator=g, dtype=torch.float64) + 1
    draws = [torch.randn(*shape, generator=g, dtype=torch.float64) for shape in ((8, 6), (8, 6), (8,), (6,))]
    gradients = []
    for ours in (True, False):
        atoms, encoder, bias, centre = (t.clone().requires_grad_() for t in draws)
        pre = (z - centre) @ encoder.T + bias
        if ours:
            residual = z - pre.relu() @ atoms - centre
            elements = squared_errors(residual, z, norm_divided=True)
            loss = elements.sum() / 10 + 0.01 * pre.relu().sum() / 10
            loss = loss + ghost_loss(elements, residual, pre[:, dead], atoms[dead], norm_divided=True)
        else:
            loss = literal(z, atoms, pre, centre, torch.tensor(dead, dtype=torch.int64), 0.01)
        loss.backward()
        gradients.append([loss.detach(), *(t.grad for t in (atoms, encoder, bias, centre))])
    for left, right in zip(*gradients, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-9, atol=1e-12)


def test_ghost_gradient_uses_pre_activations():
    """With post-activations every dead latent would enter with exp(0) = 1 and get no gradient."""
    pre = torch.full((4, 2), -3.0, requires_grad=True)
    residual = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    ghost_loss(residual.square(), residual, pre, torch.eye(5)[:2], norm_divided=False).backward()
    assert (pre.grad.abs() > 0).any()


def learner(spec, tokens, seed=0):
    setting = Setting(
        torch.from_numpy(tokens), Normaliser.identity(tokens.shape[1]), torch.Generator().manual_seed(seed), None,
        torch.device("cpu"),
    )  # fmt: skip
    return ReluL1Learner(spec, setting)


def test_atoms_keep_unit_norm_and_latents_revive():
    tokens = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)
    spec = ReluL1(name="r", width=16, l1=1e-3, lr=1e-2, warmup_steps=0, decay_share=0, batch_size=64, dead_tokens=100)
    model = learner(spec, tokens)
    with torch.no_grad():
        model.parameters.encoder_bias[:4] = -20
    shares = [model.step(torch.from_numpy(tokens)).dead_share for _ in range(400)]
    assert max(shares) >= 0.25
    np.testing.assert_allclose(model.parameters.atoms.detach().norm(dim=1), 1, atol=1e-6)
    assert model.parameters.encoder_bias.detach()[:4].min() > -20


def test_patchsae_preset():
    spec = specify(name="p", method="relu-l1", preset="patchsae", width=32)
    assert (spec.l1, spec.lr, spec.warmup_steps, spec.decay_share, spec.normalise) == (8e-5, 4e-4, 500, 0, False)
    tokens = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float32)
    model = learner(spec, tokens)
    bound = (6 / 32) ** 0.5
    assert 0.8 * bound < float(model.parameters.encoder.detach().abs().max()) <= bound


def test_geometric_median_is_of_tokens_and_resists_outliers():
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((400, 5)).astype(np.float32) + 3
    tokens[:60] += 1000
    median = geometric_median(torch.from_numpy(tokens))
    assert (median - 3).abs().max() < 1
    cost = lambda point: float((torch.from_numpy(tokens) - point).norm(dim=1).mean())  # noqa: E731
    for step in np.eye(5, dtype=np.float32) * 0.2:
        assert cost(median) < cost(median + torch.from_numpy(step))


def test_dead_window_counts_tokens():
    clock = FiringClock(2, 10, torch.device("cpu"))
    for _ in range(2):
        clock.update(torch.tensor([True, False]), 5)
    assert clock.dead().tolist() == []
    clock.update(torch.tensor([True, False]), 1)
    assert clock.dead().tolist() == [1]
    clock.update(torch.tensor([False, True]), 1)
    assert clock.dead().tolist() == []


def reference_training(parameters, x, dead, spec, steps, lr):
    """Dense float64 autograd of the literal formulas, tangential gradients, Adam, unit norm."""
    tensors = [t.clone().double().requires_grad_() for t in parameters.all()]
    optimiser, losses, z = torch.optim.Adam(tensors, lr=lr), [], x.double()
    for _ in range(steps):
        atoms, encoder, bias, centre = tensors
        pre = (z - centre) @ encoder.T + bias
        if spec.norm_divided:
            loss = literal(z, atoms, pre, centre, dead, spec.l1)
        else:
            error = z - pre.relu() @ atoms - centre
            loss = ((error**2).sum() + spec.l1 * pre.relu().sum()) / len(z)
            if len(dead):
                loss = loss + ghost_loss(error.square(), error, pre[:, dead], atoms[dead], norm_divided=False)
        optimiser.zero_grad()
        loss.backward()
        losses.append(float(loss.detach()))
        with torch.no_grad():
            atoms.grad -= (atoms.grad * atoms).sum(1, keepdim=True) * atoms
            optimiser.step()
            atoms /= atoms.norm(dim=1, keepdim=True)
    return losses, [t.detach() for t in tensors]


def start(width=24, d=7, tokens=50):
    g = torch.Generator().manual_seed(2)
    atoms = unit_rows(torch.randn(width, d, generator=g))
    tensors = atoms, 0.5 * torch.randn(width, d, generator=g), 0.2 * torch.randn(width, generator=g) - 0.3
    return Parameters(*tensors, torch.randn(d, generator=g)), torch.randn(tokens, d, generator=g) * 2 + 1


@pytest.mark.parametrize("norm_divided", [True, False])
@pytest.mark.parametrize("dead", [[], [0, 5, 11]])
@pytest.mark.parametrize("form", ["torch", "sparse", "dense", "dense in tiles"])
def test_steps_equal_dense_autograd(form, dead, norm_divided, monkeypatch):
    """Loss within 1e-5 and parameters within 3e-5 of a float64 run after five steps of Adam."""
    spec = ReluL1(name="r", width=24, l1=0.05, norm_divided=norm_divided)
    parameters, x = start()
    dead = torch.tensor(dead, dtype=torch.int64)
    losses, expected = reference_training(parameters, x, dead, spec, 5, 1e-2)
    if form == "dense in tiles":
        monkeypatch.setattr("conceptbench.dictionaries.relu_l1_fused.TILE_VALUES", 24 * 9)
    share = {"sparse": 1.0, "dense": -1.0}.get(form.split()[0])
    if share is not None:
        monkeypatch.setattr("conceptbench.dictionaries.relu_l1_fused.DENSE_SHARE", share)
    engine = (TorchReluL1 if form == "torch" else FusedReluL1)(parameters, spec)
    for loss in losses:
        assert engine.step(x, dead, lr=1e-2, l1=0.05).loss == pytest.approx(loss, rel=1e-5)
    for ours, theirs in zip(parameters.all(), expected, strict=True):
        np.testing.assert_allclose(ours.detach().double(), theirs, atol=3e-5)


def test_sparse_and_dense_forms_count_the_same_firings(monkeypatch):
    outcomes = []
    for share in (1.0, -1.0):
        monkeypatch.setattr("conceptbench.dictionaries.relu_l1_fused.DENSE_SHARE", share)
        parameters, x = start()
        engine = FusedReluL1(parameters, ReluL1(name="r", width=24, l1=0.05))
        outcomes.append(engine.step(x, torch.empty(0, dtype=torch.int64), lr=1e-2, l1=0.05))
    assert outcomes[0].firings == outcomes[1].firings > 0
    assert torch.equal(outcomes[0].fired, outcomes[1].fired)
    assert outcomes[0].fvu == pytest.approx(outcomes[1].fvu, rel=1e-6)
