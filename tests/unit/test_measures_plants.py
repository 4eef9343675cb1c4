"""Plants on a small CLIP: what each leaves alone, exactly, and how the validation counts."""

import numpy as np
import pandas as pd
import pytest
import torch
from remapping_tools import BLOCK, CLASSES, world
from torch.nn import functional as F

from conceptbench.dictionaries import Codes, Dictionary
from conceptbench.errors import ConceptBenchError
from conceptbench.measures.association import first_order
from conceptbench.measures.concepts import Side, outside
from conceptbench.measures.edits import Firings, removal
from conceptbench.measures.metrics import MainHook, collect
from conceptbench.measures.plant_validation import (
    ESTIMANDS,
    Harvest,
    Known,
    false_positives,
    harvest,
    repetitions,
    sample_within,
    validation_table,
)
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
        selected=select_on(codes[0], parts[0].targets, len(CLASSES), 0.2),
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


def test_recruiting_adds_atoms_that_never_fired(field) -> None:
    soil, population, _ = field
    grown = plant(field, "recruit")
    silent = soil.dictionary.atoms[soil.selected.frequency == 0]
    added = grown.added.numpy()[(grown.added != 0).any(dim=1).numpy()]
    cosine = added @ silent.T / np.linalg.norm(added, axis=1, keepdims=True)
    np.testing.assert_allclose(cosine.max(axis=1), 1, atol=1e-5)
    assert grown.change(population.tokens, population.targets, recruited=False) is population.tokens
    assert scored(field, "recruit").true()["recruited"].any()


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


def planted(level: dict[str, float], n: int = 40, classes: int = 6, seed: int = 0) -> Harvest:
    """A population whose images answer independently under every edit, so that intervals can be judged."""
    rng = np.random.default_rng(seed)
    draw = rng.random(n * classes)
    scores = {name: np.stack([draw < p, np.log(0.5) + 0.1 * draw]).astype(float) for name, p in level.items()}
    return Harvest("recruit", seed, scores, np.repeat(np.arange(classes), n))


LEVELS = {
    "zero_shot": 0.4,
    "baseline": 0.5,
    "baseline_as_coded": 0.5,
    "perceived": 0.5,
    "hybrid": 0.55,
    "adapted": 0.8,
    "existing": 0.55,
    "existing_as_coded": 0.7,
    "restored": 0.6,
    "restored_as_coded": 0.75,
    "unrecruited": 0.6,
}


def test_intervals_of_repetitions_cover_within_their_monte_carlo_error() -> None:
    found = planted(LEVELS, n=200)
    rows = pd.DataFrame(repetitions(found, 200, 40, np.random.default_rng(1), draws=200))
    mine = rows[(rows["outcome"] == "accuracy") & rows["part"].isin(["gain", "perception", "mapping"])]
    covered = ((mine["low"] <= mine["truth"]) & (mine["truth"] <= mine["high"])).groupby(mine["part"]).mean()
    assert (np.abs(covered - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 200) + 0.01).all(), covered


def test_the_table_counts_coverage_bias_and_claims() -> None:
    rows = pd.DataFrame(
        {
            "plant": "null",
            "seed": [0, 0, 1, 1],
            "repetition": [0, 1, 0, 1],
            "outcome": "accuracy",
            "part": "gain",
            "truth": 0.0,
            "estimate": [0.1, -0.1, 0.3, 0.1],
            "low": [-0.1, -0.2, 0.2, -0.1],
            "high": [0.3, 0.1, 0.4, np.nan],
        }
    )
    rows.loc[3, "low"] = np.nan
    claims = pd.DataFrame(
        {
            "plant": "null",
            "claim": "remapping",
            "seed": [0, 0, 1, 1],
            "repetition": [0, 1, 0, 1],
            "estimate": [0.1, 0.0, 0.0, 0.2],
            "low": [-0.1, -0.1, -0.1, 0.1],
            "high": [0.3, 0.1, 0.1, 0.3],
            "claimed": [False, False, False, True],
        }
    )
    table = validation_table(rows, claims, np.random.default_rng(0)).set_index(["part", "statistic"])["estimate"]
    assert table["gain", "coverage"] == pytest.approx(2 / 3)
    assert table["gain", "bias"] == pytest.approx(0.1)
    assert table["remapping", "false_positive_rate"] == 0.25
    assert table["all", "coverage"] == pytest.approx((2 + 3) / 7)


def four(part: str, truth: float, low: list[float], high: list[float]) -> pd.DataFrame:
    """Two repetitions of two seeds of the relabel plant; NaN bounds where every image agrees on 0."""
    head = {"plant": "relabel", "seed": [0, 0, 1, 1], "repetition": [0, 1, 0, 1], "outcome": "accuracy", "part": part}
    rows = pd.DataFrame(head | {"truth": truth, "low": low, "high": high})
    return rows.assign(estimate=((rows["low"] + rows["high"]) / 2).fillna(0.0))


def test_no_part_hides_in_the_joint_coverage_and_nothing_is_found_where_nothing_is() -> None:
    nan = np.nan
    rows = pd.concat(
        [
            four("gain", 0.3, [0.1] * 4, [0.5] * 4),
            four("perception", 0.0, [nan] * 4, [nan] * 4),
            four("mapping", 0.3, [0.1, 0.1, 0.1, 0.4], [0.5, 0.5, 0.5, 0.6]),
            four("beyond", 0.0, [0.1, -0.3, -0.1, nan], [0.2, -0.1, 0.1, nan]),
        ]
    )
    claims = pd.DataFrame(columns=["plant", "claim", "seed", "estimate", "low", "high", "claimed"])
    table = validation_table(rows, claims, np.random.default_rng(0))
    found = table.set_index(["part", "statistic"])
    assert found.loc[("all", "coverage"), "estimate"] == pytest.approx((4 + 3 + 1) / 11)
    worst = found.loc[("all", "worst_coverage")]
    assert worst["estimate"] == pytest.approx(1 / 3) and worst["note"] == "beyond" and worst["n"] == 3
    rates = table[table["statistic"] == "false_positive_rate"].set_index("part")["estimate"].to_dict()
    assert rates == {"perception": 0, "beyond": 0.5, "recruitment_by_beyond": 0.25}
    keys = collect({"plants": table}, MainHook("small", BLOCK))
    assert keys["plants.relabel.worst_coverage"] == pytest.approx(1 / 3)
    assert keys["plants.relabel.beyond.false_positive_rate"] == 0.5
    assert "plants.relabel.false_positive_rate" not in keys


def test_claims_of_the_null_plant_are_rare(field) -> None:
    soil, population, codes = field
    effects = first_order(soil.readout, population, soil.dictionary, codes)
    rows = pd.DataFrame(false_positives([scored(field, "null")], effects, 20, 10, 5, np.random.default_rng(0)))
    assert rows.groupby("claim")["claimed"].mean().max() <= 0.15
    assert set(rows["claim"]) == {"recruitment", "remapping"} and set(ESTIMANDS) >= {"beyond"}


def test_samples_are_drawn_within_classes() -> None:
    targets = np.array([0, 0, 1, 1, 1, 2])
    drawn = sample_within(targets, 4, np.random.default_rng(0))
    assert np.bincount(targets[drawn]).tolist() == [4, 4, 4]
