"""What all methods share: image features computed once, who moves images, storage, refusals, finished folders."""

import sys
from subprocess import run

import numpy as np
import pytest
import torch
from adaptation_tools import CLASSES, ColourDataset, clip_backbone, pixels, siglip_backbone

from conceptbench.adaptation import (
    MapleSpec,
    PlainFeatures,
    adapt,
    evaluate,
    load_adapter,
    method_spec,
    move_adapters,
    moves_images,
)
from conceptbench.adaptation.attention import SelfAttention, is_stacked, whole_products
from conceptbench.adaptation.prompts.hooks import prompted
from conceptbench.adaptation.schedule import cosine_rate
from conceptbench.errors import ConceptBenchError

TINY = {
    "zero-shot": {},
    "linear-probe": {"max_iter": 50, "search_steps": 1},
    "tip-adapter": {"views": 1, "beta_steps": 4, "alpha_steps": 2},
    "tip-adapter-f": {"views": 1, "beta_steps": 4, "alpha_steps": 2, "epochs": 1},
    "coop": {"epochs": 1},
    "cocoop": {"epochs": 1},
    "vpt-deep": {"epochs": 1, "depth": 2, "n_ctx": 2},
    "ivlp": {"epochs": 1, "text_depth": 2, "image_depth": 2},
    "maple": {"epochs": 1, "depth": 2},
    "promptsrc": {"epochs": 1, "text_depth": 2, "image_depth": 2, "templates": ["a {}.", "the {}."]},
    "clip-lora": {"iterations_per_shot": 1, "batch_size": 2},
}
MOVING = {"vpt-deep", "ivlp", "maple", "promptsrc", "clip-lora"}


@pytest.fixture(scope="module")
def clip():
    return clip_backbone()


@pytest.fixture(scope="module")
def hues():
    return ColourDataset()


class Counted(ColourDataset):
    """Images that are counted when they are read."""

    def __post_init__(self):
        super().__post_init__()
        self.read = []

    def pil(self, row):
        self.read.append(int(row))
        return super().pil(row)


def test_which_methods_move_images():
    assert {method for method in TINY if moves_images({"method": method})} == MOVING
    assert not moves_images({"method": "clip-lora", "towers": "text"})


def test_which_methods_move_images_is_known_without_torch():
    code = (
        "import sys; from conceptbench.adaptation import moves_images; "
        "assert moves_images({'method': 'maple'}); assert 'torch' not in sys.modules"
    )
    assert run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("method", TINY)
@torch.no_grad()
def test_moving_methods_are_those_whose_images_move(clip, hues, method):
    adapter = adapt({"method": method, **TINY[method]}, clip, hues, 2, 1, progress=False)
    x = pixels(clip, 2)
    plain = clip.lower(x, 2)
    with adapter.image_context(clip):
        moved = clip.split_prompts(clip.lower(x, 2))[0]
    assert adapter.moves_images == (method in MOVING)
    assert torch.equal(moved, plain) != (method in MOVING)


@pytest.mark.parametrize("make", [clip_backbone, siglip_backbone])
@pytest.mark.parametrize("method", TINY)
def test_every_method_is_stored_exactly_and_scores_what_it_can(make, method, hues, tmp_path):
    backbone = make()
    adapter = adapt({"method": method, **TINY[method]}, backbone, hues, 2, 1, progress=False)
    adapter.save(tmp_path)
    loaded = load_adapter(tmp_path, backbone)
    assert loaded.spec == adapter.spec
    assert loaded.card == adapter.card
    frame = evaluate(loaded, backbone, hues, progress=False)
    assert frame.equals(evaluate(adapter, backbone, hues, progress=False))
    assert set(frame["half"]) == ({"base"} if method == "linear-probe" else {"base", "novel"})
    assert frame["correct"].dtype == bool


@pytest.mark.parametrize("method", sorted(set(TINY) - {"linear-probe", "vpt-deep"}))
def test_every_method_with_text_refuses_an_image_only_backbone(method, hues):
    backbone = clip_backbone(name="image-only", has_text=False)
    with pytest.raises(ConceptBenchError, match="'image-only' has no open_clip text tower, which this adaptation"):
        adapt({"method": method, **TINY[method]}, backbone, hues, 1, 1, progress=False)


@pytest.mark.parametrize("method", ["zero-shot", "linear-probe", "tip-adapter", "coop", "cocoop"])
def test_plain_features_are_computed_once_for_all_seeds(clip, method):
    data = Counted()
    plain = PlainFeatures(clip, data, progress=False)
    for seed in (1, 2, 3):
        adapter = adapt({"method": method, **TINY[method]}, clip, data, 2, seed, plain=plain, progress=False)
        shared = evaluate(adapter, clip, data, plain=plain, progress=False)
        test = [row for row in data.read if data.manifest["split"].iloc[row] == "test"]
        assert len(test) == len(set(test))
    alone = evaluate(adapter, clip, ColourDataset(), progress=False)
    assert np.allclose(shared["log_likelihood"], alone["log_likelihood"], atol=1e-4)
    assert (shared["predicted"] == alone["predicted"]).all()


