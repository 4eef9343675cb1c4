"""CLIP-LoRA: changed weights against a model whose weights were changed by hand, dropout, counts, restoration."""

from copy import deepcopy

import pytest
import torch
from adaptation_tools import CLASSES, ColourDataset, clip_backbone, pixels, siglip_backbone

from conceptbench.adaptation import ClipLoraSpec, adapt, load_adapter, predict
from conceptbench.adaptation.lora.adapter import LoraLearner, lora_loss, new_lora
from conceptbench.adaptation.lora.layers import LowRank, merged, trained
from conceptbench.adaptation.prompts.text import prompt_tokens
from conceptbench.errors import ConceptBenchError

FAST = ClipLoraSpec(iterations_per_shot=4, batch_size=4)
NO_DROPOUT = ClipLoraSpec(dropout=0.0)


@pytest.fixture(scope="module")
def clip():
    return clip_backbone()


@pytest.fixture(scope="module")
def hues():
    return ColourDataset()


def randomised(spec, backbone):
    """A learner whose factors are all random and large enough to matter."""
    learner = new_lora(spec, backbone, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in learner.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return learner


def by_hand(weight, factors, spec):
    """W + alpha / sqrt(r) B A for the stacked q, k, v, one projection after the other."""
    weight = weight.clone()
    width = weight.shape[1]
    for i, projection in enumerate(spec.projections):
        start = "qkv".index(projection) * width
        weight[start : start + width] += spec.alpha / spec.rank**0.5 * factors.up[i] @ factors.down[i]
    return torch.nn.Parameter(weight, requires_grad=False)


def changed_model(backbone, learner, spec):
    """A copy of the model with changed weights and no trace of the code under test."""
    model = deepcopy(backbone.model)
    visual = model.visual.trunk.blocks if hasattr(model.visual, "trunk") else model.visual.transformer.resblocks
    texts = model.text.transformer.resblocks if hasattr(model, "text") else model.transformer.resblocks
    for blocks, factors in ((visual, learner.image), (texts, learner.text)):
        for block, low_rank in zip(blocks, factors, strict=False):
            if hasattr(block.attn, "qkv"):
                block.attn.qkv.weight = by_hand(block.attn.qkv.weight, low_rank, spec)
            else:
                block.attn.in_proj_weight = by_hand(block.attn.in_proj_weight, low_rank, spec)
    return model


@pytest.mark.parametrize("make", [clip_backbone, siglip_backbone])
@pytest.mark.parametrize("options", [{}, {"projections": ("q", "v"), "rank": 3}, {"towers": "image"}])
@torch.no_grad()
def test_both_paths_equal_a_model_with_changed_weights(make, options):
    backbone = make()
    for name, parameter in backbone.model.named_parameters():
        if name.endswith("gamma"):  # layer scales start so small that no change of attention would show
            parameter.fill_(1)
    spec = ClipLoraSpec(dropout=0.0, **options)
    learner = randomised(spec, backbone)
    model = changed_model(backbone, learner, spec)
    x, tokens = pixels(backbone, 3), backbone.tokenize([f"a photo of a {name}." for name in CLASSES])
    images, texts = model.encode_image(x), model.encode_text(tokens)
    assert (images - backbone.encode_image(x)).abs().max() > 0.005
    assert torch.equal(texts, backbone.encode_text(tokens)) == (spec.towers == "image")
    for change in (merged, trained):
        with change(*learner.image_side(backbone)), change(*learner.text_side(backbone)):
            assert torch.allclose(backbone.encode_image(x), images, atol=1e-5)
            assert torch.allclose(backbone.encode_text(tokens), texts, atol=1e-5)


@pytest.mark.parametrize("change", [merged, trained])
@pytest.mark.parametrize("make", [clip_backbone, siglip_backbone])
@torch.no_grad()
def test_leaving_restores_every_bit(make, change):
    backbone = make()
    learner = randomised(FAST, backbone)
    x = pixels(backbone, 2)
    before, state = backbone.encode_image(x), {k: v.clone() for k, v in backbone.model.state_dict().items()}
    modules = [id(module) for module in backbone.model.modules()]
    with pytest.raises(RuntimeError, match="stop"), change(*learner.image_side(backbone)):
        assert not torch.equal(backbone.encode_image(x), before)
        raise RuntimeError("stop")
    assert torch.equal(backbone.encode_image(x), before)
    assert [id(module) for module in backbone.model.modules()] == modules
    after = backbone.model.state_dict()
    assert list(after) == list(state)
    assert all(torch.equal(after[name], value) for name, value in state.items())


@torch.no_grad()
def test_an_untrained_learner_changes_nothing(clip):
    learner = new_lora(FAST, clip, seed=0)
    x = pixels(clip, 2)
    with merged(*learner.image_side(clip)):
        features = clip.encode_image(x)
    assert torch.equal(features, clip.encode_image(x))
    assert all(low_rank.down.abs().max() <= 1 / 8 for low_rank in learner.image)
    assert all(low_rank.down.std() > 0.05 for low_rank in learner.image)


@torch.no_grad()
def test_dropout_is_on_the_input_of_the_factors_and_right_on_average():
    torch.manual_seed(0)
    spec = ClipLoraSpec(dropout=0.5, projections=("k",), rank=1)
    factors = LowRank(4, spec)
    factors.up.normal_()
    x = torch.ones(20_000, 4)
    added = factors(x)
    assert torch.equal(added[:, :4], torch.zeros(20_000, 4))
    assert torch.equal(added[:, 8:], torch.zeros(20_000, 4))
    expected = x[0] @ factors.change()[4:8].T
    assert torch.allclose(added[:, 4:8].mean(dim=0), expected, atol=0.05)
    directions = added[:, 4:8] / factors.up[0].T
    assert torch.allclose(directions, directions[:, :1].expand(-1, 4), atol=1e-4)
    assert len(directions[:, 0].round(decimals=4).unique()) == 16


def test_parameter_count_of_vit_b_16():
    spec = ClipLoraSpec()
    learner = LoraLearner(spec, [768] * 12, [512] * 12)
    assert sum(parameter.numel() for parameter in learner.parameters()) == 184_320
    assert (spec.rank, spec.alpha, spec.dropout, spec.lr, spec.batch_size) == (2, 1, 0.25, 2e-4, 32)
    assert spec.iterations_per_shot * 16 == 8_000


def test_gradients_reach_every_factor_and_nothing_else(clip):
    learner = randomised(NO_DROPOUT, clip)
    tokens = prompt_tokens(clip, [f"a {name}." for name in CLASSES])
    lora_loss(learner, clip, tokens, pixels(clip, 3), torch.tensor([0, 1, 2])).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in learner.parameters())
    assert all(p.grad is None for p in clip.model.parameters())


