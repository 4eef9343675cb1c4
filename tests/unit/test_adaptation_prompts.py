"""Prompts inside a model: tokens, hooks against an explicit forward, restoration, gradients, truncated padding."""

import open_clip
import pytest
import torch
from adaptation_tools import (
    CLASSES,
    clip_backbone,
    explicit_clip_image,
    explicit_clip_text,
    pixels,
    siglip_backbone,
)
from torch.nn.functional import cross_entropy, normalize

from conceptbench.adaptation.maple import MapleLearner, new_learner
from conceptbench.adaptation.prompts.adapter import class_tokens, prompt_loss
from conceptbench.adaptation.prompts.hooks import image_prompts, prompted, text_offset, text_prompts
from conceptbench.adaptation.prompts.text import context_prompts, context_tokens, encode_tokens
from conceptbench.adaptation.specs import MapleSpec
from conceptbench.errors import ConceptBenchError

SPEC = MapleSpec(depth=3)


@pytest.fixture(scope="module")
def clip():
    return clip_backbone()


@pytest.fixture(scope="module")
def siglip():
    return siglip_backbone()


def explicit_siglip_image(model, x, prompts):
    trunk, n = model.visual.trunk, len(prompts[0])
    x = trunk._pos_embed(trunk.patch_embed(x))
    x = torch.cat([x, prompts[0].expand(len(x), -1, -1)], dim=1)
    for i, block in enumerate(trunk.blocks):
        if 0 < i < len(prompts):
            x = torch.cat([x[:, :-n], prompts[i].expand(len(x), -1, -1)], dim=1)
        x = block(x)
    return trunk.attn_pool(trunk.norm(x[:, :-n]))


def explicit_siglip_text(model, tokens, prompts):
    text, n = model.text, len(prompts[0])
    x = torch.cat([prompts[0].expand(len(tokens), -1, -1), text.token_embedding(tokens)[:, n:]], dim=1)
    x = x + text.positional_embedding
    for i, block in enumerate(text.transformer.resblocks):
        if 0 < i < len(prompts):
            x = torch.cat([prompts[i].expand(len(x), -1, -1), x[:, n:]], dim=1)
        x = block(x)
    return text.text_projection(text.ln_final(x)[:, -1])


