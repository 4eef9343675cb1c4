"""Pretraining: pure batches, exact labels and losses, resumption, and an ordinary CLIP at the end."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip.model import CLIP
from pretrain_tools import PHASES, tiny, vocabulary
from safetensors.torch import load_file
from torch import nn

from conceptbench.backbones import load_backbone, pretrain
from conceptbench.backbones.pretrain import Trainee, first_losses, normalise, train_backbone
from conceptbench.backbones.pretrain_batches import (
    IMAGE_FACTORS,
    PATCH_FACTORS,
    locate,
    n_steps,
    patch_labels,
    presence_labels,
    training_batch,
)
from conceptbench.backbones.pretrain_losses import (
    AttributeHeads,
    contrastive_loss,
    image_tokens,
    text_features,
    view_loss,
)
from conceptbench.backbones.pretrain_probe import zero_shot_probe
from conceptbench.backbones.pretrain_views import random_view
from conceptbench.backbones.recipes import RECIPES, model_config
from conceptbench.backbones.tokenizer import load_tokenizer
from conceptbench.data.captions import captions
from conceptbench.data.scene_pixels import coverage, render
from conceptbench.data.scenes import sample_scenes
from conceptbench.errors import ConceptBenchError
from conceptbench.tables import read_json


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory):
    return vocabulary(tmp_path_factory.mktemp("vocabulary"))


def untrained(recipe, entries: int, seed: int = 0) -> CLIP:
    config = model_config(recipe, entries)
    torch.manual_seed(seed)
    return CLIP(config["embed_dim"], config["vision_cfg"], config["text_cfg"])


# --- batches ---------------------------------------------------------------------------------------------------------


def test_a_batch_is_a_pure_function_of_its_step(words) -> None:
    recipe = tiny()
    first = training_batch(recipe, 4, words[1])
    training_batch(recipe, 5, words[1])
    again = training_batch(recipe, 4, words[1])
    assert np.array_equal(first.images, again.images) and torch.equal(first.tokens, again.tokens)
    assert np.array_equal(first.patch_labels, again.patch_labels)
    assert np.array_equal(first.presence, again.presence, equal_nan=True)
    images = [training_batch(recipe, step, words[1]).images for step in range(n_steps(recipe))]
    assert len({image.tobytes() for batch in images for image in batch}) == recipe.images
    other = training_batch(replace(recipe, seed=1), 4, words[1])
    assert not np.array_equal(first.images, other.images)


def test_phases_follow_each_other() -> None:
    recipe = tiny()
    assert recipe.images == 96 and n_steps(recipe) == 6
    assert [locate(recipe, step) for step in (0, 2, 3, 5)] == [(PHASES[i], i) for i in (0, 0, 1, 1)]
    with pytest.raises(ValueError, match="beyond the 96 pictures"):
        locate(recipe, 6)


def test_a_batch_has_its_pairs_and_web_pictures(words) -> None:
    batch = training_batch(tiny(), 3, words[1])
    assert batch.images.shape == (16, 64, 64, 3) and batch.tokens.shape == (16, 48)
    web = np.isnan(batch.presence).any(axis=1)
    assert web.tolist() == [False] * 12 + [True] * 4
    assert (batch.patch_labels[web] == -1).all()
    twins, originals = batch.presence[10:12], batch.presence[:2]
    assert ((twins != originals).sum(axis=1) <= 2).all()
    assert not np.array_equal(batch.images[10:12], batch.images[:2])


def test_labels_against_a_literal_reference() -> None:
    scenes = sample_scenes(0, "labels", np.arange(30))
    shares = coverage(scenes, 8)
    labels, presence = patch_labels(scenes), presence_labels(scenes)
    for i in range(30):
        for patch in range(64):
            owner = int(shares[i, :, patch].argmax())
            expected = scenes.objects[i, owner, :4] if shares[i, owner, patch] >= 0.35 else [-1] * 4
            assert labels[i, patch].tolist() == list(expected)
        found = iter(presence[i])
        for column, values in enumerate(PATCH_FACTORS):
            for value in range(len(values)):
                assert next(found) == float(value in scenes.objects[i, :, column])
        for value in range(len(IMAGE_FACTORS[-1])):
            assert next(found) == float(value == scenes.backgrounds[i])
        assert next(found, None) is None


# --- losses ----------------------------------------------------------------------------------------------------------


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def cross_entropy(logits: list[float], target: int) -> float:
    return math.log(sum(math.exp(x) for x in logits)) - logits[target]


def test_contrastive_loss_against_a_literal_reference() -> None:
    torch.manual_seed(0)
    images, texts = torch.randn(5, 7), torch.randn(5, 7)
    table = [[3.0 * cosine(a, b) for b in texts.numpy()] for a in images.numpy()]
    rows = [cross_entropy(table[i], i) for i in range(5)]
    columns = [cross_entropy([row[i] for row in table], i) for i in range(5)]
    found = contrastive_loss(images, texts, torch.tensor(math.log(3.0)))
    assert found.item() == pytest.approx((np.mean(rows) + np.mean(columns)) / 2, abs=1e-5)


def test_view_loss_against_a_literal_reference() -> None:
    torch.manual_seed(0)
    z = torch.randn(8, 6).numpy()
    losses = []
    for i in range(8):
        others = [j for j in range(8) if j != i]
        losses.append(cross_entropy([cosine(z[i], z[j]) / 0.2 for j in others], others.index((i + 4) % 8)))
    found = view_loss(torch.from_numpy(z[:4]), torch.from_numpy(z[4:]))
    assert found.item() == pytest.approx(np.mean(losses), abs=1e-4)


def test_attribute_loss_against_a_literal_reference() -> None:
    torch.manual_seed(0)
    heads, tokens = AttributeHeads(5), torch.randn(3, 5, 5)
    labels = torch.full((3, 4, 4), -1)
    labels[0, 1], labels[2, 3] = torch.tensor([1, 7, 3, 0]), torch.tensor([4, 0, 2, 1])
    presence = torch.bernoulli(torch.full((3, heads.image.out_features), 0.3))
    presence[1] = float("nan")
    patch = []
    for i, p in ((0, 1), (2, 3)):
        logits = heads.patch(tokens[i, 1 + p]).tolist()
        for column, values in enumerate(PATCH_FACTORS):
            part, logits = logits[: len(values)], logits[len(values) :]
            patch.append(cross_entropy(part, int(labels[i, p, column])))
    binary = []
    for i in (0, 2):
        for logit, there in zip(heads.image(tokens[i, 0]).tolist(), presence[i].tolist(), strict=True):
            share = 1 / (1 + math.exp(-logit))
            binary.append(-math.log(share if there else 1 - share))
    found = heads(tokens, labels, presence)
    assert found.item() == pytest.approx(np.mean(patch) + 5 * np.mean(binary), abs=1e-4)


def test_forward_passes_are_those_of_open_clip(words) -> None:
    recipe = tiny()
    model = untrained(recipe, words[0]).eval()
    scenes = sample_scenes(0, "forward", np.arange(6))
    tokens, pixels = words[1](captions(scenes)), normalise(render(scenes))
    with torch.no_grad():
        assert torch.allclose(text_features(model, tokens), model.encode_text(tokens), atol=1e-6)
        pooled = image_tokens(model, pixels)[:, 0] @ model.visual.proj
        assert torch.allclose(pooled, model.encode_image(pixels), atol=1e-6)


def test_views_are_reproducible_crops() -> None:
    pixels = torch.rand(4, 3, 16, 16)
    first, again, other = (random_view(pixels, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2))
    assert first.shape == pixels.shape and torch.equal(first, again) and not torch.equal(first, other)
    flat = random_view(torch.full((4, 3, 16, 16), 0.5), torch.Generator().manual_seed(1))
    assert torch.allclose(flat, flat[:, :, :1, :1].expand_as(flat), atol=1e-6)


# --- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["clip", "image"])
def test_training_resumes_where_it_was_killed(kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain, "_CHECKPOINT_EVERY", 2)
    recipe = tiny(kind)
    straight = train_backbone(recipe, tmp_path / "a", work=tmp_path / "wa", steps=4, progress=False)

    def killed(recipe, step, tokenize):
        if step == 3:
            raise KeyboardInterrupt
        return training_batch(recipe, step, tokenize)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pretrain, "training_batch", killed)
        train_backbone(recipe, tmp_path / "b", work=tmp_path / "wb", steps=4, progress=False)
    assert not (tmp_path / "b").exists()
    torch.manual_seed(99)
    resumed = train_backbone(recipe, tmp_path / "b", work=tmp_path / "wb", steps=4, progress=False)
    assert not (tmp_path / "wb").exists()
    assert resumed["log"] == straight["log"] and [row["step"] for row in straight["log"]] == [2, 4]
    names = ("open_clip_model.safetensors", "open_clip_config.json", "merges.txt.gz")
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in names)


def test_what_is_saved_is_an_ordinary_clip_without_heads(tmp_path: Path) -> None:
    facts = {"origin": "test"}
    card = train_backbone(tiny(), tmp_path / "out", work=tmp_path / "w", steps=1, facts=facts, progress=False)
    saved = load_file(tmp_path / "out" / "open_clip_model.safetensors")
    entries = vocabulary(tmp_path)[0]
    assert saved.keys() == untrained(tiny(), entries).state_dict().keys()
    assert {tensor.dtype for tensor in saved.values()} == {torch.float16}
    assert card["origin"] == "test" and read_json(tmp_path / "out" / "card.json")["recipe"]["width"] == 32
    backbone = load_backbone(tmp_path / "out")
    assert backbone.has_text and backbone.n_blocks == 2 and backbone.grid == (8, 8)
    images = render(sample_scenes(0, "pixels", np.arange(5)))
    assert torch.equal(backbone.preprocess(images), normalise(images))
    texts = captions(sample_scenes(0, "pixels", np.arange(5)))
    assert torch.equal(backbone.tokenize(texts), load_tokenizer(tmp_path / "out" / "merges.txt.gz", 48)(texts))


def test_a_recipe_without_pictures_gives_random_weights(tmp_path: Path) -> None:
    for name in ("a", "b"):
        card = train_backbone(tiny("random"), tmp_path / name, work=tmp_path / "w", progress=False)
        assert card["log"] == [] and card["text"] is False
    first, second = (load_file(tmp_path / name / "open_clip_model.safetensors") for name in ("a", "b"))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not load_backbone(tmp_path / "a").has_text


def test_a_loss_that_is_not_finite_ends_in_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain, "_clip_loss", lambda *_: torch.tensor(float("nan"), requires_grad=True))
    with pytest.raises(ConceptBenchError, match=r"'clip' became nan at step 0; lower learning_rate"):
        train_backbone(tiny(), tmp_path / "out", work=tmp_path / "w", progress=False)
    assert not (tmp_path / "out").exists() and not list((tmp_path / "w").glob("checkpoint*"))


def test_a_checkpoint_of_another_recipe_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pretrain, "save_backbone_folder", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        train_backbone(tiny(), tmp_path / "out", work=tmp_path / "w", steps=1, progress=False)
    with pytest.raises(ConceptBenchError, match="belongs to another recipe; remove the folder"):
        train_backbone(tiny(seed=1), tmp_path / "out", work=tmp_path / "w", steps=1, progress=False)


def test_first_losses_do_not_depend_on_what_ran_before() -> None:
    torch.manual_seed(5)
    losses = first_losses(tiny(), 2)
    torch.rand(3)
    assert losses == first_losses(tiny(), 2) and len(losses) == 2
    assert first_losses(tiny("random")) == []


def test_the_learning_rate_warms_up_and_falls_to_a_hundredth() -> None:
    recipe = replace(RECIPES["clip"], schedule_images=0)
    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)

    def rate(step: int) -> float:
        pretrain._set_learning_rate(optimiser, recipe, step)
        return optimiser.param_groups[0]["lr"] / recipe.learning_rate

    assert rate(0) == pytest.approx(1 / recipe.warmup_steps)
    assert rate(recipe.warmup_steps) > 0.95
    assert rate(n_steps(recipe) - 1) == pytest.approx(0.01, abs=1e-3)


def test_the_text_tower_is_small_where_no_text_is_learnt(words) -> None:
    sizes = {kind: sum(p.numel() for p in untrained(tiny(kind), words[0]).parameters()) for kind in ("clip", "image")}
    assert sizes["image"] < sizes["clip"]
    assert model_config(RECIPES["clip"], 9)["text_cfg"]["width"] == RECIPES["clip"].text_width


def test_the_probe_counts_hits_and_leaves_the_model_in_training(words) -> None:
    model = untrained(tiny(), words[0]).train()
    figures = zero_shot_probe(n_single=32, n_gallery=16)(model, words[1])
    assert list(figures) == ["shape", "colour", "fill", "background", "recall_at_1"]
    assert all(0.0 <= share <= 1.0 for share in figures.values()) and model.training
    assert figures == zero_shot_probe(n_single=32, n_gallery=16)(model, words[1])


def test_attribute_heads_are_part_of_the_trainee_only(words) -> None:
    trainee = Trainee(tiny(), words[0])
    names = {name.split(".")[0] for name in trainee.state_dict()}
    assert names == {"clip", "attributes", "projector"}
