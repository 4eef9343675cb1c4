"""Matryoshka: the nested loss and its gradient against a plain loop, and what nesting is for."""

import numpy as np
import pytest
import torch
from method_tools import SHORT, D, planted, trained

from conceptbench.dictionaries import specify
from conceptbench.dictionaries.matryoshka import nested, prefix_ends
from conceptbench.dictionaries.specs import Matryoshka

TOKENS, HELD_OUT = planted(8_192, 1), planted(2_048, 2)


def test_loss_and_gradient_are_the_mean_over_prefixes() -> None:
    """Reference: every prefix reconstructs on its own; gradients by the suffix sum of residuals. float64."""
    random = np.random.default_rng(0)
    x, z, a = (random.standard_normal(shape) for shape in ((7, 5), (7, 12), (12, 5)))
    target, codes, atoms = (torch.from_numpy(array).requires_grad_() for array in (x, z, a))
    ends = (2, 5, 12)
    loss, residual = nested(ends)(target, codes, atoms)
    loss.backward()
    residuals = [x - z[:, :end] @ a[:end] for end in ends]
    np.testing.assert_allclose(float(loss.detach()), np.mean([np.square(e).sum() for e in residuals]))
    np.testing.assert_allclose(residual.detach().numpy(), residuals[-1])
    for latent in range(12):
        covering = np.sum([e for e, end in zip(residuals, ends, strict=True) if latent < end], axis=0)
        assert codes.grad is not None and atoms.grad is not None
        np.testing.assert_allclose(codes.grad[:, latent].numpy(), -2 / 3 * covering @ a[latent], atol=1e-12)
        np.testing.assert_allclose(atoms.grad[latent].numpy(), -2 / 3 * z[:, latent] @ covering, atol=1e-12)


def test_prefixes_are_shares_of_the_width() -> None:
    spec = specify(name="x", method="matryoshka", width=100, k=2, prefixes=[0.1, 0.104, 0.25, 1])
    assert isinstance(spec, Matryoshka)
    assert prefix_ends(spec) == (10, 25, 100)


def test_a_prefix_alone_explains_more_than_other_latents_of_its_number() -> None:
    """General latents come first: the first quarter against quarters without nesting, same training."""
    shared = SHORT | {"method": "matryoshka", "k": 3, "epochs": 2}
    plain, nest = (trained(TOKENS, HELD_OUT, prefixes=p, **shared) for p in ((1.0,), (0.25, 0.5, 1.0)))
    assert fvu_of_prefix(nest, 12) < 0.9 * fvu_of_prefix(plain, 12)
    assert nest.card["metrics"]["fvu"] < 1.5 * plain.card["metrics"]["fvu"]


def fvu_of_prefix(dictionary, end: int) -> float:
    codes = np.asarray(dictionary.encode(HELD_OUT).csr()[:, :end].todense())
    normalised = dictionary.normaliser.apply(HELD_OUT)
    residual = normalised - codes @ dictionary.atoms[:end] - dictionary.decoder_bias
    return float(np.square(residual).sum() / np.square(normalised - normalised.mean(0)).sum())


def test_a_single_prefix_is_batch_topk() -> None:
    """The whole as its only prefix: the same bits as BatchTopK of the same name and seed."""
    shared = SHORT | {"k": 3}
    one = trained(TOKENS[:2048], HELD_OUT, method="matryoshka", prefixes=(1.0,), **shared)
    other = trained(TOKENS[:2048], HELD_OUT, method="batch-topk", **shared)
    assert one.atoms.shape == (48, D)
    np.testing.assert_array_equal(one.atoms, other.atoms)
    assert one.card["metrics"]["l0"] == pytest.approx(other.card["metrics"]["l0"])
