"""The autoencoder put together from parts, the archetypal atoms and the frozen ones."""

import numpy as np
import pytest
import torch
from method_tools import SHORT, D, in_torch, planted, setting_of, started, trained

from conceptbench.dictionaries import specify
from conceptbench.dictionaries.archetypal import NearHull, candidates_of
from conceptbench.dictionaries.autoencoder import AutoencoderLearner, LargestOfToken, whole
from conceptbench.dictionaries.specs import Archetypal
from conceptbench.dictionaries.topk_torch import aux_loss
from conceptbench.errors import ConceptBenchError

TOKENS, HELD_OUT = planted(8_192, 1), planted(2_048, 2)
TRAINED = ("batch-topk", "matryoshka", "jump-relu", "archetypal", "frozen")
OPTIONS = {"jump-relu": {"sparsity": 0.01}, "archetypal": {"k": 3, "candidates": 64}}


def options_of(method: str) -> dict:
    return {"method": method, **SHORT, **OPTIONS.get(method, {"k": 3})}


def test_codes_and_reconstruction_against_dense_matrices() -> None:
    random = np.random.default_rng(1)
    pre, target, atoms = (random.standard_normal(shape).astype(np.float32) for shape in ((9, 12), (9, 5), (12, 5)))
    codes = LargestOfToken(4).codes(torch.from_numpy(pre))
    expected = np.where(pre >= np.sort(pre, 1)[:, -4:-3], np.maximum(pre, 0), 0)
    np.testing.assert_array_equal(codes.numpy(), expected)
    error, residual = whole(torch.from_numpy(target), codes, torch.from_numpy(atoms))
    np.testing.assert_allclose(residual.numpy(), target - expected @ atoms, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(float(error), np.square(target - expected @ atoms).sum(), rtol=1e-5)


def test_the_auxiliary_loss_reaches_the_encoder_and_not_the_decoder_bias() -> None:
    """AuxK predicts a residual, which has no bias; its gradient in the dead encoder rows is that of the formula."""
    generator = torch.Generator().manual_seed(0)
    x, encoder, atoms, bias = (torch.randn(*shape, generator=generator) for shape in ((20, 6), (5, 6), (5, 6), (6,)))
    for tensor in (encoder, atoms, bias):
        tensor.requires_grad_()
    residual = x - bias
    loss = aux_loss(residual, x @ encoder.T, atoms, 5)
    loss.backward()
    assert bias.grad is None and encoder.grad is not None and float(encoder.grad.norm()) > 0
    free = encoder.detach().clone().requires_grad_()
    target = residual.detach()
    explained = (x @ free.T).relu() @ atoms.detach()
    ((explained - target).square().sum() / (target - target.mean(0)).square().sum()).backward()
    torch.testing.assert_close(encoder.grad, free.grad)


@pytest.mark.parametrize("method", TRAINED)
def test_dead_latents_are_revived(method: str) -> None:
    """Latents whose encoder is too small to be selected: the auxiliary loss, and it alone, moves their rows."""
    moved = {}
    for alpha in (0.0, 1.0):
        options = {"aux_alpha": alpha, "dead_tokens": 1, "aux_k": 48, "lr": 1e-2}
        _, learner = in_torch(TOKENS, **(options_of(method) | options))
        with torch.no_grad():
            learner._encoder[:4] *= 1e-6
        before = learner._encoder[:4].detach().clone()
        for start in range(0, 512, 128):
            learner.step(torch.from_numpy(TOKENS[start : start + 128]))
        moved[alpha] = (learner._encoder[:4].detach() - before).abs().amax(1)
    assert float(moved[0.0].max()) == 0
    assert float(moved[1.0].min()) > 1e-3


@pytest.mark.parametrize("method", TRAINED)
def test_encoder_and_atoms_have_their_own_memory(method: str) -> None:
    _, learner = in_torch(TOKENS, **options_of(method))
    atoms = learner._decoder.atoms().detach().clone()
    with torch.no_grad():
        learner._encoder.add_(1)
    torch.testing.assert_close(learner._decoder.atoms().detach(), atoms, rtol=0, atol=0)


@pytest.mark.parametrize("method", TRAINED)
def test_training_explains_more(method: str) -> None:
    short, long = (trained(TOKENS[:n], HELD_OUT, **options_of(method)) for n in (512, 8_192))
    assert long.card["metrics"]["fvu"] < (0.97 if method == "frozen" else 0.8) * short.card["metrics"]["fvu"]


def test_atoms_of_free_autoencoders_have_unit_norm_and_frozen_ones_do_not_move() -> None:
    for method in ("batch-topk", "matryoshka", "jump-relu", "frozen"):
        learnt = trained(TOKENS[:2_048], HELD_OUT, **options_of(method))
        np.testing.assert_allclose(np.linalg.norm(learnt.atoms, axis=1), 1, rtol=1e-5)
    frozen = [trained(TOKENS[:n], HELD_OUT, **options_of("frozen")) for n in (512, 8_192)]
    np.testing.assert_array_equal(frozen[0].atoms, frozen[1].atoms)
    assert np.abs(frozen[0].encoder - frozen[1].encoder).max() > 0.01


@pytest.mark.parametrize("relaxation", [0.0, 0.2])
def test_archetypal_atoms_stay_near_convex_combinations(relaxation: float) -> None:
    """After training: weights >= 0 of sum 1, distances within the bound, and all of it really moved."""
    spec, learner = started(TOKENS, **(options_of("archetypal") | {"relaxation": relaxation, "lr": 1e-2}))
    assert isinstance(learner, AutoencoderLearner) and isinstance(spec, Archetypal)
    decoder = learner._decoder
    assert isinstance(decoder, NearHull)
    before = decoder.combinations().detach().clone()
    for start in range(0, 8_192, 128):
        learner.step(torch.from_numpy(TOKENS[start : start + 128]))
    weights = decoder._logits.detach().softmax(1)
    assert float(weights.min()) >= 0
    torch.testing.assert_close(weights.sum(1), torch.ones(48))
    candidates = decoder._candidates
    torch.testing.assert_close(decoder.combinations().detach(), weights @ candidates)
    distances = (torch.from_numpy(learner.finish().atoms) - weights @ candidates).norm(dim=1)
    bound = relaxation * float(candidates.norm(dim=1).mean())
    assert float(distances.max()) <= bound * (1 + 1e-5) + 1e-5
    assert float(distances.max()) > 0.5 * bound or relaxation == 0
    assert float((decoder.combinations().detach() - before).norm(dim=1).mean()) > 0.01


def test_archetypal_candidates_are_centres_of_the_tokens() -> None:
    spec = specify(name="x", method="archetypal", width=16, k=2, candidates=32)
    assert isinstance(spec, Archetypal)
    candidates = candidates_of(spec, setting_of(TOKENS))
    assert candidates.shape == (32, D)
    centred = torch.from_numpy(TOKENS - TOKENS.mean(0))
    explained = 1 - float(torch.cdist(centred, candidates).min(1).values.square().sum() / centred.square().sum())
    assert explained > 0.3, "32 centres of 40 atoms' sums"
    with pytest.raises(ConceptBenchError, match="asks for 32 candidates of 20 training tokens"):
        candidates_of(spec, setting_of(TOKENS[:20]))
