"""Plants on a small CLIP: what each leaves alone, exactly, and how the validation counts."""

import numpy as np
import pytest
import torch
from remapping_tools import BLOCK, CLASSES, world
from torch.nn import functional as F

from conceptbench.dictionaries import Codes, Dictionary
from conceptbench.errors import ConceptBenchError
from conceptbench.measures.association import first_order
from conceptbench.measures.concepts import Side, outside
from conceptbench.measures.edits import Firings, removal
from conceptbench.measures.plant_harvest import Harvest, Known, harvest
from conceptbench.measures.plant_recruit import FAITHFUL, faithful, recruit
from conceptbench.measures.plants import PLANTS, Plant, Soil, grow
from conceptbench.measures.readout import Activations, Readout
from conceptbench.measures.selection import select_on

Q = 0.2


def narrow(dictionary: Dictionary) -> Dictionary:
    """The same dictionary with eight latents that never fire on these images."""
    bias = dictionary.encoder_bias.copy()
    bias[:8] = -2.0
    tensors = (dictionary.atoms, dictionary.encoder, bias, dictionary.decoder_bias)
    return Dictionary(*tensors, dictionary.normaliser, dictionary.rule)


@pytest.fixture(scope="module")
def field() -> tuple[Soil, Activations, Codes]:
    readout, activations, dictionary, _ = world(48)
    dictionary = narrow(dictionary)
    whole = (activations.rows, activations.targets, activations.tokens, activations.prompts)
    parts = [Activations(*(array[rows] for array in whole)) for rows in (np.arange(24), np.arange(24, 48))]
    codes = [dictionary.encode(part.numpy()) for part in parts]
    with torch.no_grad():
        features = F.normalize(readout.backbone.upper(parts[0].tokens, BLOCK), dim=-1)
    soil = Soil(
        readout=readout,
        activations=parts[0],
        codes=codes[0],
        dictionary=dictionary,
        selected=select_on(codes[0], parts[0].targets, CLASSES, 0.2),
        texts=readout.adapter.text_features(readout.backbone, CLASSES),
        features=features,
        effects=first_order(readout, parts[0], dictionary, codes[0]),
        probabilities=np.exp(readout.predict(parts[0])),
    )
    return soil, parts[1], codes[1]


def plant(field: tuple[Soil, Activations, Codes], name: str, seed: int = 0) -> Plant:
    return grow(name, field[0], np.random.default_rng(seed))  # type: ignore[arg-type]


def scored(field: tuple[Soil, Activations, Codes], name: str) -> Harvest:
    soil, population, codes = field
    known = Known.of(soil.readout, population, soil.dictionary, codes)
    return harvest(plant(field, name), 0, soil, known, Q)


def test_relabelling_has_a_perception_of_exactly_zero_and_recruits_nothing(field) -> None:
    found = scored(field, "relabel")
    assert (found.estimated()["perception"] == 0).all() and (found.true()["perception"] == 0).all()
    np.testing.assert_array_equal(found.estimated()["mapping"], found.estimated()["gain"])
    assert (found.true()["recruited"] == 0).all() and (found.true()["beyond"] == 0).all()
    assert (found.estimated()["beyond"] == 0).all() and found.estimated()["recruited"].any()
    assert plant(field, "relabel").change(field[1].tokens, field[1].targets) is field[1].tokens
    assert not torch.equal(plant(field, "relabel").texts, field[0].texts)


def test_amplifying_has_a_mapping_of_exactly_zero(field) -> None:
    found = scored(field, "amplify")
    assert (found.estimated()["mapping"] == 0).all()
    assert (found.true()["recruited"] == 0).all()
    assert torch.equal(plant(field, "amplify").texts, field[0].texts)


def test_amplify_scales_the_firing_latents_and_nothing_else(field) -> None:
    soil, population, codes = field
    grown = plant(field, "amplify")
    change = (grown.change(population.tokens, population.targets) - population.tokens).numpy()
    dense = codes.csr().toarray().reshape(codes.shape)
    expected = (dense * grown.gains[population.targets][:, None]) @ (
        soil.dictionary.atoms * soil.dictionary.normaliser.scale
    )
    np.testing.assert_allclose(change, expected, atol=1e-4)
    assert not change[~(grown.gains > 0).any(axis=1)[population.targets]].any()


@pytest.mark.parametrize("name", ["recruit", "recruit-any"])
def test_recruiting_adds_atoms_that_never_fired(field, name: str) -> None:
    soil, population, _ = field
    grown = plant(field, name)
    silent = soil.dictionary.atoms[soil.selected.frequency == 0]
    added = grown.added.numpy()[(grown.added != 0).any(dim=1).numpy()]
    cosine = added @ silent.T / np.linalg.norm(added, axis=1, keepdims=True)
    np.testing.assert_allclose(cosine.max(axis=1), 1, atol=1e-5)
    assert grown.change(population.tokens, population.targets, recruited=False) is population.tokens
    assert scored(field, name).true()["recruited"].any()


