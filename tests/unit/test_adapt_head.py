"""Image-only backbones: VPT-deep and CLIP-LoRA with a linear head in the place of the text side."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from adaptation_tools import CLASSES, ColourDataset, clip_backbone, explicit_clip_image, pixels
from backbones_reduced import save
from safetensors.torch import load_file, save_file

from conceptbench.adaptation import ClipLoraSpec, VptSpec, adapt, evaluate, load_adapter, predict
from conceptbench.adaptation.head import HeadedAdapter, LinearHead
from conceptbench.adaptation.lora.adapter import new_lora
from conceptbench.adaptation.vpt import new_vpt
from conceptbench.backbones import Backbone, load_backbone
from conceptbench.errors import ConceptBenchError
from conceptbench.measures.readout import Readout

SPECS = {
    "vpt-deep": VptSpec(depth=2, n_ctx=2, epochs=8, batch_size=3, lr=0.01),
    "clip-lora": ClipLoraSpec(towers="image", iterations_per_shot=10, batch_size=6, lr=0.01),
}
ROOT = Path(__file__).parents[2]
TRAINED = CLASSES[:3]
BLOCK = 1


@pytest.fixture(scope="module")
def images() -> Backbone:
    return clip_backbone(name="image-only", has_text=False)


@pytest.fixture(scope="module")
def hues() -> ColourDataset:
    return ColourDataset()


@pytest.fixture(scope="module")
def adapters(images: Backbone, hues: ColourDataset) -> dict[str, HeadedAdapter]:
    found = {name: adapt(spec, images, hues, shots=4, seed=1, progress=False) for name, spec in SPECS.items()}
    assert all(isinstance(adapter, HeadedAdapter) for adapter in found.values())
    return found  # type: ignore[return-value]


def test_a_head_starts_at_equal_odds_and_does_not_see_the_length_of_features() -> None:
    head = LinearHead(3, 8)
    features = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    assert (head(features) == 0).all()
    with torch.no_grad():
        head.weight.copy_(torch.randn(3, 8))
        head.bias.copy_(torch.randn(3))
    by_hand = features / features.pow(2).mean(dim=-1, keepdim=True).sqrt() @ head.weight.T + head.bias
    torch.testing.assert_close(head(features), by_hand)
    torch.testing.assert_close(head(40 * features), head(features))


@pytest.mark.parametrize("method", SPECS)
def test_training_beats_the_start_on_its_images(
    images: Backbone, hues: ColourDataset, adapters: Any, method: str
) -> None:
    adapter = adapters[method]
    trained = evaluate(adapter, images, hues, split="train", progress=False)
    start = LinearHead(3, images.embed_dim)
    untrained = HeadedAdapter(adapter.spec, adapter.card, adapter.tower, start)
    before = evaluate(untrained, images, hues, split="train", progress=False)
    assert before["correct"].mean() == pytest.approx(1 / 3), "equal odds take the first class"
    assert trained["correct"].mean() > 0.9
    assert trained["log_likelihood"].mean() > before["log_likelihood"].mean() + 0.5
    losses = adapter.card["training"]["losses"]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("method", SPECS)
def test_the_image_tower_learns_with_the_head(images: Backbone, adapters: Any, method: str) -> None:
    adapter = adapters[method]
    x = pixels(images, 2)
    with torch.no_grad():
        plain = images.encode_image(x)
        with adapter.image_context(images):
            assert not torch.equal(images.encode_image(x), plain)
        assert torch.equal(images.encode_image(x), plain)
    learnt = adapter.tensors()
    untrained = {"vpt-deep": new_vpt, "clip-lora": new_lora}[method](SPECS[method], images, seed=1).state_dict()
    assert adapter.moves_images and set(learnt) == {*untrained, "head.weight", "head.bias"}
    assert not any(torch.equal(learnt[name], start) for name, start in untrained.items())
    assert learnt["head.weight"].abs().sum() > 0 and learnt["head.bias"].abs().sum() > 0
    assert adapter.card["training"]["n_parameters"] == sum(value.numel() for value in learnt.values())


@torch.no_grad()
def test_prompts_and_head_are_those_of_an_explicit_forward(images: Backbone, adapters: Any) -> None:
    learnt, x = adapters["vpt-deep"].tensors(), pixels(images, 3)
    features = explicit_clip_image(images.model, x, [learnt["image.0"], learnt["image.1"]])
    scaled = F.normalize(features, dim=-1) * features.shape[1] ** 0.5
    expected = scaled @ learnt["head.weight"].T + learnt["head.bias"]
    torch.testing.assert_close(predict(adapters["vpt-deep"], images, x, TRAINED), expected)


@pytest.mark.parametrize("method", SPECS)
def test_it_is_stored_exactly_and_loaded_strictly(images: Backbone, adapters: Any, method: str, tmp_path: Path) -> None:
    adapter, x = adapters[method], pixels(images, 3)
    adapter.save(tmp_path)
    loaded = load_adapter(tmp_path, images)
    assert loaded.spec == adapter.spec and loaded.card == adapter.card
    assert torch.equal(predict(loaded, images, x, TRAINED), predict(adapter, images, x, TRAINED))
    tensors = load_file(tmp_path / "adapter.safetensors")
    for changed, message in (
        ({name: value for name, value in tensors.items() if name != "head.bias"}, "missing head.bias"),
        (tensors | {"head.scale": torch.ones(1)}, "unexpected head.scale"),
        (tensors | {"head.weight": torch.zeros(2, 24)}, r"head.weight is \(2, 24\) instead of \(3, 24\)"),
        (tensors | {"more": torch.ones(1)}, "unexpected more"),
    ):
        save_file(changed, tmp_path / "adapter.safetensors")
        with pytest.raises(ConceptBenchError, match=message):
            load_adapter(tmp_path, images)


@pytest.mark.parametrize("method", SPECS)
def test_novel_classes_are_left_out(images: Backbone, hues: ColourDataset, adapters: Any, method: str) -> None:
    adapter = adapters[method]
    assert set(evaluate(adapter, images, hues, progress=False)["half"]) == {"base"}
    assert f"the linear head of {method} has no weights for classes" in adapter.missing_note(CLASSES)
    with pytest.raises(ConceptBenchError, match=f"'{method}' adapter cannot score .* such as 'highway'"):
        predict(adapter, images, pixels(images, 1), CLASSES[2:])
    with pytest.raises(ConceptBenchError, match=f"the linear head of {method} has no text side"):
        adapter.text_features(images, TRAINED)
    logits = predict(adapter, images, pixels(images, 2), TRAINED)
    assert torch.equal(predict(adapter, images, pixels(images, 2), [TRAINED[2], TRAINED[0]]), logits[:, [2, 0]])


@pytest.mark.parametrize("method", SPECS)
@torch.no_grad()
def test_an_edit_that_changes_nothing_gives_the_same_logits(images: Backbone, adapters: Any, method: str) -> None:
    adapter, x = adapters[method], pixels(images, 3)
    with adapter.image_context(images):
        own, prompts = images.split_prompts(images.lower(x, BLOCK))
    assert prompts.shape[1] == (2 if method == "vpt-deep" else 0)
    readout = Readout(images, adapter, BLOCK, TRAINED)
    assert torch.equal(readout.logits(own, prompts), predict(adapter, images, x, TRAINED))


def test_towers_without_texts_learn_alone(images: Backbone, hues: ColourDataset) -> None:
    with pytest.raises(ConceptBenchError, match=r"no open_clip text tower.*use linear-probe, vpt-deep or clip-lora"):
        adapt(ClipLoraSpec(), images, hues, 1, 1, progress=False)


@pytest.mark.parametrize("method", SPECS)
def test_trunks_of_timm_get_a_head_too(method: str, hues: ColourDataset, tmp_path: Path) -> None:
    backbone = load_backbone(save("registers", tmp_path / "registers"), "cpu", name="registers")
    backbone.has_text = False
    adapter = adapt(SPECS[method], backbone, hues, shots=4, seed=1, progress=False)
    assert evaluate(adapter, backbone, hues, split="train", progress=False)["correct"].mean() > 0.9


@pytest.mark.parametrize("method", SPECS)
def test_the_shipped_backbone_without_texts_gets_a_head(method: str, hues: ColourDataset, tmp_path: Path) -> None:
    backbone = load_backbone(ROOT / "src/conceptbench/backbones/shipped/image-tiny", "cpu", name="image-tiny")
    assert not backbone.has_text
    adapter = adapt(SPECS[method], backbone, hues, shots=4, seed=1, progress=False)
    adapter.save(tmp_path)
    scored = evaluate(load_adapter(tmp_path, backbone), backbone, hues, progress=False)
    assert scored.equals(evaluate(adapter, backbone, hues, progress=False))
    assert scored["correct"].mean() > 0.9