def hook_counts(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_token_sequence_of_a_class(clip):  # T1
    ids = class_tokens(SPEC, clip, ["annual_crop land"])[0].tolist()
    name = open_clip.tokenizer.SimpleTokenizer().encode("annual crop land")
    assert ids == [49406, 320, 1125, 539, 320, *name, 269, 49407] + [0] * (77 - 7 - len(name))
    assert context_tokens(clip, SPEC.context, 2).tolist() == [320, 1125]
    learner = new_learner(SPEC, clip, seed=3)
    assert torch.equal(learner.context, clip.text.token_embedding.weight[[320, 1125]])
    assert context_prompts("a photo of a", 2, ["sea_lake"]) == ["a photo of a sea lake."]


def test_offset_of_the_first_context_token(clip, siglip):
    assert text_offset(clip) == 1
    assert text_offset(siglip) == 0


def test_context_shorter_than_the_prompt_is_refused(clip):
    with pytest.raises(ConceptBenchError, match="has 4 tokens"):
        context_tokens(clip, "a photo of a", 5)


def test_without_context_the_start_is_random_and_keeps_the_class_name(clip):
    spec = MapleSpec(n_ctx=6, depth=2, context="")
    learner = new_learner(spec, clip, seed=1)
    assert learner.context.shape == (6, 32)
    assert 0.01 < learner.context.std() < 0.03
    assert (
        class_tokens(spec, clip, ["forest"])[0, 7].item() == open_clip.tokenizer.SimpleTokenizer().encode("forest")[0]
    )


@pytest.mark.parametrize("depth", [1, 2, 3])
@torch.no_grad()
def test_hooks_equal_an_explicit_forward_of_clip(clip, depth):  # T5
    learner = new_learner(MapleSpec(depth=depth), clip, seed=depth)
    x, tokens = pixels(clip, 3), class_tokens(SPEC, clip, CLASSES)
    image, text = learner.image_prompts(), learner.text_prompts()
    with image_prompts(clip, image):
        features = clip.encode_image(x)
    with text_prompts(clip, text):
        full, truncated = clip.encode_text(tokens), encode_tokens(clip, tokens)
    short = tokens[:, : int(tokens.argmax(1).max()) + 1]
    assert torch.equal(features, explicit_clip_image(clip.model, x, image))
    assert torch.equal(full, explicit_clip_text(clip.model, tokens, text))
    assert torch.equal(truncated, explicit_clip_text(clip.model, short, text))


@torch.no_grad()
def test_hooks_equal_an_explicit_forward_of_siglip(siglip):  # T5
    learner = new_learner(SPEC, siglip, seed=0)
    x, tokens = pixels(siglip, 2), class_tokens(SPEC, siglip, CLASSES)
    image, text = learner.image_prompts(), learner.text_prompts()
    with prompted(siglip, image, text):
        features, texts = siglip.encode_image(x), encode_tokens(siglip, tokens)
    assert torch.equal(features, explicit_siglip_image(siglip.model, x, image))
    assert torch.equal(texts, explicit_siglip_text(siglip.model, tokens, text))


@pytest.mark.parametrize("make", [clip_backbone, siglip_backbone])
@torch.no_grad()
def test_removal_restores_every_bit(make):  # T5
    backbone = make()
    learner = new_learner(SPEC, backbone, seed=0)
    x, tokens = pixels(backbone, 2), class_tokens(SPEC, backbone, CLASSES)
    image, text, hooks = backbone.encode_image(x), backbone.encode_text(tokens), hook_counts(backbone.model)
    state = {name: value.clone() for name, value in backbone.model.state_dict().items()}
    with prompted(backbone, learner.image_prompts(), learner.text_prompts()):
        assert not torch.equal(backbone.encode_image(x), image)
        assert not torch.equal(backbone.encode_text(tokens), text)
        assert hook_counts(backbone.model) == hooks + 2 * SPEC.depth + 1
    with pytest.raises(RuntimeError, match="stop"), prompted(backbone, learner.image_prompts(), learner.text_prompts()):
        raise RuntimeError("stop")
    assert hook_counts(backbone.model) == hooks
    assert torch.equal(backbone.encode_image(x), image)
    assert torch.equal(backbone.encode_text(tokens), text)
    assert all(torch.equal(value, state[name]) for name, value in backbone.model.state_dict().items())


@torch.no_grad()
def test_one_side_leaves_the_other_unchanged(clip):
    learner = new_learner(SPEC, clip, seed=0)
    x, tokens = pixels(clip, 2), class_tokens(SPEC, clip, CLASSES)
    image, text = clip.encode_image(x), clip.encode_text(tokens)
    with text_prompts(clip, learner.text_prompts()):
        assert torch.equal(clip.encode_image(x), image)
    with image_prompts(clip, learner.image_prompts()):
        assert torch.equal(clip.encode_text(tokens), text)


@torch.no_grad()
def test_text_prompts_do_not_depend_on_the_class(clip):  # T8
    learner = new_learner(SPEC, clip, seed=0)
    outputs = []
    handles = [
        block.register_forward_hook(lambda *a: outputs.append(a[2])) for block in clip.text.transformer.resblocks
    ]
    with text_prompts(clip, learner.text_prompts()):
        clip.encode_text(class_tokens(SPEC, clip, CLASSES))
    for handle in handles:
        handle.remove()
    for output in outputs:
        assert torch.equal(output[:, :3], output[:1, :3].expand(len(CLASSES), -1, -1))
        assert not torch.equal(output[0, 5], output[1, 5])


@torch.no_grad()
def test_dropping_the_padding_of_a_causal_tower_is_exact(clip):
    tokens = clip.tokenize(["a photo of a forest.", "a photo of a very long name of a class, indeed."])
    assert torch.allclose(encode_tokens(clip, tokens), clip.encode_text(tokens), rtol=0, atol=2e-6)
    double = clip_backbone()
    double.model.double()
    difference = encode_tokens(double, tokens) - double.encode_text(tokens)
    assert difference.abs().max() < 1e-14


@torch.no_grad()
def test_bidirectional_text_is_not_truncated(siglip):
    tokens = siglip.tokenize(["a photo of a forest."])
    assert torch.equal(encode_tokens(siglip, tokens), siglip.encode_text(tokens))


def test_prompts_are_part_of_recorded_tokens_and_the_halves_agree(clip):  # T9
    learner = new_learner(SPEC, clip, seed=0)
    x = pixels(clip, 2)
    with torch.no_grad(), image_prompts(clip, learner.image_prompts()):
        whole = clip.encode_image(x)
        for block in range(clip.n_blocks):
            tokens = clip.lower(x, block)
            assert tokens.shape == (2, clip.n_tokens + 2, clip.width)
            assert torch.equal(clip.upper(tokens, block), whole)
        own = clip.split_prompts(clip.lower(x, 0))[0]
        assert torch.equal(clip.upper(own, 0), whole)
        late = clip.split_prompts(clip.lower(x, 2))[0]
        with pytest.raises(ConceptBenchError, match="keep the prompt tokens"):
            clip.upper(late, 2)


def test_prompts_cannot_be_installed_twice(clip):
    prompts = new_learner(SPEC, clip, seed=0).image_prompts()
    with (
        torch.no_grad(),
        image_prompts(clip, prompts),
        image_prompts(clip, prompts),
        pytest.raises(ConceptBenchError, match="one set of prompts"),
    ):
        clip.encode_image(pixels(clip, 1))


def test_gradients_reach_every_tensor_and_nothing_else(clip):  # T5
    siglip_like = MapleLearner(torch.zeros(2, 32), 9, 64)
    assert len(list(siglip_like.parameters())) == 27
    learner = new_learner(SPEC, clip, seed=0)
    tokens = class_tokens(SPEC, clip, CLASSES)
    prompt_loss(learner, clip, tokens, pixels(clip, 3), torch.tensor([0, 1, 2])).backward()
    assert len(list(learner.parameters())) == 9
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in learner.parameters())
    assert all(p.grad is None for p in clip.model.parameters())


