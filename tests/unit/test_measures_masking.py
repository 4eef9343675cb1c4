"""Rankings, matched controls and masking curves, against independent references on small worlds."""

import numpy as np
import pytest
import torch
from remapping_tools import CLASSES, LATENTS, world
from scipy.stats import ttest_1samp

from conceptbench.errors import ConceptBenchError
from conceptbench.measures.masking import (
    BALANCE,
    CONTROL_OF,
    OUTCOMES,
    Curves,
    balance,
    contrasts,
    curve_table,
    image_ranks,
    k_grid,
    masking_curves,
    pca_curves,
)
from conceptbench.measures.matched import Active, active_latents, control_overlap, matched_ranks, matched_sets
from conceptbench.measures.selection import class_ranks, dataset_ranks, select_on

READOUT, ACTIVATIONS, DICTIONARY, CODES = world(24)
SELECTED = select_on(CODES, ACTIVATIONS.targets, CLASSES, 0.2)
ACTIVE = active_latents(CODES, DICTIONARY, SELECTED.frequency)
DENSE = CODES.csr().toarray().reshape(CODES.shape)
KS = k_grid((1, 5, 20), LATENTS)


def ranks(dense: str = "kept") -> dict[str, np.ndarray]:
    predicted = READOUT.predict(ACTIVATIONS).argmax(axis=1)
    rng = np.random.default_rng(0)
    return image_ranks(SELECTED, dense, ACTIVATIONS.targets, predicted, ACTIVE, rng)  # type: ignore[arg-type]


def test_aggregates_are_the_papers() -> None:
    counts = (DENSE > 0.2).sum(axis=1)
    for label in range(len(CLASSES)):
        mine = ACTIVATIONS.targets == label
        np.testing.assert_array_equal(SELECTED.class_count[label], counts[mine].sum(axis=0))
        np.testing.assert_allclose(SELECTED.class_share[label], (DENSE[mine] > 0).any(axis=1).mean(axis=0))
    np.testing.assert_allclose(SELECTED.frequency, (DENSE > 0).any(axis=1).mean(axis=0))
    np.testing.assert_array_equal(SELECTED.dense, (DENSE > 0).mean(axis=(0, 1)) > 0.1)


def test_rankings_fall_with_the_class_value_and_put_filtered_dense_latents_last() -> None:
    for dense in ("kept", "filtered"):
        for value, rank in zip(SELECTED.class_count, class_ranks(SELECTED, dense), strict=True):  # type: ignore[arg-type]
            assert sorted(rank) == list(range(LATENTS))
            in_order = np.argsort(rank)
            last = SELECTED.dense[in_order] if dense == "filtered" else np.zeros(LATENTS, bool)
            assert (np.diff(last.astype(int)) >= 0).all()
            for group in (True, False):
                assert (np.diff(value[in_order][last == group]) <= 0).all()
    assert SELECTED.dense.any() and not SELECTED.dense.all()
    assert SELECTED.class_count.sum(axis=0)[np.argmin(dataset_ranks(SELECTED, "kept"))] == max(
        SELECTED.class_count.sum(axis=0)
    )


def test_a_class_without_images_is_named() -> None:
    with pytest.raises(ConceptBenchError, match="Class 'moth orchid' has no images on split A"):
        select_on(CODES, ACTIVATIONS.targets, (*CLASSES, "moth orchid"), 0.2)


def test_the_matched_control_has_as_many_active_latents_at_every_k() -> None:
    own = class_ranks(SELECTED, "kept")[ACTIVATIONS.targets]
    control = matched_ranks(ACTIVE, own, np.random.default_rng(1))
    fires = (DENSE > 0).any(axis=1)
    for image in range(len(own)):
        on = fires[image]
        assert sorted(own[image][on]) == sorted(control[image][on])
        assert (control[image][~on] == LATENTS).all()
        for k in range(1, LATENTS):
            top, other = on & (own[image] < k), on & (control[image] < k)
            if top.sum() * 2 <= on.sum():
                first = np.flatnonzero(other & ~(on & (control[image] < k - 1)))
                assert not (top[first]).any()


def crowd(images: int = 30, each: int = 120) -> Active:
    """As many active latents on every image, spread like logarithms of frequency and mass with unit deviation."""
    rng = np.random.default_rng(3)
    latent = np.concatenate([np.sort(rng.permutation(4 * each)[:each]) for _ in range(images)])
    place = rng.normal(size=(images * each, 2))
    return Active(np.arange(images + 1) * each, latent, np.exp(place[:, 1]), place)