def test_any_silent_atom_may_be_recruited_without_a_threshold_and_the_tuned_ones_are_measured_best(field) -> None:
    soil = field[0]
    silent = np.flatnonzero(soil.selected.frequency == 0)
    length = float((soil.activations.tokens - soil.activations.tokens.mean(dim=(0, 1))).norm(dim=-1).mean())
    best = set(faithful(soil, silent, length, FAITHFUL).tolist())

    def drawn(name: str) -> set[int]:
        added = [plant(field, name, seed).added for seed in range(24)]
        direction = np.stack([rows[(rows != 0).any(dim=1)][0].numpy() for rows in added])
        return set((direction @ soil.dictionary.directions.T)[:, silent].argmax(axis=1).tolist())

    assert {int(silent[at]) for at in drawn("recruit")} <= best < set(silent.tolist())
    assert not {int(silent[at]) for at in drawn("recruit-any")} <= best
    moved = {name: plant(field, name).texts - soil.texts for name in ("recruit", "recruit-any")}
    centre = F.normalize(soil.features.mean(dim=0), dim=0)
    along = {name: float((change @ centre).min()) for name, change in moved.items()}
    assert along["recruit"] < 0 and abs(along["recruit-any"]) < 0.1 * abs(along["recruit"])


def test_a_refit_takes_out_what_was_recruited_and_the_codes_as_they_are_do_not(field) -> None:
    soil, population, codes = field
    grown, sets = plant(field, "recruit"), soil.selected.class_share >= Q
    added = Activations(
        population.rows, population.targets, grown.change(population.tokens, population.targets), population.prompts
    )
    side = Side(soil.readout, added, soil.dictionary.encode(added.numpy()))
    atoms = torch.from_numpy(soil.dictionary.directions)
    pushed = (added.tokens - population.tokens).norm(dim=(1, 2)) > 0

    def left(side: Side, firings: Firings) -> float:
        """Share of the recruited direction that an edit leaves on the images that have it."""
        gone = outside(sets, side.activations.targets, firings)
        rest = side.activations.tokens - removal(firings, gone, atoms)
        before = Side(soil.readout, population, codes)
        fitted = before.fitted(soil.dictionary)
        plain = population.tokens - removal(fitted, outside(sets, population.targets, fitted), atoms)
        direction = F.normalize(grown.added[torch.from_numpy(population.targets)], dim=1)[:, None]
        there = ((rest - plain) * direction).sum(dim=2)[pushed]
        return float(there.mean() / grown.added.norm(dim=1).max())

    coded, fitted = left(side, Firings.of(side.codes)), left(side, side.fitted(soil.dictionary))
    assert pushed.any() and 0 <= fitted < 0.75 * coded, (coded, fitted)


def test_the_hook_and_the_stored_activations_give_the_same_bits(field) -> None:
    soil, population, _ = field
    grown = plant(field, "mixed")
    pixels = torch.randn(48, 3, 16, 16, generator=torch.Generator().manual_seed(2))[24:]
    with torch.no_grad():
        expected = soil.readout.backbone.upper(grown.change(population.tokens, population.targets), BLOCK)
        with grown.told(soil.readout.backbone, population.targets):
            assert torch.equal(soil.readout.backbone.encode_image(pixels), expected)
            with pytest.raises(ConceptBenchError, match="told the classes of 24 images, but 3 went through"):
                soil.readout.backbone.encode_image(pixels[:3])
        assert not torch.equal(soil.readout.backbone.encode_image(pixels), expected)


def test_the_null_plant_is_the_zero_shot_model(field) -> None:
    found = scored(field, "null")
    for part in ("gain", "perception", "mapping", "beyond"):
        assert (found.estimated()[part] == 0).all(), part
    assert set(PLANTS) >= {found.plant}
    readout = Readout(field[0].readout.backbone, plant(field, "null"), BLOCK, CLASSES)
    np.testing.assert_array_equal(readout.predict(field[1]), field[0].readout.predict(field[1]))


def test_too_few_classes_and_too_few_latents_are_said(field) -> None:
    soil = field[0]
    from dataclasses import replace

    with pytest.raises(ConceptBenchError, match="at least three classes, not 2"):
        grow("mixed", replace(soil, texts=soil.texts[:2]), np.random.default_rng(0))
    everywhere = replace(soil.selected, frequency=np.ones_like(soil.selected.frequency))
    with pytest.raises(ConceptBenchError, match="Every latent of the dictionary fires"):
        grow("recruit", replace(soil, selected=everywhere), np.random.default_rng(0))
    with pytest.raises(ConceptBenchError, match=r"All but 8 latents .* so 9 cannot be recruited"):
        texts, added = soil.texts.clone(), torch.zeros(4, soil.dictionary.d)
        recruit(soil, np.arange(9), texts, added, np.random.default_rng(0), tuned=False)
