"""Factor recovery, patches, comparison and permutation null on planted codes and on noise."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from conceptbench.errors import ConceptBenchError
from conceptbench.measures.comparison import Contender, compare_with_nulls
from conceptbench.measures.patches import PatchSpec, mask_ceiling, patch_summary, recover_patches
from conceptbench.measures.sparse import ArrayCodes, from_dense
from conceptbench.measures.truth import (
    FactorLabels,
    Recovery,
    TruthSpec,
    factor_labels,
    permutation_null,
    recover_factors,
    recovery_summary,
    sides,
)

SPEC = TruthSpec(n_resamples=100, n_permutations=199, minimum_positive=5)
NAMES = (("colour", "red"), ("colour", "blue"), ("shape", "star"))


def world(
    seed: int, n: int = 300, planted: tuple[int, ...] = (3, 7, 11), noise: float = 0.0
) -> tuple[ArrayCodes, FactorLabels]:
    """Latents `planted` fire on one patch of the images with their factor; 20 other latents fire at random."""
    rng = np.random.default_rng(seed)
    present = rng.random((n, 3)) < 0.4
    codes = rng.random((n, 5, 20)) * (rng.random((n, 5, 20)) < 0.1)
    for value, latent in enumerate(planted):
        codes[:, :, latent] = 0
        fires = present[:, value] ^ (rng.random(n) < noise)
        codes[np.flatnonzero(fires), rng.integers(1, 5, fires.sum()), latent] = 1 + rng.random(fires.sum())
    return from_dense(codes), FactorLabels(present, NAMES)


def recover(planted: tuple[int, ...] = (3, 7, 11), noise: float = 0.0, spec: TruthSpec = SPEC) -> Recovery:
    a, b = sides(*world(0, planted=planted, noise=noise), *world(1, planted=planted, noise=noise), spec)
    return recover_factors(a, b, np.random.default_rng(0), spec)


def metric(recovery: Recovery, name: str) -> pd.DataFrame:
    return recovery.table[recovery.table["metric"] == name].reset_index(drop=True)


def test_planted_latents_are_recovered() -> None:
    recovery = recover()
    auroc = metric(recovery, "auroc")
    assert list(auroc["latent"]) == [3, 7, 11]
    assert (auroc["estimate"] == 1).all()
    assert (metric(recovery, "f1")["estimate"] > 0.98).all()
    assert (auroc["p"] == 1 / 200).all()
    assert (auroc["note"] == "no variation between images").all()


def test_noisy_latents_have_intervals_around_the_truth() -> None:
    auroc = metric(recover(noise=0.1), "auroc")
    assert list(auroc["latent"]) == [3, 7, 11]
    held = (auroc["low"] < 0.9) & (auroc["high"] > 0.9)
    assert held.sum() >= 2  # of three 95 % intervals one may miss: on these images it does, by 0.0004
    assert (auroc["low"] < auroc["estimate"]).all()


def test_pure_noise_scores_one_half_on_the_held_out_split() -> None:
    estimates = [
        metric(
            recover_factors(
                *sides(*world(s, planted=()), *world(s + 50, planted=()), SPEC), np.random.default_rng(s), SPEC
            ),
            "auroc",
        )
        for s in range(8)
    ]
    table = pd.concat(estimates)
    assert abs(table["estimate"].mean() - 0.5) < 0.02
    assert table["selected"].mean() > 0.54
    assert (table["p"] <= 0.05).mean() <= 0.25


def test_the_permutation_null_shows_the_optimism_of_selection() -> None:
    a, b = sides(*world(0), *world(1), SPEC)
    null = permutation_null(a, b, np.random.default_rng(0), 20, SPEC)
    assert (null["selected_null"] > 0.53).all()
    assert np.allclose(null["held_out_null"], 0.5, atol=0.05)


def test_the_score_is_the_max_over_patch_tokens_without_the_prefix() -> None:
    codes = np.zeros((20, 3, 2))
    present = np.arange(20) % 2 == 0
    codes[present, 0, 0] = 5.0
    codes[present, 2, 1] = 1.0
    labels = FactorLabels(present[:, None], (("colour", "red"),))
    a, b = sides(from_dense(codes), labels, from_dense(codes), labels, SPEC)
    auroc = metric(recover_factors(a, b, np.random.default_rng(0), SPEC), "auroc")
    assert list(auroc["latent"]) == [1]


def test_signed_codes_are_tried_in_both_directions() -> None:
    rng = np.random.default_rng(0)
    present = rng.random((200, 1)) < 0.5
    codes = rng.normal(size=(200, 3, 4))
    codes[:, :, 2] -= 4 * present
    labels = FactorLabels(present, (("colour", "red"),))
    a, b = sides(from_dense(codes), labels, from_dense(codes), labels, SPEC)
    auroc = metric(recover_factors(a, b, np.random.default_rng(0), SPEC), "auroc").iloc[0]
    assert (auroc["latent"], auroc["sign"]) == (2, -1)
    assert auroc["estimate"] == pytest.approx(roc_auc_score(present[:, 0], (-codes[:, 1:, 2]).max(axis=1)), abs=1e-6)


def test_rare_values_get_a_note_instead_of_a_number() -> None:
    (codes_a, labels_a), (codes_b, labels_b) = world(0), world(1)
    labels_b.present[3:, 0] = False
    a, b = sides(codes_a, labels_a, codes_b, labels_b, SPEC)
    table = recover_factors(a, b, np.random.default_rng(0), SPEC).table
    rare = table[(table["factor"] == "colour") & (table["value"] == "red")]
    assert rare["estimate"].isna().all()
    assert rare["note"].str.contains("fewer than 5 images").all()


def test_summary_counts_recovered_values_and_pools_seeds() -> None:
    table, pooled = recovery_summary({"0": recover(), "1": recover(planted=(3, 7))})
    share = table[table["statistic"] == "recovered_at_0.90"].set_index("seed")["estimate"]
    assert share["0"] == 1
    assert share["1"] == pytest.approx(2 / 3)
    assert share["all"] == pytest.approx(5 / 6)
    assert pooled["recovered_at_0.90"].replicates.shape == (100,)
    assert pooled["recovered_at_0.90"].seeds[0].tolist() == pytest.approx([1, 2 / 3])


def test_the_best_dictionary_is_chosen_on_a_and_beats_noise() -> None:
    contenders = []
    for name, kind, planted in (("topk", "learned", (3, 7, 11)), ("weak", "learned", (3,)), ("random", "random", ())):
        recovery = recover(planted=planted, noise=0.05)
        _, pooled = recovery_summary({"0": recovery})
        contenders.append(Contender("clip-tiny", 4, name, kind, recovery.selected, pooled))
    table = compare_with_nulls(contenders, 300)
    assert set(table["dictionary"]) == {"topk"}
    assert set(table["null_dictionary"]) == {"random"}
    difference = table[table["statistic"] == "mean_auroc"].iloc[0]
    assert difference["low"] > 0.2
    assert difference["estimate"] == pytest.approx(difference["best_estimate"] - difference["null_estimate"])
    same = [contenders[0], Contender("clip-tiny", 4, "copy", "random", 0, contenders[0].pooled)]
    assert (compare_with_nulls(same, 300)["estimate"] == 0).all()


def test_a_comparison_needs_a_learned_dictionary() -> None:
    with pytest.raises(ConceptBenchError, match="no learned dictionary"):
        compare_with_nulls([], 10)


def test_factor_labels_accept_several_values_an_image() -> None:
    table = pd.DataFrame({"image": [4, 4, 9], "factor": ["shape"] * 3, "value": ["star", "ring", "ring"]})
    labels = factor_labels(table, [9, 4, 7])
    assert labels.names == (("shape", "ring"), ("shape", "star"))
    np.testing.assert_array_equal(labels.present, [[True, False], [True, True], [False, False]])
    with pytest.raises(ConceptBenchError, match="lacks the column"):
        factor_labels(table.drop(columns="value"), [4])


def masks(seed: int, n: int = 60) -> tuple[np.ndarray, dict[tuple[str, str], np.ndarray]]:
    """Soft masks over 16 patches: a 2x2 block with half-covered borders."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((n, 4, 4))
    for image in np.flatnonzero(rng.random(n) < 0.6):
        row, column = rng.integers(0, 3, 2)
        mask[image, row : row + 2, column : column + 2] = [[1.0, 0.5], [0.5, 0.25]]
    flat = mask.reshape(n, 16)
    codes = np.zeros((n, 17, 3))
    codes[:, 1:, 0] = flat
    codes[:, 1:, 1] = rng.random((n, 16)) * (rng.random((n, 16)) < 0.2)
    return codes, {("shape", "star"): flat}