def test_the_matched_control_is_near_in_frequency_and_in_mass() -> None:
    """Each stand-in lies within a fraction of a deviation of its latent, and the top k have no less on average."""
    active = crowd()
    n, rng = len(active.starts) - 1, np.random.default_rng(4)
    own = rng.permuted(np.tile(np.arange(480), (n, 1)), axis=1)
    control = matched_ranks(active, own, rng)
    for held in (10, 30, 60):
        apart, gap = [], []
        for image in range(n):
            mine = active.image == image
            place, ranked, other = (
                active.place[mine],
                own[image, active.latent[mine]],
                control[image, active.latent[mine]],
            )
            top = np.sort(ranked)[:held]
            one, stand_in = (place[[int(np.flatnonzero(of == rank)[0]) for rank in top]] for of in (ranked, other))
            apart.append(np.abs(one - stand_in))
            gap.append((one - stand_in).mean(axis=0))
        assert (np.median(np.concatenate(apart), axis=0) < 0.25).all(), held
        assert (np.abs(np.mean(gap, axis=0)) < 0.05).all(), held


def test_how_far_a_control_is_other_latents_than_its_ranking() -> None:
    """Two images with four and two active latents, by hand."""
    active = Active(np.array([0, 4, 6]), np.array([0, 1, 2, 3, 0, 1]), np.ones(6), np.zeros((6, 2)))
    own = np.array([[0, 1, 2, 3], [0, 1, 2, 3]])
    control = np.array([[2, 0, 3, 1], [1, 0, 4, 4]])
    found = control_overlap(active, own, control, np.array([0, 1, 2, 4]))
    np.testing.assert_allclose(found["disjoint"], [1, 1, 0.5, 0])
    np.testing.assert_allclose(found["shared"], [0, 0, (0.5 + 1) / 2, 1])


def test_controls_share_few_of_the_first_latents_and_all_in_the_end() -> None:
    active = crowd()
    own = np.random.default_rng(5).permuted(np.tile(np.arange(480), (len(active.starts) - 1, 1)), axis=1)
    control = matched_ranks(active, own, np.random.default_rng(6))
    found = control_overlap(active, own, control, np.array([20, 120, 400, 480]))
    assert found["shared"][0] < 0.1 < found["shared"][1] < found["shared"][2] < found["shared"][3] == 1
    assert found["disjoint"].tolist() == [1, 1, 0, 0]


def test_matched_sets_come_from_the_pool_and_are_near() -> None:
    rng = np.random.default_rng(2)
    wanted = rng.random(len(ACTIVE.latent)) < 0.2
    pool = ~wanted
    taken = matched_sets(ACTIVE, wanted, pool, rng)
    assert not (taken & wanted).any()
    for image in range(24):
        mine = ACTIVE.image == image
        assert taken[mine].sum() == min(wanted[mine].sum(), pool[mine].sum())

    def apart(chosen: np.ndarray) -> float:
        """Mean distance of each wanted entry to the nearest chosen one of its image."""
        nearest = []
        for entry in np.flatnonzero(wanted):
            mine = ACTIVE.place[chosen & (ACTIVE.image == ACTIVE.image[entry])]
            nearest.append(np.linalg.norm(mine - ACTIVE.place[entry], axis=1).min() if len(mine) else 0.0)
        return float(np.mean(nearest))

    random = np.zeros_like(taken)
    for image in range(24):
        mine = np.flatnonzero(pool & (ACTIVE.image == image))
        random[rng.choice(mine, taken[ACTIVE.image == image].sum(), replace=False)] = True
    assert apart(taken) < 0.8 * apart(random)


def test_every_selection_has_a_control_of_its_own() -> None:
    """At every k it holds as many active latents as its selection, and other ones; and is nobody else's control."""
    found = ranks()
    hits = balance(ACTIVE, found, np.arange(LATENTS), SELECTED.frequency)
    assert set(CONTROL_OF) == {"true", "predicted", "wrong", "dataset"}
    assert set(ranks("filtered")) == {*CONTROL_OF, "matched", "random"}
    for selection, control in CONTROL_OF.items():
        np.testing.assert_array_equal(hits[selection][0], hits[control][0])
        assert (found[selection][ACTIVE.image, ACTIVE.latent] != found[control][ACTIVE.image, ACTIVE.latent]).any()
        for different in set(CONTROL_OF) - {selection}:
            assert (hits[different][0] != hits[control][0]).any(), (different, control)


