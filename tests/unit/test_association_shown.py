"""Latents that a figure shows are chosen on one half of the images and measured on the other."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from remapping_tools import CLASSES, StandIn, adapter, world

from conceptbench.config import load_config, stage_spec
from conceptbench.config.remapping_stages import associated
from conceptbench.measures.association import Effects, exact_effects, first_order
from conceptbench.measures.association_shown import (
    FELL,
    ROSE,
    SHOWN,
    Halves,
    Pair,
    association_rows,
    centred,
    most_remapped,
    shown_estimate,
    split_halves,
    stronger_before,
)
from conceptbench.measures.readout import Readout

ROOT = Path(__file__).parents[2]


def noise(seed: int, images: int = 60, classes: int = 3, latents: int = 200) -> Effects:
    """A model whose effects are nothing but noise, and whose latents fire everywhere."""
    effect = np.random.default_rng(seed).normal(size=(images, classes, latents)).astype(np.float32)
    return Effects(np.arange(latents), np.ones((images, latents), dtype=np.float32), effect)


def test_halves_are_disjoint_and_alike_in_classes() -> None:
    targets = np.repeat([0, 1, 2, 3], [3, 3, 4, 2])
    halves = split_halves(targets, np.random.default_rng(0))
    assert sorted([*halves.chosen_on, *halves.shown_on]) == list(range(12))
    counts = [np.bincount(targets[at], minlength=4) for at in (halves.chosen_on, halves.shown_on)]
    assert np.abs(counts[0] - counts[1]).max() <= 1


def test_what_was_chosen_among_noise_does_not_rise_on_the_other_half() -> None:
    """Chosen and shown on the same images, the eight largest of 200 differences of noise would all be far above 0."""
    before, after = noise(0), noise(1)
    halves = Halves(np.arange(30), np.arange(30, 60))
    apart = {}
    for name, where in (("other", halves), ("same", Halves(np.arange(60), np.arange(60)))):
        rose = [row for _, row in association_rows(before, after, where) if row["change"] == ROSE]
        apart[name] = [row["adapted"] - row["zero_shot"] for row in rose]
    assert min(apart["same"]) > 0.2 and len(apart["other"]) == 3 * SHOWN
    assert abs(np.mean(apart["other"])) < 0.15


def test_rows_hold_the_values_of_the_half_that_is_shown() -> None:
    before, after = noise(0), noise(1)
    halves = Halves(np.arange(0, 60, 2), np.arange(1, 60, 2))
    for label, row in association_rows(before, after, halves):
        for column, effects in (("zero_shot", before), ("adapted", after)):
            mean = effects.effect[1::2, :, row["latent"]].mean(axis=0)
            assert row[column] == pytest.approx(mean[label] - mean.mean(), abs=1e-5)


def test_a_latent_that_did_not_rise_is_not_among_those_that_rose() -> None:
    before = Effects(np.arange(2), np.ones((4, 2), dtype=np.float32), np.zeros((4, 2, 2), dtype=np.float32))
    after = Effects(np.arange(2), before.fires, before.effect.copy())
    after.effect[:, 0, 0] = 1.0
    pair = Pair.of(before, after, np.arange(4))
    assert {column for column, kind in pair.chosen(0).items() if kind == ROSE} == {0}
    assert {column for column, kind in pair.chosen(1).items() if kind == FELL} == {0}
    halves = Halves(np.arange(2), np.arange(2, 4))
    assert stronger_before(before, after, halves, 0, [0]) == [False]
    assert stronger_before(after, before, halves, 0, [0]) == [True]


def test_the_class_is_the_one_that_moved_on_the_half_of_the_choice() -> None:
    common = np.random.default_rng(3).normal(size=(1, 3, 200))
    before = noise(0)
    before.effect[:] += common
    after = Effects(before.latents, before.fires, before.effect.copy())
    after.effect[:30, 2] = noise(5).effect[:30, 2]
    after.effect[30:, 0] = noise(6).effect[30:, 0]
    halves = Halves(np.arange(30), np.arange(30, 60))
    assert most_remapped(before, after, halves, 5, np.random.default_rng(0)) == 2


def test_exact_and_first_order_values_are_means_over_images_where_the_latent_fires() -> None:
    readout, activations, dictionary, codes = world(16)
    effects = first_order(readout, activations, dictionary, codes)
    latent = int(effects.latents[effects.fires.sum(axis=0).argmax()])
    stream = np.random.default_rng(0)
    rows, change = exact_effects(readout, activations, dictionary, codes, [latent], 99, stream)[latent]
    found = shown_estimate(centred(change, 1), 200, np.random.default_rng(0))
    assert found.n == len(rows) and found.low < found.estimate < found.high
    assert found.estimate == pytest.approx((change[:, 1] - change.mean(axis=1)).mean())
    nothing = shown_estimate(np.zeros(0), 200, np.random.default_rng(0))
    assert (nothing.estimate, nothing.n, nothing.note) == (0.0, 0, "fires on no image of this half")
    only = codes.select_images(rows[:0])
    empty = exact_effects(readout, activations, dictionary, only, [latent], 9, stream)[latent]
    assert empty[1].shape == (0, len(CLASSES)), "a latent that never fires changes nothing"


class PerImage(StandIn):
    """Class vectors that depend on the image, as CoCoOp's do; counts the texts that are made."""

    texts_made = 0

    def classify(self, backbone: Any, features: torch.Tensor, class_names: Any) -> torch.Tensor:
        image = torch.nn.functional.normalize(features, dim=-1)
        texts = self.text_features(backbone, class_names)[None] + 0.3 * image.roll(1, dims=-1)[:, None]
        self.texts_made += texts.shape[0] * texts.shape[1]
        return backbone.logit_scale * torch.einsum("ie,ice->ic", image, texts)


def test_gradients_go_through_class_vectors_that_depend_on_the_image_once_a_class() -> None:
    plain, activations, dictionary, codes = world(8)
    model = PerImage(adapter().texts)
    readout = Readout(plain.backbone, model, plain.block, CLASSES)
    effects = first_order(readout, activations, dictionary, codes)
    assert model.texts_made == 8 * len(CLASSES)
    latent = int(effects.latents[effects.fires.sum(axis=0).argmax()])
    at = int(np.searchsorted(effects.latents, latent))
    rows, change = exact_effects(readout, activations, dictionary, codes, [latent], 9, np.random.default_rng(0))[latent]
    first = effects.effect[rows][:, :, at]
    assert np.corrcoef(first.ravel(), change.ravel())[0, 1] > 0.9


def test_every_adaptation_has_an_association_and_the_figure_shows_maple(tmp_path: Path) -> None:
    def spec(**overlay: Any) -> Any:
        path = tmp_path / "overlay.yaml"
        path.write_text(yaml.safe_dump(overlay))
        return load_config(ROOT / "config.yaml", path)

    methods = {"coop": {"method": "coop"}, "vpt": {"method": "vpt-deep", "depth": 6}}
    study = spec(adaptations={"methods": methods}, measures={"concepts": {}})
    assert set(associated(study)) == {"linear-probe", "maple", "coop", "vpt"}
    assert stage_spec(study, "measure_association")["shown"] == "maple"
    named = spec(adaptations={"methods": methods}, measures={"concepts": {"methods": ["coop"]}})
    assert associated(named) == ("coop",) and stage_spec(named, "measure_association")["shown"] == "coop"
    assert associated(spec(measures={"concepts": None})) == ()
