"""Tip-Adapter: its formula, its search on validation images, its cache, and what novel classes get."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from adaptation_tools import CLASSES, ColourDataset, clip_backbone, pixels
from torch.nn.functional import cross_entropy

from conceptbench.adaptation import (
    PlainFeatures,
    TipAdapterFSpec,
    TipAdapterSpec,
    adapt,
    evaluate,
    load_adapter,
    predict,
)
from conceptbench.adaptation.tip_adapter import search, search_grid
from conceptbench.errors import ConceptBenchError

SPEC = TipAdapterSpec(views=2, beta_steps=20, alpha_steps=5)
TUNED = TipAdapterFSpec(views=2, beta_steps=20, alpha_steps=5, epochs=20, lr=0.05)


@pytest.fixture(scope="module")
def clip():
    return clip_backbone()


@pytest.fixture(scope="module")
def hues():
    return ColourDataset()


def test_grids_are_those_of_the_authors():
    grid = search_grid(7.0, 200)
    assert len(grid) == 200
    assert grid[0] == 0.1
    assert grid[1] == pytest.approx(0.1 + 6.9 / 200)
    assert max(grid) < 7.0


@torch.no_grad()
def test_logits_are_zero_shot_plus_votes_by_hand(clip, hues):
    adapter = adapt(SPEC, clip, hues, shots=4, seed=1, progress=False)
    zero_shot = adapt({"method": "zero-shot"}, clip, hues, 4, 1)
    stored = {name: value.double().numpy() for name, value in adapter.tensors().items()}
    assert np.allclose(np.linalg.norm(stored["keys"], axis=1), 1)
    x = pixels(clip, 3)
    images = clip.encode_image(x).double().numpy()
    images /= np.linalg.norm(images, axis=1, keepdims=True)
    names = (CLASSES[4], CLASSES[2], CLASSES[0])
    expected = predict(zero_shot, clip, x, names).double().numpy()
    for row, image in enumerate(images):
        for key, target in zip(stored["keys"], stored["targets"].astype(int), strict=True):
            vote = stored["alpha"] * np.exp(-stored["beta"] * (1 - image @ key))
            if CLASSES[target] in names:
                expected[row, names.index(CLASSES[target])] += vote
    assert np.allclose(predict(adapter, clip, x, names).numpy(), expected, atol=1e-4)


def test_novel_classes_get_no_vote(clip, hues):
    adapter = adapt(SPEC, clip, hues, shots=4, seed=1, progress=False)
    zero_shot = adapt({"method": "zero-shot"}, clip, hues, 4, 1)
    x = pixels(clip, 4)
    assert torch.equal(predict(adapter, clip, x, CLASSES[3:]), predict(zero_shot, clip, x, CLASSES[3:]))


def test_search_takes_the_first_best_of_the_grid():
    plain = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.4, 0.0]])
    affinity = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    values, targets = torch.eye(2), torch.tensor([0, 1, 1])
    assert search(plain, affinity, values, targets, [20.0], [0.1, 0.5, 0.9]) == (20.0, 0.5, 1.0)
    assert search(plain, affinity, values, targets, [0.001, 20.0, 30.0], [0.1, 0.5]) == (20.0, 0.5, 1.0)
    beta, alpha, score = search(plain, affinity, values, targets, [0.001], [0.1])
    assert (beta, alpha, round(score, 3)) == (0.001, 0.1, 0.667)


def test_numbers_are_chosen_on_validation_images_only(hues):
    """Other test images change nothing; other validation labels do."""
    clip = clip_backbone()
    first = adapt(SPEC, clip, hues, shots=4, seed=1, progress=False)
    fewer = ColourDataset(test=1)
    assert torch.equal(
        adapt(SPEC, clip, ColourDataset(test=9), shots=4, seed=1, progress=False).tensors()["targets"],
        first.tensors()["targets"],
    )
    plain = PlainFeatures(clip, fewer, progress=False)
    adapt(SPEC, clip, fewer, shots=4, seed=1, plain=plain, progress=False)
    assert set(fewer.manifest["split"].iloc[plain._rows]) == {"val"}


def test_the_cache_averages_augmented_views(clip, hues):
    one, many = (
        adapt(TipAdapterSpec(views=views, beta_steps=2, alpha_steps=2), clip, hues, 4, 1, progress=False)
        for views in (1, 30)
    )
    again = adapt(TipAdapterSpec(views=1, beta_steps=2, alpha_steps=2), clip, hues, 4, 1, progress=False)
    assert torch.equal(one.tensors()["keys"], again.tensors()["keys"])
    assert not torch.equal(one.tensors()["keys"], many.tensors()["keys"])
    centre = torch.nn.functional.normalize(many.tensors()["keys"].unflatten(0, (3, 4)).mean(1), dim=-1)
    spread = [(a.tensors()["keys"].unflatten(0, (3, 4)) * centre[:, None]).sum(-1).mean() for a in (one, many)]
    assert spread[1] > spread[0]


def test_fine_tuning_moves_the_keys_and_lowers_the_loss(clip, hues):
    frozen = adapt(SPEC, clip, hues, shots=4, seed=1, progress=False)
    tuned = adapt(TUNED, clip, hues, shots=4, seed=1, progress=False)
    training = tuned.card["training"]
    assert training["steps"] == 20
    assert training["losses"][-1] < training["losses"][0]
    assert training["learning_rates"][0] == 0.05
    assert training["learning_rates"][-1] < 0.001
    assert (tuned.tensors()["keys"] - frozen.tensors()["keys"]).abs().max() > 0.01
    rows = hues.rows("train")
    rows = rows[hues.labels(rows) < 3]
    features, targets = PlainFeatures(clip, hues, progress=False)(rows), torch.from_numpy(hues.labels(rows))
    trained_with = {"beta": TUNED.beta, "alpha": TUNED.alpha}
    alike = [replace(adapter, **trained_with) for adapter in (frozen, tuned)]
    losses = [cross_entropy(adapter.classify(clip, features, CLASSES[:3]), targets) for adapter in alike]
    assert losses[1] < losses[0]


def test_storage_keeps_the_numbers_exactly(clip, hues, tmp_path):
    adapter = adapt(SPEC, clip, hues, shots=2, seed=1, progress=False)
    adapter.save(tmp_path)
    loaded = load_adapter(tmp_path, clip)
    assert (loaded.alpha, loaded.beta) == (adapter.alpha, adapter.beta)
    assert evaluate(loaded, clip, hues, progress=False).equals(evaluate(adapter, clip, hues, progress=False))


def test_no_validation_images_and_no_text(clip, hues):
    with pytest.raises(ConceptBenchError, match="no validation images to search Tip-Adapter's alpha and beta"):
        adapt(SPEC, clip, ColourDataset(val=0), 1, 1, progress=False)
    with pytest.raises(ConceptBenchError, match="'image-only' has no open_clip text tower"):
        adapt(SPEC, clip_backbone(name="image-only", has_text=False), hues, 1, 1, progress=False)