def test_controls_of_rankings_that_do_not_know_the_label_do_not_know_it_either() -> None:
    predicted = READOUT.predict(ACTIVATIONS).argmax(axis=1)
    one, other = (
        image_ranks(SELECTED, "kept", targets, predicted, ACTIVE, np.random.default_rng(0))
        for targets in (ACTIVATIONS.targets, (ACTIVATIONS.targets + 1) % len(CLASSES))
    )
    for name in ("predicted", "dataset"):
        np.testing.assert_array_equal(one[CONTROL_OF[name]], other[CONTROL_OF[name]])
    assert (one["matched"] != other["matched"]).any()


def test_curves_share_the_state_in_which_nothing_is_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    runs: list[int] = []
    plain = type(READOUT).log_probabilities

    def counted(self, tokens, prompts):
        """Count the runs of the upper half."""
        runs.append(len(tokens))
        return plain(self, tokens, prompts)

    monkeypatch.setattr(type(READOUT), "log_probabilities", counted)
    two = {name: rank for name, rank in ranks().items() if name in {"true", "matched"}}
    runs.clear()
    masking_curves(READOUT, ACTIVATIONS, DICTIONARY, CODES, two, KS, "replace")
    assert len(runs) == 2 + 2 * 2 * (len(KS) - 1)


@pytest.mark.parametrize("base", ["keep-error", "replace"])
def test_curves_end_at_the_plain_and_at_the_empty_model(base: str) -> None:
    found = masking_curves(READOUT, ACTIVATIONS, DICTIONARY, CODES, ranks(), KS, base)  # type: ignore[arg-type]
    plain = READOUT.predict(ACTIVATIONS)
    for selection in ranks():
        on, off = found[selection, "on"], found[selection, "off"]
        np.testing.assert_array_equal(on[:, -1], off[:, 0])
        np.testing.assert_allclose(on[:, 0], off[:, -1], atol=1e-3)
        if base == "keep-error":
            np.testing.assert_array_equal(on[0, -1], plain.argmax(axis=1) == ACTIVATIONS.targets)
            np.testing.assert_array_equal(on[1, -1], plain[np.arange(24), ACTIVATIONS.targets])
            assert (on[2, -1] == 0).all()
    assert (found["true", "off"][2] >= -1e-12).all()


def test_all_latents_kept_is_the_model_on_reconstructions_made_by_hand() -> None:
    """The dictionary's formulas written out: centre, encode, keep the largest, decode, move back."""
    tokens, mean, scale = ACTIVATIONS.numpy().astype(float), DICTIONARY.normaliser.mean, DICTIONARY.normaliser.scale
    pushed = ((tokens - mean) / scale - DICTIONARY.decoder_bias) @ DICTIONARY.encoder.T + DICTIONARY.encoder_bias
    last = np.sort(pushed, axis=-1)[..., [-DICTIONARY.rule.k]]
    code = np.where(pushed >= last, np.maximum(pushed, 0), 0)
    rebuilt = (code @ DICTIONARY.atoms + DICTIONARY.decoder_bias) * scale + mean
    expected = READOUT.log_probabilities(torch.from_numpy(rebuilt).to(ACTIVATIONS.tokens), ACTIVATIONS.prompts)
    found = masking_curves(READOUT, ACTIVATIONS, DICTIONARY, CODES, {"true": ranks()["true"]}, KS, "replace")
    likely = expected[np.arange(24), ACTIVATIONS.targets]
    for whole in (found["true", "on"][:, -1], found["true", "off"][:, 0]):
        np.testing.assert_array_equal(whole[0], expected.argmax(axis=1) == ACTIVATIONS.targets)
        np.testing.assert_allclose(whole[1], likely, atol=2e-4)
    plain = READOUT.predict(ACTIVATIONS)[np.arange(24), ACTIVATIONS.targets]
    assert np.abs(likely - plain).max() > 0.01, "the reconstruction must differ from the tokens for this to say much"


def test_components_end_at_the_plain_model() -> None:
    ks = k_grid((1, 8, 32), LATENTS)
    found = pca_curves(READOUT, ACTIVATIONS, ACTIVATIONS, ks)
    assert (found["pca", "on"][2, 3] == 0).all() and (found["pca", "off"][2, 0] == 0).all()
    assert np.isnan(found["pca", "on"][:, 4]).all()
    assert (np.diff(found["pca", "on"][2, :4].mean(axis=1)) < 0).all()