def test_a_latent_equal_to_the_mask_reaches_the_ceiling() -> None:
    (codes_a, masks_a), (codes_b, masks_b) = masks(0), masks(1)
    recovery = recover_patches(from_dense(codes_a), masks_a, from_dense(codes_b), masks_b, np.random.default_rng(0))
    table = recovery.table.set_index("metric")
    assert (table["latent"] == 0).all()
    np.testing.assert_allclose(table["estimate"], table["ceiling"], atol=0.02)
    assert (table["ceiling"] < 1).all()
    assert table.loc["iou", "floor"] == pytest.approx(masks_b["shape", "star"].mean())
    summary, _ = patch_summary({"0": recovery})
    assert set(summary["statistic"]) == {"mean_average_precision", "mean_iou"}


def test_a_random_latent_stays_at_the_floor() -> None:
    (codes_a, masks_a), (codes_b, masks_b) = masks(2), masks(3)
    recovery = recover_patches(
        from_dense(codes_a[:, :, 1:]), masks_a, from_dense(codes_b[:, :, 1:]), masks_b, np.random.default_rng(0)
    )
    precision = recovery.table.set_index("metric").loc["average_precision"]
    assert precision["estimate"] == pytest.approx(precision["floor"], abs=0.05)


def test_the_ceiling_of_a_binary_mask_is_one() -> None:
    ceiling = mask_ceiling(np.array([1.0, 1.0, 0.0, 0.0]))
    assert ceiling == {"iou": 1.0, "average_precision": 1.0}
    assert mask_ceiling(np.array([0.5, 0.0]))["iou"] == 0.5


def test_masks_of_another_grid_are_refused() -> None:
    codes, found = masks(0)
    with pytest.raises(ConceptBenchError, match="shape=star"):
        recover_patches(
            from_dense(codes),
            {k: v[:, :9] for k, v in found.items()},
            from_dense(codes),
            found,
            np.random.default_rng(0),
            PatchSpec(),
        )