def test_training_stores_and_loads_on_novel_classes(clip, hues, tmp_path):
    adapter = adapt(FAST, clip, hues, shots=2, seed=1, progress=False)
    training = adapter.card["training"]
    assert training["steps"] == 8
    assert training["learning_rates"][0] == 2e-4
    assert training["learning_rates"][-1] < 2e-4
    adapter.save(tmp_path)
    loaded = load_adapter(tmp_path, clip)
    x = pixels(clip, 2)
    for names in (CLASSES[:3], CLASSES[3:]):
        assert torch.equal(predict(loaded, clip, x, names), predict(adapter, clip, x, names))
    assert all(tensor.abs().sum() > 0 for tensor in adapter.tensors().values())


@pytest.mark.parametrize(("towers", "moves"), [("image", True), ("text", False), ("both", True)])
def test_towers_that_do_not_learn_are_left_alone(clip, hues, towers, moves):
    spec = ClipLoraSpec(towers=towers, iterations_per_shot=2, batch_size=4)
    adapter = adapt(spec, clip, hues, shots=2, seed=1, progress=False)
    assert adapter.moves_images == moves
    assert {name.split(".")[0] for name in adapter.tensors()} == ({"image", "text"} if towers == "both" else {towers})
    plain = adapt({"method": "zero-shot"}, clip, hues, 2, 1)
    same = torch.equal(adapter.text_features(clip, CLASSES), plain.text_features(clip, CLASSES))
    assert same == (towers == "image")


def test_attention_that_cannot_be_changed_is_refused(monkeypatch):
    backbone = clip_backbone()
    backbone.vision_blocks[1].attn = torch.nn.Identity()
    with pytest.raises(ConceptBenchError, match=r"attention \(Identity\) of the image tower of backbone 'small-clip'"):
        new_lora(FAST, backbone, seed=0)
