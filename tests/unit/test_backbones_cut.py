"""Two halves of a forward: bit-equal to the whole, for towers with and without a class token, plain and adapted."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from backbones_reduced import MODELS, save
from torch import Tensor, nn

from conceptbench.backbones import Backbone, inference, load_backbone
from conceptbench.errors import ConceptBenchError

SHAPES = {"clip": (1, 48, 4), "siglip": (0, 64, 3), "registers": (3, 64, 3)}


@pytest.fixture(scope="module", params=list(MODELS))
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(save(request.param, tmp_path_factory.mktemp("backbones") / request.param))


@pytest.fixture
def pixels(backbone: Backbone) -> Tensor:
    return torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(1))


@contextmanager
def counted_blocks(backbone: Backbone) -> Iterator[list[int]]:
    calls: list[int] = []
    handles = [
        module.register_forward_hook(lambda *_, number=number: calls.append(number))
        for number, module in enumerate(backbone.vision_blocks)
    ]
    yield calls
    for handle in handles:
        handle.remove()


@contextmanager
def prompted(backbone: Backbone, n: int = 2, depth: int = 3) -> Iterator[list[Tensor]]:
    """Prompts at the end of the tokens, replaced before each of the first blocks, dropped before the final norm."""
    generator = torch.Generator().manual_seed(2)
    prompts = [torch.randn(n, backbone.width, generator=generator, requires_grad=True) for _ in range(depth)]

    def with_prompts(tokens: Tensor, number: int) -> Tensor:
        return torch.cat([tokens, prompts[number].expand(len(tokens), -1, -1)], dim=1)

    def replace(number: int):  # type: ignore[no-untyped-def]
        return lambda _module, arguments: (with_prompts(arguments[0][:, :-n], number), *arguments[1:])

    handles = [backbone.pre_norm.register_forward_pre_hook(lambda _m, a: (with_prompts(a[0], 0),))]
    handles += [backbone.vision_blocks[i].register_forward_pre_hook(replace(i)) for i in range(1, depth)]
    handles += [backbone.post_norm.register_forward_pre_hook(lambda _m, a: (a[0][:, :-n],))]
    yield prompts
    for handle in handles:
        handle.remove()


def test_facts_of_the_tower(backbone: Backbone) -> None:
    n_prefix, width, n_blocks = SHAPES[backbone.name]
    assert (backbone.n_prefix, backbone.width, backbone.n_blocks) == (n_prefix, width, n_blocks)
    assert backbone.grid == (4, 4) and backbone.n_tokens == n_prefix + 16
    assert backbone.image_size == 32 and backbone.dtype == torch.float32
    assert not any(parameter.requires_grad for parameter in backbone.model.parameters())
    assert isinstance(backbone.text.token_embedding, nn.Embedding)


def test_halves_have_the_bits_of_the_whole(backbone: Backbone, pixels: Tensor) -> None:
    for context in (inference, torch.enable_grad):
        with context():
            whole = backbone.encode_image(pixels)
            assert whole.shape == (3, backbone.embed_dim)
            for block in range(backbone.n_blocks):
                tokens = backbone.lower(pixels, block)
                assert tokens.shape == (3, backbone.n_tokens, backbone.width) and tokens.dtype == pixels.dtype
                features = backbone.upper(tokens, block)
                assert features.dtype == tokens.dtype and torch.equal(features, whole)


def test_halves_have_the_bits_of_the_whole_in_double(backbone: Backbone, pixels: Tensor) -> None:
    backbone.model.double()
    try:
        whole = backbone.encode_image(pixels.double())
        features = backbone.upper(backbone.lower(pixels.double(), 1), 1)
    finally:
        backbone.model.float()
    assert features.dtype == torch.float64 and torch.equal(features, whole)


def test_one_pass_for_all_blocks_agrees_with_open_clip(backbone: Backbone, pixels: Tensor) -> None:
    blocks = list(range(backbone.n_blocks))
    recorded = backbone.tokens(pixels, blocks[::-1])
    assert list(recorded) == blocks[::-1]
    reference = backbone.model.visual.forward_intermediates(
        pixels, indices=blocks, output_fmt="NLC", intermediates_only=True, output_extra_tokens=backbone.n_prefix > 0
    )
    for block in blocks:
        patches = reference["image_intermediates"][block]
        assert torch.equal(recorded[block][:, backbone.n_prefix :], patches)
        assert torch.equal(recorded[block], backbone.lower(pixels, block))


def test_only_the_needed_blocks_run(backbone: Backbone, pixels: Tensor) -> None:
    with counted_blocks(backbone) as calls:
        backbone.tokens(pixels, [0, 1])
        assert calls == [0, 1]
        calls.clear()
        tokens = backbone.lower(pixels, 0)
        calls.clear()
        backbone.upper(tokens, 0)
        assert calls == list(range(1, backbone.n_blocks))
        calls.clear()
        last = backbone.n_blocks - 1
        backbone.upper(backbone.tokens(pixels, [last])[last], last)
        assert calls == list(range(backbone.n_blocks))
        calls.clear()
        assert backbone.tokens(pixels, []) == {}
        assert calls == []


def test_halves_follow_installed_prompts(backbone: Backbone, pixels: Tensor) -> None:
    plain = backbone.encode_image(pixels)
    with prompted(backbone):
        whole = backbone.encode_image(pixels)
        assert not torch.equal(whole, plain)
        for block in range(backbone.n_blocks):
            tokens = backbone.lower(pixels, block)
            own, prompts = backbone.split_prompts(tokens)
            assert own.shape[1] == backbone.n_tokens and prompts.shape[1] == 2
            assert torch.equal(backbone.upper(torch.cat([own, prompts], dim=1), block), whole)
    assert torch.equal(backbone.encode_image(pixels), plain)
    assert backbone.split_prompts(backbone.lower(pixels, 0))[1].shape[1] == 0


def test_gradients_reach_prompts_and_edited_tokens(backbone: Backbone, pixels: Tensor) -> None:
    with prompted(backbone) as prompts:
        tokens = backbone.lower(pixels, 0)
        backbone.upper(tokens, 0).sum().backward()
    assert all(prompt.grad is not None and prompt.grad.abs().sum() > 0 for prompt in prompts)
    edited = backbone.lower(pixels, 1).detach().requires_grad_()
    backbone.upper(edited, 1).square().sum().backward()
    assert edited.grad is not None and edited.grad.shape == edited.shape
    with inference():
        assert not backbone.upper(edited, 1).requires_grad


def test_hooks_are_gone_after_a_failure(backbone: Backbone, pixels: Tensor) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("broken hook")

    handle = backbone.vision_blocks[1].register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match="broken hook"):
        backbone.tokens(pixels, [0, 2])
    handle.remove()
    assert all(not block._forward_hooks for block in backbone.vision_blocks)
    assert backbone.encode_image(pixels).shape == (3, backbone.embed_dim)


def test_wrong_input_is_named(backbone: Backbone, pixels: Tensor) -> None:
    with pytest.raises(ConceptBenchError, match=f"Block 9 is out of range: backbone {backbone.name} has blocks 0 to"):
        backbone.tokens(pixels, [0, 9])
    with pytest.raises(ConceptBenchError, match="Block -1 is out of range"):
        backbone.lower(pixels, -1)
    tokens = backbone.lower(pixels, 0)
    with pytest.raises(ConceptBenchError, match="out of range"):
        backbone.upper(tokens, backbone.n_blocks)
    with pytest.raises(ConceptBenchError, match="computes in float32 but the tokens are float16"):
        backbone.upper(tokens.half(), 0)
    with pytest.raises(ConceptBenchError, match="computes in float32 but the pixels are uint8"):
        backbone.lower(pixels.to(torch.uint8), 0)
    with pytest.raises(ConceptBenchError, match="takes tokens"):
        backbone.upper(tokens[:, 1:], 0)
    with pytest.raises(ConceptBenchError, match="takes pixels"):
        backbone.encode_image(pixels[..., :16])


def test_embeddings_are_normalised_and_batched(backbone: Backbone, pixels: Tensor) -> None:
    images = backbone.embed_images(pixels, batch_size=2)
    torch.testing.assert_close(images, nn.functional.normalize(backbone.encode_image(pixels), dim=-1))
    texts = ["a photo of a red circle.", "two stars", "a blue square"]
    embedded = backbone.embed_text(texts, batch_size=2)
    assert embedded.shape == (3, backbone.embed_dim)
    np.testing.assert_allclose(embedded.norm(dim=-1).numpy(), 1.0, rtol=1e-6)
    torch.testing.assert_close(embedded[2:], backbone.embed_text(texts[2:]))
    assert backbone.embed_text([]).shape == (0, backbone.embed_dim)
    assert backbone.tokenize(texts).shape == (3, 12)
    assert Path(str(backbone.merges)).name == "merges.txt.gz"
