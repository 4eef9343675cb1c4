"""CoOp, CoCoOp, VPT-deep, IVLP and PromptSRC: forwards written out without hooks, counts, losses, averages."""

import math
from dataclasses import replace

import pytest
import torch
from adaptation_tools import CLASSES, ColourDataset, clip_backbone, explicit_clip_image, explicit_clip_text, pixels
from open_clip.tokenizer import SimpleTokenizer
from torch.nn.functional import cross_entropy

from conceptbench.adaptation import CoCoOpSpec, CoOpSpec, IvlpSpec, PromptSrcSpec, VptSpec, adapt, predict
from conceptbench.adaptation.cocoop import CoCoOpLearner, new_cocoop
from conceptbench.adaptation.coop import coop_loss, new_coop
from conceptbench.adaptation.ivlp import new_ivlp
from conceptbench.adaptation.prompts.adapter import class_tokens, prompt_loss
from conceptbench.adaptation.prompts.learner import IndependentPrompts
from conceptbench.adaptation.promptsrc import (
    EpochAverage,
    frozen_texts,
    gaussian_weights,
    original_templates,
    promptsrc_loss,
)
from conceptbench.adaptation.vpt import new_vpt, vpt_loss
from conceptbench.errors import ConceptBenchError

TOKENIZER = SimpleTokenizer()
TARGETS = torch.tensor([0, 1, 4])


@pytest.fixture(scope="module")
def clip():
    return clip_backbone()


@pytest.fixture(scope="module")
def hues():
    return ColourDataset()


def unit(x):
    return x / (x * x).sum(-1, keepdim=True).sqrt()


def tokens_of(prompts):
    """Token ids by the vocabulary itself, cut behind the longest text as the causal tower allows."""
    ids = [[49406, *TOKENIZER.encode(prompt), 49407] for prompt in prompts]
    length = max(map(len, ids))
    return torch.tensor([row + [0] * (length - len(row)) for row in ids])


def plain_prompts(model, tokens):
    """The tokens' own embeddings in the places of a prompt of length 1, which leaves the text as it is."""
    return [model.token_embedding.weight[tokens[0, 1:2]]]


def explicit_logits(model, images, texts):
    return model.logit_scale.exp() * unit(images) @ unit(texts).T


def test_coop_equals_an_explicit_forward_and_leaves_every_image_activation_alone(clip):
    spec = CoOpSpec()
    learner = new_coop(spec, clip, seed=1)
    assert torch.equal(learner.text[0], clip.text.token_embedding.weight[[320, 1125, 539, 320]])
    torch.nn.init.normal_(learner.text[0])
    x, tokens = pixels(clip, 3), tokens_of([f"a photo of a {name.replace('_', ' ')}." for name in CLASSES])
    assert torch.equal(class_tokens(spec, clip, CLASSES)[:, : tokens.shape[1]], tokens)
    with torch.no_grad():
        texts = explicit_clip_text(clip.model, tokens, list(learner.text))
        expected = cross_entropy(explicit_logits(clip.model, clip.encode_image(x), texts), TARGETS)
    assert math.isclose(coop_loss(learner, clip, tokens, x, TARGETS).item(), expected.item(), rel_tol=1e-5)


def test_coop_leaves_every_image_activation_unchanged(clip, hues):
    x = pixels(clip, 3)
    adapter = adapt(CoOpSpec(epochs=2, batch_size=4), clip, hues, shots=4, seed=1, progress=False)
    with torch.no_grad():
        before = clip.tokens(x, range(clip.n_blocks))
        with adapter.image_context(clip):
            after = clip.tokens(x, range(clip.n_blocks))
    assert not adapter.moves_images
    assert all(torch.equal(before[block], after[block]) for block in before)
    assert not torch.equal(adapter.tensors()["text.0"], new_coop(CoOpSpec(), clip, 1).text[0])


@torch.no_grad()
def test_cocoop_equals_an_explicit_forward_image_by_image(clip, hues):
    adapter = adapt(CoCoOpSpec(epochs=2), clip, hues, shots=2, seed=1, progress=False)
    weights = adapter.tensors()
    for name in weights:
        weights[name].normal_(std=0.3)
    x, tokens = pixels(clip, 4), tokens_of([f"a photo of a {name.replace('_', ' ')}." for name in CLASSES])
    images = unit(clip.encode_image(x))
    expected = []
    for image in images:
        hidden = (weights["meta.0.weight"] @ image + weights["meta.0.bias"]).clamp(min=0)
        shift = weights["meta.2.weight"] @ hidden + weights["meta.2.bias"]
        texts = explicit_clip_text(clip.model, tokens, [weights["context"] + shift])
        expected.append(explicit_logits(clip.model, image[None], texts)[0])
    assert torch.allclose(predict(adapter, clip, x, CLASSES), torch.stack(expected), atol=1e-4)
    assert (torch.stack(expected)[0] - torch.stack(expected)[1]).abs().max() > 0.1
    with pytest.raises(ConceptBenchError, match="differ from image to image"):
        adapter.text_features(clip, CLASSES)


