"""Few-shot training and scoring: schedule, steps, overfitting, storage, accuracy, and what is refused."""

import itertools
import math

import numpy as np
import pytest
import torch
from adaptation_tools import CLASSES, ColourDataset, clip_backbone, pixels, siglip_backbone
from safetensors.torch import load_file, save_file

from conceptbench.adaptation import (
    LinearProbeSpec,
    MapleSpec,
    TipAdapterSpec,
    ZeroShotSpec,
    adapt,
    evaluate,
    load_adapter,
    method_spec,
    predict,
)
from conceptbench.adaptation.engine import (
    augmented_batch,
    epoch_batches,
    few_shot_augmentation,
    seeded,
    steps_per_epoch,
)
from conceptbench.adaptation.linear_probe import GRID, search_c
from conceptbench.adaptation.maple import new_learner
from conceptbench.adaptation.prompts.adapter import class_tokens, prompt_loss
from conceptbench.adaptation.schedule import learning_rate
from conceptbench.adaptation.tasks import few_shot_task
from conceptbench.errors import ConceptBenchError

FAST = MapleSpec(depth=2, epochs=2, batch_size=3)


@pytest.fixture(scope="module")
def clip():
    return clip_backbone()


@pytest.fixture(scope="module")
def hues():
    return ColourDataset()


@pytest.fixture(scope="module")
def maple(clip, hues):
    return adapt(FAST, clip, hues, shots=4, seed=1, progress=False)


def test_learning_rates_per_epoch():  # T3
    assert [round(learning_rate(e, 5, 0.0035), 6) for e in range(1, 6)] == [1e-5, 0.0035, 0.003166, 0.002291, 0.001209]
    assert [learning_rate(e, 2, 0.0026) for e in (1, 2)] == [1e-5, 0.0026]


def test_steps_per_epoch():  # T6
    assert steps_per_epoch(80, 4) == 20
    assert steps_per_epoch(816, 4) == 204
    assert steps_per_epoch(11, 4) == 2
    assert steps_per_epoch(3, 4) == 1


def test_epoch_batches_are_whole_seeded_and_without_repeats():
    first, again = (list(epoch_batches(11, 4, torch.Generator().manual_seed(5))) for _ in range(2))
    assert first == again
    assert [len(batch) for batch in first] == [4, 4]
    assert len(set(itertools.chain(*first))) == 8
    assert [sorted(batch) for batch in epoch_batches(3, 4, torch.Generator())] == [[0, 1, 2]]


def test_task_keeps_only_the_base_half_drawn_over_all_classes(hues):
    from conceptbench.data import few_shot

    task = few_shot_task(hues, 4, 2, "base-to-novel")
    drawn = few_shot(hues.manifest, 4, 2)
    assert task.class_names == CLASSES[:3]
    assert task.train_rows.tolist() == [row for row in drawn["train"] if hues.labels([row])[0] < 3]
    assert task.val_rows.tolist() == [row for row in drawn["val"] if hues.labels([row])[0] < 3]
    assert np.bincount(task.train_targets).tolist() == [4, 4, 4]
    assert few_shot_task(hues, 4, 2, "all-classes").class_names == CLASSES


def test_augmented_pixels_are_normalised_crops_and_reproducible(clip, hues):
    task = few_shot_task(hues, 4, 1, "base-to-novel")
    with seeded(3):
        first, targets = augmented_batch(clip, task, [0, 5, 7])
    state = torch.get_rng_state()
    with seeded(3):
        again, _ = augmented_batch(clip, task, [0, 5, 7])
    assert torch.equal(torch.get_rng_state(), state)
    assert first.shape == (3, 3, 32, 32)
    assert torch.equal(first, again)
    assert targets.tolist() == task.train_targets[[0, 5, 7]].tolist()
    image = hues.pil(0)
    with seeded(4):
        crops = {few_shot_augmentation(32)(image).tobytes() for _ in range(5)}
    assert len(crops) == 5