def test_balance_counts_what_the_top_k_hit() -> None:
    found = balance(ACTIVE, ranks(), KS, SELECTED.frequency)
    own = class_ranks(SELECTED, "kept")[ACTIVATIONS.targets]
    fires = (DENSE > 0).any(axis=1)
    norms = np.linalg.norm(DICTIONARY.directions, axis=1)
    mass = DENSE.sum(axis=1) * norms
    for at, k in enumerate(KS):
        hit = fires & (own < k)
        np.testing.assert_array_equal(found["true"][0, at], hit.sum(axis=1))
        np.testing.assert_allclose(found["true"][1, at], (mass * hit).sum(axis=1) / mass.sum(axis=1), rtol=1e-5)
    np.testing.assert_array_equal(found["true"][0], found["matched"][0])
    assert len(BALANCE) == len(found["true"])


def test_tables_hold_means_contrasts_and_intervals_that_cover() -> None:
    curves = Curves(
        {"task": "toy"},
        tuple(masking_curves(READOUT, ACTIVATIONS, DICTIONARY, CODES, ranks(), KS, "keep-error") for _ in range(2)),
    )
    rng = np.random.default_rng(0)
    table = curve_table([curves], OUTCOMES, KS, ACTIVATIONS.targets, rng, 200)
    row = table[(table["selection"] == "true") & (table["direction"] == "off") & (table["k"] == 5)]
    row = row.set_index("outcome")
    expected = np.stack([found["true", "off"] for found in curves.of_seed])[:, :, 2].mean(axis=(0, 2))
    np.testing.assert_allclose(row.loc[list(OUTCOMES), "estimate"], expected)
    assert (table["seed"] == "all").all() and (table.loc[table["low"].notna(), "low"] <= table["estimate"].max()).all()
    gaps = curve_table([contrasts(curves)], OUTCOMES, KS, ACTIVATIONS.targets, rng, 200)
    values = gaps.set_index(["selection", "direction", "k", "outcome"])["estimate"]
    single = table.set_index(["selection", "direction", "k", "outcome"])["estimate"]
    assert values["true-matched", "on", 5, "accuracy"] == pytest.approx(
        single["true", "on", 5, "accuracy"] - single["matched", "on", 5, "accuracy"]
    )


def test_intervals_of_a_curve_cover_within_their_monte_carlo_error() -> None:
    """300 samples of images with a known mean; a 95 % interval may miss 5 % of them, give or take."""
    rng, hits, n = np.random.default_rng(7), 0, 60
    targets = np.arange(n) % 3
    level = np.array([0.2, 0.5, 0.8])
    for _ in range(300):
        drawn = (rng.random(n) < level[targets]).astype(float)
        curve = Curves({}, ({("true", "off"): drawn[None, None]},))
        row = curve_table([curve], ("accuracy",), np.array([1]), targets, rng, 200).iloc[0]
        hits += row["low"] <= 0.5 <= row["high"]
    assert abs(hits / 300 - 0.95) < 3 * np.sqrt(0.95 * 0.05 / 300) + 0.01


def test_curves_of_several_seeds_have_the_t_interval_of_seeds_cut_at_the_range() -> None:
    """Seeds that agree on every image: only their own spread is left, and accuracy ends at 1."""
    levels, targets = np.array([0.7, 0.8, 0.99]), np.arange(30) % 3
    curve = Curves({}, tuple({("true", "off"): np.full((2, 1, 30), level)} for level in levels))
    found = curve_table([curve], ("accuracy", "kl"), np.array([1]), targets, np.random.default_rng(0), 50)
    row = found.set_index("outcome")
    bounds = ttest_1samp(levels, 0).confidence_interval(0.95)
    assert row.loc["kl", "low"] == pytest.approx(bounds.low) and row.loc["kl", "high"] == pytest.approx(bounds.high)
    assert row.loc["accuracy", "high"] == 1 < bounds.high and row.loc["accuracy", "low"] == pytest.approx(bounds.low)


def test_a_width_that_is_smaller_than_k_ends_the_grid() -> None:
    assert k_grid((1, 3, 500, 64), 64).tolist() == [0, 1, 3, 64]