def test_cocoop_classifies_in_pieces_of_images(clip, hues, monkeypatch):
    adapter = adapt(CoCoOpSpec(epochs=1), clip, hues, shots=1, seed=1, progress=False)
    whole = predict(adapter, clip, pixels(clip, 5), CLASSES)
    monkeypatch.setattr("conceptbench.adaptation.cocoop.TEXTS_AT_ONCE", 11)
    assert torch.allclose(predict(adapter, clip, pixels(clip, 5), CLASSES), whole, atol=1e-5)


def test_vpt_equals_an_explicit_forward(clip):
    spec = VptSpec(n_ctx=3, depth=4)
    learner = new_vpt(spec, clip, seed=1)
    x, tokens = pixels(clip, 3), tokens_of([f"a photo of a {name.replace('_', ' ')}." for name in CLASSES])
    assert torch.equal(class_tokens(spec, clip, CLASSES)[:, : tokens.shape[1]], tokens)
    with torch.no_grad():
        texts = unit(explicit_clip_text(clip.model, tokens, plain_prompts(clip.model, tokens)))
        images = explicit_clip_image(clip.model, x, list(learner.image))
        expected = cross_entropy(explicit_logits(clip.model, images, texts), TARGETS)
    assert len(learner.text) == 0
    assert math.isclose(vpt_loss(learner, clip, texts, x, TARGETS).item(), expected.item(), rel_tol=1e-5)


def test_ivlp_equals_an_explicit_forward(clip):
    learner = new_ivlp(IvlpSpec(n_image=3, text_depth=3, image_depth=4), clip, seed=1)
    x, tokens = pixels(clip, 3), tokens_of([f"a photo of a {name.replace('_', ' ')}." for name in CLASSES])
    loss = prompt_loss(learner, clip, tokens, x, TARGETS)
    with torch.no_grad():
        texts = explicit_clip_text(clip.model, tokens, list(learner.text))
        images = explicit_clip_image(clip.model, x, list(learner.image))
        expected = cross_entropy(explicit_logits(clip.model, images, texts), TARGETS)
    assert math.isclose(loss.item(), expected.item(), rel_tol=1e-5)
    loss.backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in learner.parameters())
    assert [tuple(p.shape) for p in learner.parameters()] == [(2, 32)] * 3 + [(3, 64)] * 4


def test_promptsrc_loss_is_that_of_the_authors(clip):
    spec = PromptSrcSpec(text_depth=2, image_depth=3, n_ctx=2, n_image=2, text_weight=7.0, image_weight=3.0)
    learner = new_ivlp(spec, clip, seed=1)
    x, names = pixels(clip, 3), [name.replace("_", " ") for name in CLASSES]
    tokens = tokens_of([f"a photo of a {name}." for name in names])
    templates = ["a photo of a {}.", "art of the {}."]
    with torch.no_grad():
        parts = []
        for template in templates:
            ids = tokens_of([template.replace("{}", name) for name in names])
            parts.append(explicit_clip_text(clip.model, ids, plain_prompts(clip.model, ids)))
        frozen = unit((parts[0] + parts[1]) / 2)
        assert torch.allclose(frozen_texts(clip, templates, CLASSES), frozen, atol=1e-5)
        texts = unit(explicit_clip_text(clip.model, tokens, list(learner.text)))
        images = unit(explicit_clip_image(clip.model, x, list(learner.image)))
        plain = unit(clip.encode_image(x))
        p = explicit_logits(clip.model, plain, frozen).softmax(-1)
        logits = explicit_logits(clip.model, images, texts)
        q = logits.softmax(-1)
        expected = (
            cross_entropy(logits, TARGETS)
            + 7 * (texts - frozen).abs().mean()
            + 3 * (images - plain).abs().mean()
            + (p * (p.log() - q.log())).sum() / p.numel()
        )
    loss = promptsrc_loss(spec, learner, clip, tokens, frozen, x, TARGETS)
    assert math.isclose(loss.item(), expected.item(), rel_tol=1e-4)


def test_promptsrc_templates_are_the_first_sixty_of_clip():
    templates = original_templates()
    assert len(set(templates)) == 60
    assert all(template.count("{}") == 1 for template in templates)
    assert {"a photo of a {}.", "itap of the {}.", "graffiti of a {}."} <= set(templates)
    assert "a photo of the small {}." not in templates