def test_gradients_equal_those_of_an_explicit_forward(clip):  # T5
    tokens, x, targets = class_tokens(SPEC, clip, CLASSES), pixels(clip, 3), torch.tensor([0, 1, 2])
    tokens = tokens[:, : int(tokens.argmax(1).max()) + 1]
    hooked, explicit = new_learner(SPEC, clip, seed=0), new_learner(SPEC, clip, seed=0)
    prompt_loss(hooked, clip, tokens, x, targets).backward()
    texts = normalize(explicit_clip_text(clip.model, tokens, explicit.text_prompts()), dim=-1)
    features = normalize(explicit_clip_image(clip.model, x, explicit.image_prompts()), dim=-1)
    cross_entropy(clip.logit_scale * features @ texts.T, targets).backward()
    for one, other in zip(hooked.parameters(), explicit.parameters(), strict=True):
        assert torch.allclose(one.grad, other.grad, rtol=1e-5, atol=1e-7)


def test_27_tensors_receive_gradients_at_depth_9():  # T5
    config = {
        "embed_dim": 8,
        "vision_cfg": {"image_size": 16, "layers": 9, "width": 16, "head_width": 8, "patch_size": 8},
        "text_cfg": {"width": 8, "heads": 1, "layers": 9},
    }
    backbone = clip_backbone()
    backbone.__init__(
        open_clip.model.CLIP(**config),
        name="deep",
        digest="9" * 64,
        model_config=config,
        preprocess_config=backbone.preprocess_config | {"size": 16},
        make_tokenizer=lambda: open_clip.tokenizer.SimpleTokenizer(),
    )
    learner = new_learner(MapleSpec(), backbone, seed=0)
    tokens = class_tokens(MapleSpec(), backbone, CLASSES)
    prompt_loss(learner, backbone, tokens, pixels(backbone, 2), torch.tensor([0, 1])).backward()
    gradients = [p.grad for p in learner.parameters()]
    assert len(gradients) == 27
    assert all(g is not None and g.abs().sum() > 0 for g in gradients)


@pytest.mark.parametrize(
    ("name", "depth", "expected"),
    [("ViT-B-16-quickgelu", 9, 3_555_072), ("ViT-B-16-quickgelu", 3, 1_185_024), ("ViT-B-16-SigLIP", 9, 5_329_152)],
)
def test_parameter_counts(name, depth, expected):  # T2
    config = open_clip.get_model_config(name)
    custom = config.pop("custom_text", False)
    with torch.device("meta"):
        model = (open_clip.model.CustomTextCLIP if custom else open_clip.model.CLIP)(**config)
        text = model.text if custom else model
        width = model.visual.trunk.embed_dim if custom else model.visual.transformer.width
        learner = MapleLearner(text.token_embedding.weight[:2], depth, width)
    assert sum(p.numel() for p in learner.parameters()) == expected


def test_couplings_at_the_start():  # T7
    torch.manual_seed(0)
    first, second, *rest = MapleLearner(torch.zeros(2, 8), 5, 12).couplings
    assert not torch.equal(first.weight, second.weight)
    assert all(torch.equal(c.weight, second.weight) and torch.equal(c.bias, second.bias) for c in rest)
    assert len({id(c.weight) for c in [second, *rest]}) == 4


def test_too_deep_for_the_shallower_tower(clip):
    with pytest.raises(ConceptBenchError, match="text tower of backbone 'small-clip' has 3; lower"):
        new_learner(MapleSpec(depth=4), clip, seed=0)
    prompts = [torch.zeros(2, 64)] * 5
    with pytest.raises(ConceptBenchError, match="image tower"), image_prompts(clip, prompts):
        pass


def test_no_text_tower():
    backbone = clip_backbone(name="image-only", has_text=False)
    with pytest.raises(ConceptBenchError, match="'image-only' has no open_clip text tower"):
        new_learner(SPEC, backbone, seed=0)
    prompts = [torch.zeros(2, 64), torch.zeros(2, 64)]
    with torch.no_grad(), image_prompts(backbone, prompts):
        assert normalize(backbone.encode_image(pixels(backbone, 1))).isfinite().all()