def test_maple_trains_with_the_recipe_and_leaves_the_backbone_alone(hues):
    clip = clip_backbone()
    before = {name: value.clone() for name, value in clip.model.state_dict().items()}
    random_state = torch.get_rng_state()
    adapter = adapt(FAST, clip, hues, shots=4, seed=1, progress=False)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, before[name]) for name, value in clip.model.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in clip.model.parameters())
    training = adapter.card["training"]
    assert training["steps"] == 8
    assert training["n_train"] == 12
    assert training["learning_rates"] == [1e-5, 0.0035]
    start = new_learner(FAST, clip, seed=1)
    for trained, initial in zip(adapter.tensors().values(), start.state_dict().values(), strict=True):
        assert not torch.equal(trained, initial)


def test_the_seed_decides_everything(clip, hues, maple):
    again = adapt(FAST, clip, hues, shots=4, seed=1, progress=False)
    other = adapt(FAST, clip, hues, shots=4, seed=2, progress=False)
    assert all(torch.equal(maple.tensors()[name], value) for name, value in again.tensors().items())
    assert not torch.equal(maple.tensors()["context"], other.tensors()["context"])


def test_one_batch_is_overfitted(clip):
    learner = new_learner(MapleSpec(depth=3), clip, seed=0)
    tokens = class_tokens(MapleSpec(depth=3), clip, CLASSES)
    x, targets = pixels(clip, 5), torch.arange(5)
    optimizer = torch.optim.SGD(learner.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(150):
        loss = prompt_loss(learner, clip, tokens, x, targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 1.0
    assert losses[-1] < 0.15


@pytest.mark.parametrize("make", [clip_backbone, siglip_backbone])
def test_storage_is_exact_and_loads_on_novel_classes(make, hues, tmp_path):
    backbone = make()
    adapter = adapt(FAST, backbone, hues, shots=1, seed=1, progress=False)
    adapter.save(tmp_path)
    loaded = load_adapter(tmp_path, backbone)
    x = pixels(backbone, 2)
    assert loaded.card == adapter.card
    for names in (CLASSES[:3], CLASSES[3:], ("a class never seen",)):
        assert torch.equal(predict(loaded, backbone, x, names), predict(adapter, backbone, x, names))
    assert set(load_file(tmp_path / "adapter.safetensors")) == {
        *("context", "deep.0", "couplings.0.weight", "couplings.0.bias", "couplings.1.weight", "couplings.1.bias")
    }


def test_text_features_and_classify_are_the_parts_of_predict(clip, maple):
    x = pixels(clip, 3)
    with torch.no_grad(), maple.image_context(clip):
        features = clip.encode_image(x)
    texts = maple.text_features(clip, CLASSES[3:])
    assert torch.allclose(texts.norm(dim=1), torch.ones(2))
    assert maple.text_features(clip, CLASSES[3:]) is texts
    by_hand = clip.logit_scale * torch.nn.functional.normalize(features, dim=1) @ texts.T
    assert torch.equal(predict(maple, clip, x, CLASSES[3:]), by_hand)
    assert torch.equal(maple.classify(clip, features, CLASSES[3:]), by_hand)


def test_storage_refuses_other_backbones_and_other_depths(clip, maple, tmp_path):
    maple.save(tmp_path)
    with pytest.raises(ConceptBenchError, match="fitted to backbone 'small-clip'"):
        load_adapter(tmp_path, clip_backbone(name="other", seed=1))
    with pytest.raises(ConceptBenchError, match="fitted to backbone 'small-clip'"):
        maple.text_features(clip_backbone(name="other", seed=1), CLASSES)
    card = (tmp_path / "card.json").read_text()
    (tmp_path / "card.json").write_text(card.replace('"depth": 2', '"depth": 3'))
    with pytest.raises(ConceptBenchError, match=r"missing .*deep\.1"):
        load_adapter(tmp_path, clip)
    (tmp_path / "card.json").write_text(card)
    tensors = load_file(tmp_path / "adapter.safetensors")
    save_file(tensors | {"token_prefix": torch.zeros(3, 1, 32)}, tmp_path / "adapter.safetensors")
    with pytest.raises(ConceptBenchError, match="unexpected token_prefix"):
        load_adapter(tmp_path, clip)
    save_file(tensors | {"context": torch.zeros(3, 32)}, tmp_path / "adapter.safetensors")
    with pytest.raises(ConceptBenchError, match=r"context is \(3, 32\) instead of \(2, 32\)"):
        load_adapter(tmp_path, clip)
    (tmp_path / "adapter.safetensors").write_bytes(b"half a file")
    with pytest.raises(ConceptBenchError, match="missing or damaged"):
        load_adapter(tmp_path, clip)
    (tmp_path / "card.json").unlink()
    with pytest.raises(ConceptBenchError, match=r"card\.json does not exist"):
        load_adapter(tmp_path, clip)


def test_rendered_images_are_drawn_once_and_are_the_same(clip, hues):
    rendered = ColourDataset()
    rendered.manifest["path"] = ""
    task = few_shot_task(rendered, 2, 1, "all-classes")
    assert task.train_image(3).tobytes() == hues.pil(int(task.train_rows[3])).tobytes()
    adapter = adapt(ZeroShotSpec(), clip, hues, 2, 1)
    from_array, from_files = (evaluate(adapter, clip, data, progress=False) for data in (rendered, hues))
    assert from_array.equals(from_files)


def test_loss_that_is_not_finite_ends_the_training(hues):
    clip = clip_backbone()
    with pytest.raises(ConceptBenchError, match=r"maple.* on data set 'hues': the loss became nan in epoch \d"):
        adapt(MapleSpec(depth=2, lr=1e30, epochs=3), clip, hues, shots=4, seed=1, progress=False)


def test_predictions_are_scored_within_each_half(clip, hues, maple):
    frame = evaluate(maple, clip, hues, progress=False, batch_size=5)
    assert frame["half"].value_counts().to_dict() == {"base": 12, "novel": 8}
    assert set(frame.loc[frame["half"] == "base", "predicted"]) <= {0, 1, 2}
    assert set(frame.loc[frame["half"] == "novel", "predicted"]) <= {3, 4}
    assert (frame["correct"] == (frame["label"] == frame["predicted"])).all()
    assert frame["image"].tolist() == hues.rows("test").tolist()
    row = frame[frame["half"] == "novel"].iloc[3]
    logits = predict(maple, clip, clip.preprocess([hues.pil(row["image"])]), CLASSES[3:])
    expected = torch.log_softmax(logits, dim=-1)[0, row["label"] - 3].item()
    assert math.isclose(row["log_likelihood"], expected, rel_tol=1e-4)
    assert frame[["setting", "method", "seed"]].drop_duplicates().to_numpy().tolist() == [["base-to-novel", "maple", 1]]


def test_all_classes_setting(clip, hues):
    adapter = adapt({"method": "zero-shot"}, clip, hues, 4, 1, "all-classes")
    frame = evaluate(adapter, clip, hues, progress=False)
    assert frame["half"].unique().tolist() == ["all"]


def test_zero_shot_uses_the_template_and_stores_it(clip, hues, tmp_path):
    adapt(ZeroShotSpec(template="an aerial picture of {}."), clip, hues, 4, 1).save(tmp_path)
    restored = load_adapter(tmp_path, clip)
    assert restored.tensors() == {}
    expected = clip.embed_text(["an aerial picture of sea lake."])
    assert torch.allclose(restored.text_features(clip, ["sea_lake"]), expected, atol=1e-6)
    plain = adapt({"method": "zero-shot"}, clip, hues, 4, 1)
    assert torch.allclose(plain.text_features(clip, ["forest"]), clip.embed_text(["a photo of a forest."]), atol=1e-6)


def test_linear_probe_learns_stores_and_has_no_novel_accuracy(clip, hues, tmp_path):
    adapter = adapt(LinearProbeSpec(), clip, hues, shots=4, seed=1, progress=False)
    adapter.save(tmp_path)
    probe = load_adapter(tmp_path, clip)
    frame = evaluate(probe, clip, hues, progress=False)
    assert frame["half"].unique().tolist() == ["base"]
    assert frame["correct"].mean() > 0.9
    assert "'highway'" in probe.missing_note(CLASSES[3:])
    with pytest.raises(ConceptBenchError, match="no weights for classes it was not trained on, such as 'highway'"):
        predict(probe, clip, pixels(clip, 1), ["forest", "highway"])
    with pytest.raises(ConceptBenchError, match="no text side"):
        probe.text_features(clip, CLASSES[:3])
    x = pixels(clip, 4)
    assert torch.equal(
        predict(probe, clip, x, CLASSES[:3])[:, [2, 0]], predict(probe, clip, x, [CLASSES[2], CLASSES[0]])
    )


def test_linear_probe_works_without_text_and_with_two_classes():
    backbone = clip_backbone(name="image-only", has_text=False)
    hues = ColourDataset(classes=CLASSES[:4])
    probe = adapt(LinearProbeSpec(), backbone, hues, shots=4, seed=1, progress=False)
    assert probe.tensors()["weight"].shape == (2, 24)
    assert evaluate(probe, backbone, hues, progress=False)["correct"].mean() > 0.9


def test_search_of_c_finds_the_peak():
    c, score = search_c(lambda c: -abs(math.log10(c) - 2.7), 8)
    assert abs(math.log10(c) - 2.7) < 0.02
    assert score == -abs(math.log10(c) - 2.7)
    assert search_c(lambda c: 0.5, 0) == (GRID[0], 0.5)


@pytest.mark.parametrize("method", ["zero-shot", "maple"])
def test_methods_with_text_refuse_an_image_only_backbone(method, hues):
    backbone = clip_backbone(name="image-only", has_text=False)
    with pytest.raises(
        ConceptBenchError, match="'image-only' has no open_clip text tower, which this adaptation needs"
    ):
        adapt({"method": method}, backbone, hues, shots=1, seed=1, progress=False)


def test_more_shots_than_images(clip, hues):
    with pytest.raises(
        ConceptBenchError, match="Data set 'hues': Class 'annual crop' has 6 training images, fewer than 16 shots"
    ):
        adapt(FAST, clip, hues, shots=16, seed=1)


def test_bad_requests(clip, hues):
    with pytest.raises(ConceptBenchError, match="did you mean 'maple'"):
        method_spec({"method": "mapel"})
    with pytest.raises(ConceptBenchError, match="no option 'epoch'; did you mean 'epochs'"):
        method_spec({"method": "maple", "epoch": 3})
    with pytest.raises(ConceptBenchError, match="unknown adaptation setting 'novel'"):
        adapt(FAST, clip, hues, 1, 1, "novel")
    with pytest.raises(ConceptBenchError, match="no validation images"):
        adapt(LinearProbeSpec(), clip, ColourDataset(val=0), 1, 1, progress=False)


def lacking(split, label):
    """Images of five hues, of which one class has none in a split."""
    data = ColourDataset()
    gone = (data.manifest["split"] == split) & (data.manifest["label"] == label)
    data.manifest.loc[gone, "split"] = "left out"
    return data


def without(name, split):
    return (
        f"^Class '{name}' of data set 'hues' has no images in its {split} split; give it some or leave the class out.$"
    )


def test_a_trained_class_without_training_images_is_named(clip):
    with pytest.raises(ConceptBenchError, match=without("forest", "train")):
        adapt(FAST, clip, lacking("train", 1), 1, 1, progress=False)
    novel = lacking("train", 4)
    adapter = adapt(ZeroShotSpec(), clip, novel, 1, 1, progress=False)
    assert len(adapter.card["classes"]) == 3, "novel classes are not trained"
    with pytest.raises(ConceptBenchError, match=without("river", "train")):
        adapt(ZeroShotSpec(), clip, novel, 1, 1, "all-classes", progress=False)


@pytest.mark.parametrize("spec", [LinearProbeSpec(), TipAdapterSpec(views=1, beta_steps=1, alpha_steps=1)])
def test_a_class_without_validation_images_is_named_by_methods_that_search_on_them(clip, spec):
    with pytest.raises(ConceptBenchError, match=without("forest", "val")):
        adapt(spec, clip, lacking("val", 1), 1, 1, progress=False)


@pytest.mark.parametrize(("label", "name"), [(1, "forest"), (4, "river")])
def test_a_scored_class_without_test_images_is_named(clip, hues, label, name):
    zero_shot = adapt(ZeroShotSpec(), clip, hues, 1, 1)
    with pytest.raises(ConceptBenchError, match=without(name, "test")):
        evaluate(zero_shot, clip, lacking("test", label), progress=False)
    assert len(evaluate(zero_shot, clip, hues, progress=False)) == 20