@pytest.mark.parametrize(("epochs", "mean", "deviation"), [(20, 15, 1), (50, 30, 30), (50, 45, 5)])
def test_gaussian_weights_of_the_epochs(epochs, mean, deviation):
    density = [math.exp(-(((e - mean) / deviation) ** 2) / 2) for e in range(1, epochs + 1)]
    expected = [value / sum(density) for value in density]
    assert all(
        math.isclose(a, b, rel_tol=1e-9, abs_tol=1e-15)
        for a, b in zip(gaussian_weights(epochs, mean, deviation), expected, strict=True)
    )


def test_a_mean_beyond_the_last_epoch_keeps_the_last_epoch():
    assert gaussian_weights(3, 100, 0.5) == pytest.approx([0, 0, 1], abs=1e-12)


def test_epochs_are_averaged_into_the_learner():
    learner = IndependentPrompts([torch.zeros(2, 3)], [torch.zeros(1, 4)])
    average = EpochAverage(learner, [0.25, 0.75])
    for epoch, value in ((1, 4.0), (2, 8.0)):
        with torch.no_grad():
            for parameter in learner.parameters():
                parameter.fill_(value)
        average(epoch)
    assert all(torch.equal(p, torch.full_like(p, 7.0)) for p in learner.parameters())


def test_promptsrc_keeps_the_average_of_its_epochs(clip, hues):
    spec = PromptSrcSpec(text_depth=1, image_depth=2, epochs=3, mean_epoch=1, epoch_deviation=0.1, templates=("a {}.",))
    first = adapt(replace(spec, epochs=1), clip, hues, shots=2, seed=1, progress=False)
    whole = adapt(spec, clip, hues, shots=2, seed=1, progress=False)
    last = adapt(replace(spec, mean_epoch=3), clip, hues, shots=2, seed=1, progress=False)
    start = new_ivlp(spec, clip, seed=1).state_dict()
    for name, value in whole.tensors().items():
        assert torch.allclose(value, first.tensors()[name], atol=1e-7)
        assert (last.tensors()[name] - start[name]).abs().max() > 10 * (value - start[name]).abs().max()


def size(learner):
    return sum(parameter.numel() for parameter in learner.parameters())


def test_parameter_counts_of_vit_b_16():
    assert size(IndependentPrompts([torch.zeros(4, 512)], [])) == 2_048  # CoOp
    assert size(CoCoOpLearner(torch.zeros(4, 512), 512, 16)) == 35_360
    assert size(IndependentPrompts([], [torch.zeros(8, 768)] * 12)) == 73_728  # VPT-deep
    assert size(IndependentPrompts([torch.zeros(4, 512)] * 9, [torch.zeros(4, 768)] * 9)) == 46_080  # PromptSRC


def test_published_recipes_are_the_defaults():
    assert (CoOpSpec().n_ctx, CoOpSpec().lr, CoOpSpec().epochs, CoOpSpec().batch_size) == (4, 0.002, 200, 32)
    assert (CoCoOpSpec().n_ctx, CoCoOpSpec().lr, CoCoOpSpec().epochs, CoCoOpSpec().batch_size) == (4, 0.002, 10, 1)
    assert (VptSpec().n_ctx, VptSpec().depth, VptSpec().lr, VptSpec().epochs, VptSpec().batch_size) == (
        8,
        12,
        0.0025,
        5,
        4,
    )
    assert (IvlpSpec().n_ctx, IvlpSpec().n_image, IvlpSpec().text_depth, IvlpSpec().lr) == (2, 2, 12, 0.0035)
    source = PromptSrcSpec()
    assert (source.n_ctx, source.n_image, source.text_depth, source.lr, source.epochs) == (4, 4, 9, 0.0025, 20)
    assert (source.text_weight, source.image_weight, source.mean_epoch, source.epoch_deviation) == (25, 10, 15, 1)


def test_too_deep_or_too_long(clip):
    with pytest.raises(ConceptBenchError, match="image tower of backbone 'small-clip' has 4; lower"):
        new_vpt(VptSpec(depth=5), clip, seed=0)
    with pytest.raises(ConceptBenchError, match="text tower of backbone 'small-clip' has 3; lower"):
        new_ivlp(IvlpSpec(text_depth=4, image_depth=4), clip, seed=0)
    with pytest.raises(ConceptBenchError, match="has 4 tokens"):
        new_cocoop(CoCoOpSpec(n_ctx=5), clip, seed=0)
    short = clip_backbone(context_length=8)
    with pytest.raises(ConceptBenchError, match="are the same 8 tokens to backbone 'small-clip', which cuts longer"):
        class_tokens(CoOpSpec(n_ctx=9, context=""), short, CLASSES)