def test_plain_features_keep_the_order_asked_for(clip, hues):
    plain = PlainFeatures(clip, hues, progress=False)
    plain(np.array([9, 2]))
    features = plain(np.array([5, 2, 9, 5]))
    with torch.no_grad():
        expected = clip.encode_image(clip.preprocess([hues.pil(row) for row in (5, 2, 9, 5)]))
    assert torch.allclose(features, expected, atol=1e-5)
    assert plain(np.array([], dtype=np.int64)).shape == (0, 24)


def test_adapters_of_other_classes_are_refused(clip, hues):
    adapter = adapt({"method": "maple", **TINY["maple"]}, clip, hues, 1, 1, progress=False)
    other = ColourDataset(name="others", classes=tuple(reversed(CLASSES)))
    with pytest.raises(
        ConceptBenchError, match=r"trained on 3 classes .*'hues', not on the 3 .* of 'others'; adapt to"
    ):
        evaluate(adapter, clip, other, progress=False)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"method": "vpt-deep", "n_ctx": 0}, "at least 1"),
        ({"method": "vpt-deep", "template": "a flower"}, "no {} for the class name"),
        ({"method": "promptsrc", "templates": ["a flower"]}, "no {} for the class name"),
        ({"method": "promptsrc", "epoch_deviation": 0}, "epoch_deviation > 0"),
        ({"method": "tip-adapter", "beta_max": 0.1}, "grids start at 0.1"),
        ({"method": "tip-adapter", "views": 0}, "views"),
        ({"method": "tip-adapter-f", "lr": 0}, "lr > 0"),
        ({"method": "clip-lora", "rank": 0}, "rank >= 1"),
        ({"method": "clip-lora", "projections": ["o"]}, "of q, k and v"),
        ({"method": "clip-lora", "towers": "vision"}, "both, image or text"),
        ({"method": "coop", "epochs": 0}, "epochs >= 1"),
        ({"method": "coop", "warmup_lr": -1}, "warmup_lr >= 0"),
    ],
)
def test_specifications_that_cannot_be(values, message):
    with pytest.raises(ConceptBenchError, match=message):
        method_spec(values)


def test_cosine_of_the_steps():
    rates = [cosine_rate(step, 4, 1.0, 0.2) for step in range(5)]
    assert rates == pytest.approx([1.0, 0.2 + 0.4 * (1 + 0.5**0.5), 0.6, 0.2 + 0.4 * (1 - 0.5**0.5), 0.2])


def test_finished_adapters_replace_those_of_an_earlier_run(clip, hues, tmp_path):
    adapter = adapt(MapleSpec(depth=1, epochs=1), clip, hues, 1, 1, progress=False)
    work, place = tmp_path / "work", tmp_path / "place"
    for seed in (0, 1, 7):
        adapter.save(place / f"seed{seed}")
    (place / "predictions.parquet").write_text("kept")
    (place / "seed0" / "stray").write_text("old")
    for seed in (0, 1):
        adapter.save(work / f"seed{seed}")
    move_adapters(work, place, ["seed0", "seed1"])
    assert sorted(path.name for path in place.iterdir()) == ["predictions.parquet", "seed0", "seed1"]
    assert not (place / "seed0" / "stray").exists()
    assert not work.exists()
    assert load_adapter(place / "seed1", clip).card == adapter.card


def test_adapters_that_are_not_finished_are_not_moved(clip, hues, tmp_path):
    adapter = adapt(MapleSpec(depth=1, epochs=1), clip, hues, 1, 1, progress=False)
    adapter.save(tmp_path / "work" / "seed0")
    with pytest.raises(ConceptBenchError, match="Cannot move adapters from"):
        move_adapters(tmp_path / "work", tmp_path / "place", ["seed0", "seed1"])


@pytest.mark.parametrize("make", [clip_backbone, siglip_backbone])
def test_whole_products_give_the_same_features_and_gradients(make):
    backbone = make()
    blocks = [*backbone.vision_blocks, *backbone.text.transformer.resblocks]
    prompt = torch.nn.Parameter(torch.randn(2, backbone.width))
    context = torch.nn.Parameter(torch.randn(2, backbone.text.ln_final.weight.shape[0]))
    x, tokens = pixels(backbone, 3), backbone.tokenize([f"a photo of a {name}." for name in CLASSES])

    def outcome():
        with prompted(backbone, [prompt, prompt], [context, context]):
            product = backbone.encode_image(x) @ backbone.encode_text(tokens).T
        return product.detach(), *torch.autograd.grad(product.sum(), [prompt, context])

    plain = outcome()
    modules = list(backbone.model.modules())
    with whole_products(blocks):
        whole = outcome()
        assert any(isinstance(module, SelfAttention) for module in backbone.model.modules())
    for a, b in zip(plain, whole, strict=True):
        assert (a - b).abs().max() < 1e-5 * a.abs().max()
    assert all(a is b for a, b in zip(modules, backbone.model.modules(), strict=True))


def test_attention_that_drops_or_has_separate_weights_is_left_to_torch():
    assert is_stacked(torch.nn.MultiheadAttention(8, 2, batch_first=True))
    assert not is_stacked(torch.nn.MultiheadAttention(8, 2))
    assert not is_stacked(torch.nn.MultiheadAttention(8, 2, batch_first=True, dropout=0.1))
    assert not is_stacked(torch.nn.MultiheadAttention(8, 2, batch_first=True, kdim=4))
    assert not is_stacked(torch.nn.MultiheadAttention(8, 2, batch_first=True, add_zero_attn=True))
    assert not is_stacked(torch.nn.Identity())
