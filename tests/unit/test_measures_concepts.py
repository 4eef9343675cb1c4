"""Existing and recruited concepts and associations on a small CLIP, against independent references."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from remapping_tools import CLASSES, adapter, world

from conceptbench.measures.association import (
    correlation,
    exact_effects,
    first_order,
    remapping,
    shared_latents,
)
from conceptbench.measures.concepts import (
    Comparison,
    Side,
    averaged_prompts,
    controls,
    measure_pair,
    part_rows,
    part_scores,
    score,
    sufficiency,
)
from conceptbench.measures.decomposition import NO_GAIN
from conceptbench.measures.readout import Activations, Readout
from conceptbench.measures.selection import select_on

READOUT, ACTIVATIONS, DICTIONARY, CODES = world(32)
SELECTED = select_on(CODES, ACTIVATIONS.targets, CLASSES, 0.2)
DENSE = CODES.csr().toarray().reshape(CODES.shape)


def moved(scale: float = 0.3) -> Activations:
    noise = torch.randn(ACTIVATIONS.tokens.shape, generator=torch.Generator().manual_seed(5))
    return Activations(ACTIVATIONS.rows, ACTIVATIONS.targets, ACTIVATIONS.tokens + scale * noise, ACTIVATIONS.prompts)


def comparison() -> Comparison:
    after = moved()
    other = Readout(READOUT.backbone, adapter(seed=9), READOUT.block, CLASSES)
    side = Side(other, after, DICTIONARY.encode(after.numpy()))
    return Comparison(Side(READOUT, ACTIVATIONS, CODES), side, DICTIONARY, SELECTED, averaged_prompts(after))


def least_squares(side: Side) -> np.ndarray:
    """Codes [image, token, latent] whose values explain each token best on the latents that fire at it."""
    code = side.codes.csr().toarray().astype(np.float64)
    left = (side.activations.numpy() - DICTIONARY.reconstruct(side.activations.numpy())).reshape(len(code), -1)
    for row, error in zip(code, left, strict=True):
        fires = np.flatnonzero(row)
        row[fires] += np.linalg.lstsq(DICTIONARY.directions[fires].T, error, rcond=None)[0]
    return code.reshape(side.codes.shape)


def by_hand(side: Side, keep: np.ndarray, code: np.ndarray | None = None) -> np.ndarray:
    """Scores of the tokens without the latents that `keep` [image, latent] leaves out; by least squares or `code`."""
    code = least_squares(side) if code is None else code
    gone = code * ~keep[:, None]
    tokens = side.activations.numpy() - gone @ (DICTIONARY.atoms * DICTIONARY.normaliser.scale)
    found = side.readout.log_probabilities(torch.from_numpy(tokens.astype(np.float32)), side.activations.prompts)
    return score(found, side.activations.targets)


def test_latents_outside_the_class_are_removed_from_both_models() -> None:
    pair, q = comparison(), 0.7
    sets = np.stack([(DENSE[ACTIVATIONS.targets == c] > 0).any(axis=1).mean(axis=0) >= q for c in range(4)])
    found = measure_pair(pair, [q])
    hybrid = Side(pair.adapted.readout, ACTIVATIONS, CODES)
    predicted = pair.adapted.plain().argmax(axis=1), hybrid.plain().argmax(axis=1)
    expected = {
        "own": (sets[ACTIVATIONS.targets], sets[ACTIVATIONS.targets]),
        "predicted": (sets[predicted[0]], sets[predicted[1]]),
        "any": (np.tile(sets.any(axis=0), (32, 1)),) * 2,
    }
    for which, (after, before) in expected.items():
        np.testing.assert_allclose(found[which, q]["existing"], by_hand(pair.adapted, after), atol=1e-3)
        np.testing.assert_allclose(found[which, q]["baseline"], by_hand(hybrid, before), atol=1e-3)
        np.testing.assert_array_equal(found[which, q]["hybrid"], score(hybrid.plain(), ACTIVATIONS.targets))
    assert not np.array_equal(found["own", q]["existing"], found["own", q]["adapted"])


def test_latents_outside_the_class_are_put_back_to_their_zero_shot_values() -> None:
    pair = comparison()
    found = measure_pair(pair, [0.7])["own", 0.7]["restored"]
    outer = ~pair.members(0.7)[ACTIVATIONS.targets][:, None]
    change = (least_squares(pair.adapted) - least_squares(pair.zero_shot)) * outer
    tokens = (pair.adapted.activations.numpy() - change @ DICTIONARY.directions).astype(np.float32)
    expected = pair.adapted.readout.log_probabilities(torch.from_numpy(tokens), ACTIVATIONS.prompts)
    np.testing.assert_allclose(found, score(expected, ACTIVATIONS.targets), atol=1e-3)


def test_the_converse_moves_latents_outside_the_class_to_their_adapted_values() -> None:
    pair = comparison()
    outer = ~pair.members(0.7)[ACTIVATIONS.targets][:, None]
    change = (least_squares(pair.adapted) - least_squares(pair.zero_shot)) * outer
    tokens = (ACTIVATIONS.numpy() + change @ DICTIONARY.directions).astype(np.float32)
    expected = pair.hybrid.readout.log_probabilities(torch.from_numpy(tokens), pair.hybrid.activations.prompts)
    found = sufficiency(pair, 0.7)["with_recruited"]
    np.testing.assert_allclose(found, score(expected, ACTIVATIONS.targets), atol=1e-3)
    assert not np.array_equal(found, score(pair.hybrid.plain(), ACTIVATIONS.targets))


def test_sets_that_hold_every_firing_latent_remove_nothing() -> None:
    everything = replace(SELECTED, class_share=np.ones_like(SELECTED.class_share))
    pair = replace(comparison(), selected=everything)
    found = measure_pair(pair, [0.5])["own", 0.5]
    np.testing.assert_array_equal(found["existing"], found["adapted"])
    np.testing.assert_array_equal(found["baseline"], found["hybrid"])
    np.testing.assert_array_equal(found["restored"], found["adapted"])
    np.testing.assert_array_equal(sufficiency(pair, 0.5)["with_recruited"], found["hybrid"])


def test_nothing_is_recruited_beyond_where_only_the_readout_changed() -> None:
    side = Side(Readout(READOUT.backbone, adapter(seed=9), READOUT.block, CLASSES), ACTIVATIONS, CODES)
    found = measure_pair(replace(comparison(), adapted=side), [0.5, 0.7])
    for key, scores in found.items():
        parts = part_scores(scores)
        assert (parts["beyond"] == 0).all(), key
        assert parts["gain"].any() and parts["recruited"].any(), key


def test_nothing_is_sufficient_where_only_the_readout_changed() -> None:
    """Latents outside the sets fire on both sides alike: moving them moves nothing, nor does its matched control."""
    side = Side(Readout(READOUT.backbone, adapter(seed=9), READOUT.block, CLASSES), ACTIVATIONS, CODES)
    pair = replace(comparison(), adapted=side)
    plain = score(pair.hybrid.plain(), ACTIVATIONS.targets)
    np.testing.assert_array_equal(sufficiency(pair, 0.7)["with_recruited"], plain)
    matched = controls(pair, 0.7, np.random.default_rng(0))["matched"]
    np.testing.assert_array_equal(matched["with_recruited"], plain)


@given(hnp.arrays(np.float64, (6, 2, 6), elements=st.floats(-1, 1)))
def test_parts_add_up_to_the_gain(values: np.ndarray) -> None:
    names = ("zero_shot", "adapted", "existing", "hybrid", "baseline", "restored")
    parts = part_scores(dict(zip(names, values, strict=True)))
    np.testing.assert_allclose(parts["existing"] + parts["recruited"], parts["gain"], atol=1e-12)


def scores(levels: dict[str, float], n: int = 200) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0).permutation(n) / n
    return {name: np.stack([draw < level - 1e-9, draw - level]) for name, level in levels.items()}


def test_known_levels_give_the_known_shares() -> None:
    levels = {"zero_shot": 0.4, "adapted": 0.8, "existing": 0.7, "hybrid": 0.6, "baseline": 0.55, "restored": 0.75}
    rows = part_rows({"0": scores(levels), "1": scores(levels)}, np.arange(200) % 4, np.random.default_rng(0), 200)
    found = {(row["outcome"], row["part"], row["seed"]): row for row in rows}
    assert found["accuracy", "existing_share", "all"]["estimate"] == pytest.approx(0.75)
    assert found["accuracy", "recruited_share", "0"]["estimate"] == pytest.approx(0.25)
    assert found["accuracy", "beyond_share", "all"]["estimate"] == pytest.approx(0.125)
    row = found["accuracy", "recruited_share", "all"]
    assert row["low"] < 0.25 < row["high"]


def test_without_a_gain_there_are_no_shares_but_a_note() -> None:
    levels = {"zero_shot": 0.4, "adapted": 0.4, "existing": 0.3, "hybrid": 0.4, "baseline": 0.3, "restored": 0.4}
    rows = part_rows({"0": scores(levels)}, np.arange(200) % 4, np.random.default_rng(0), 200)
    shares = [row for row in rows if row["part"].endswith("_share")]
    assert shares and all(np.isnan(row["estimate"]) and row["note"] == NO_GAIN for row in shares)


def test_controls_remove_as_many_latents_of_the_class() -> None:
    pair = comparison()
    found = controls(pair, 0.7, np.random.default_rng(0))
    assert set(found) == {"matched", "permuted", "as_coded"}
    edits = {"baseline", "existing", "restored"}
    assert [set(found[name]) for name in ("permuted", "as_coded")] == [edits, edits]
    assert set(found["matched"]) == edits | {"with_recruited"}
    assert not np.array_equal(found["matched"]["with_recruited"], sufficiency(pair, 0.7)["with_recruited"])
    assert not np.array_equal(found["matched"]["existing"], measure_pair(pair, [0.7])["own", 0.7]["existing"])
    sets = pair.members(0.7)[ACTIVATIONS.targets]
    coded = pair.adapted.codes.csr().toarray().reshape(CODES.shape)
    np.testing.assert_allclose(found["as_coded"]["existing"], by_hand(pair.adapted, sets, coded), atol=1e-3)
    hybrid = Side(pair.adapted.readout, ACTIVATIONS, CODES)
    np.testing.assert_allclose(found["as_coded"]["baseline"], by_hand(hybrid, sets, DENSE), atol=1e-3)


def test_first_order_effects_are_the_derivative_of_exact_removal() -> None:
    effects = first_order(READOUT, ACTIVATIONS, DICTIONARY, CODES)
    epsilon = 1e-3
    for latent in effects.latents[:3]:
        part = (DENSE[..., latent, None] * DICTIONARY.directions[latent]).astype(np.float32)
        with torch.no_grad():
            plain = READOUT.logits(ACTIVATIONS.tokens.double().float(), ACTIVATIONS.prompts)
            less = READOUT.logits(ACTIVATIONS.tokens - epsilon * torch.from_numpy(part), ACTIVATIONS.prompts)
        slope = ((plain - less) / epsilon).numpy()
        column = np.searchsorted(effects.latents, latent)
        np.testing.assert_allclose(effects.effect[:, :, column], slope, atol=0.05 * np.abs(slope).max() + 0.02)


def test_exact_effects_are_those_of_a_single_edit() -> None:
    latent = int(np.argmax((DENSE > 0).any(axis=1).sum(axis=0)))
    chosen = [latent]
    rows, change = exact_effects(READOUT, ACTIVATIONS, DICTIONARY, CODES, chosen, 5, np.random.default_rng(0))[latent]
    assert len(rows) == 5 and (DENSE[rows, :, latent].max(axis=1) > 0).all()
    less = ACTIVATIONS.numpy()[rows] - DENSE[rows][..., latent, None] * DICTIONARY.directions[latent]
    with torch.no_grad():
        plain = READOUT.logits(ACTIVATIONS.tokens[rows], ACTIVATIONS.prompts[rows])
        edited = READOUT.logits(torch.from_numpy(less.astype(np.float32)), ACTIVATIONS.prompts[rows])
    np.testing.assert_allclose(change, (plain - edited).numpy(), atol=1e-3)


def test_association_is_the_mean_over_images_where_the_latent_fires() -> None:
    effects = first_order(READOUT, ACTIVATIONS, DICTIONARY, CODES)
    whole = effects.association(np.full((1, 32), 1 / 32))[0]
    for column in range(0, len(effects.latents), 7):
        fires = effects.fires[:, column] > 0
        np.testing.assert_allclose(whole[:, column], effects.effect[fires][:, :, column].mean(axis=0), rtol=1e-3)


def test_nothing_is_remapped_between_a_model_and_itself_but_a_new_text_side_is() -> None:
    readout, activations, dictionary, codes = world(80)
    effects = first_order(readout, activations, dictionary, codes)
    other = Readout(readout.backbone, adapter(seed=9), readout.block, CLASSES)
    relabelled = first_order(other, activations, dictionary, codes)
    rng = np.random.default_rng(0)
    _, same = remapping(effects, effects, 10, 60, rng)
    _, changed = remapping(effects, relabelled, 10, 60, rng)
    assert abs(same.estimate) < 1e-12 and same.low <= 0 <= same.high
    assert changed.estimate > 0.1 and changed.low > 0
    assert len(shared_latents(effects, relabelled)) > 10


def test_correlation_agrees_with_numpy_and_ignores_gaps() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 3, 40))
    x[0, :5] = np.nan
    expected = [np.corrcoef(a[np.isfinite(a)], b[np.isfinite(a)])[0, 1] for a, b in zip(x, y, strict=True)]
    np.testing.assert_allclose(correlation(x, y), expected)
    assert np.isnan(correlation(np.array([1.0, 2.0]), np.array([1.0, 3.0])))
