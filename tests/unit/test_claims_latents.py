"""Claims about adaptation and about what latents stand for, C14 to C17, on tables of known truth."""

import claims_tables as made
import numpy as np
import pandas as pd
import pytest

from conceptbench.measures.claims.adaptation import base_and_novel, relearnt_dictionary
from conceptbench.measures.claims.latents import clusters, interpretable
from conceptbench.measures.claims.verdict import FAILS, HOLDS, UNTESTED, CannotTest, image_error, with_images

FLORA = made.about(tasks={"flora": "flora"})


def concepts(apart: float, *, half_width: float = made.NARROW) -> pd.DataFrame:
    rows = []
    for name, shift in (("followed", apart), ("adapted", 0.0)):
        head = {"task": "flora", "method": "maple", "outcome": "accuracy", "part": "existing", "dictionary": name}
        for seed in range(3):
            value = made.estimate(0.2 + shift + 0.001 * seed * shift, half_width, seed=str(seed))
            rows += [head | {"sets": sets, "q": 0.1} | value for sets in ("own", "matched")]
            rows.append(head | {"sets": "own", "q": 0.5} | made.estimate(9.0, seed=str(seed)))
    return pd.DataFrame(rows)


def validity(*, valid: bool) -> pd.DataFrame:
    """The followed dictionary's FVU less that of the relearnt one, on the same images."""
    head = {"task": "flora", "method": "maple", "dictionary": "followed", "statistic": "fvu_excess", "margin": 0.05}
    return pd.DataFrame([head | made.estimate(0.02 if valid else 0.2, seed=seed) for seed in ("0", "1", "2", "all")])


def test_c14_compares_dictionaries_of_the_same_seed() -> None:
    near = made.only(relearnt_dictionary({"concepts": concepts(0.005), "validity": validity(valid=True)}, FLORA))
    assert near.verdict == HOLDS and near.ours.estimate == pytest.approx(0.5, rel=0.01)
    far = made.only(relearnt_dictionary({"concepts": concepts(0.05), "validity": validity(valid=True)}, FLORA))
    assert far.verdict == FAILS
    invalid = made.only(relearnt_dictionary({"concepts": concepts(0.005), "validity": validity(valid=False)}, FLORA))
    assert invalid.verdict == FAILS and "the excess of the zero-shot" in invalid.reason
    few_images = concepts(0.005, half_width=0.05)
    unsure = made.only(relearnt_dictionary({"concepts": few_images, "validity": validity(valid=True)}, FLORA))
    assert unsure.verdict == UNTESTED and unsure.ours.low < -2 and unsure.ours.high > 2
    one = concepts(0.0)
    missing = made.only(
        relearnt_dictionary({"concepts": one[one["dictionary"] == "followed"], "validity": validity(valid=True)}, FLORA)
    )
    assert missing.verdict == UNTESTED and "measures.concepts.relearn does not name maple" in missing.reason


def test_c15_wants_base_up_and_novel_where_the_authors_have_it() -> None:
    """Novel within 3 points of +0.92: neither raised nor harmed."""

    def found(base: float, novel: float, seeds: int = 3) -> list[str]:
        return made.verdicts(base_and_novel({"accuracy_difference": made.differences(base, novel, seeds)}, FLORA))

    assert found(0.2, 0.01) == [HOLDS, HOLDS]
    assert found(-0.2, 0.1) == [FAILS, FAILS]
    assert found(0.2, -0.19) == [HOLDS, FAILS]
    assert found(0.2, -0.02) == [HOLDS, UNTESTED]
    few = made.only(base_and_novel({"accuracy_difference": made.differences(0.2, 0.0, 1)}, FLORA))
    assert "seeds" in few.reason
    table = made.differences(0.2, 0.0)
    lacking = made.only(base_and_novel({"accuracy_difference": table[table["half"] == "novel"]}, FLORA))
    assert "base-to-novel" in lacking.reason


def test_c15_judges_every_method_that_learns_prompts() -> None:
    rows = {"coop": (0.1, 0.1), "maple": (0.2, 0.0), "clip-lora": (0.3, 0.3)}
    table = pd.concat([made.differences(*values, method=method) for method, values in rows.items()])
    both = made.about(tasks={"flora": "flora"}, prompts=("coop", "maple", "ivlp"))
    found = list(base_and_novel({"accuracy_difference": table}, both))
    assert [v.part.rsplit(", ")[-1] for v in found] == ["maple", "maple", "coop", "coop", "ivlp"]
    assert [v.verdict for v in found] == [HOLDS, HOLDS, HOLDS, FAILS, UNTESTED]
    with pytest.raises(CannotTest, match="learns prompts"):
        list(base_and_novel({"accuracy_difference": table}, made.about(prompts=())))


def test_images_add_to_the_interval_over_seeds() -> None:
    """Errors of 0.3 over images and of 0.1 over three equal-spaced seeds: variances add."""
    seeds = np.array([1.0, 1.0 + 0.1 * np.sqrt(3), 1.0 - 0.1 * np.sqrt(3)])
    found = with_images(seeds, 0.3, 1000)
    assert found.error == pytest.approx(np.hypot(0.1, 0.3)) and found.freedom is not None and found.freedom > 30
    rows = pd.DataFrame([made.estimate(1, 1.96), made.estimate(2, 3.92)])
    assert image_error(rows) == pytest.approx(1.5, rel=1e-4)
    assert np.isnan(with_images(seeds[:1], 0.3, 1000).low)


def interpretable_tables(mine: np.ndarray, control: np.ndarray) -> dict[str, pd.DataFrame]:
    points = np.zeros((len(mine), 2))
    labels = {"topk": mine, "random": control}
    return {
        "latents": pd.concat([made.statistics(points, "flora", name) for name in labels]),
        "exemplars": pd.concat([made.exemplars(array, "flora", name) for name, array in labels.items()]),
    }


def test_c16_compares_label_entropy_with_shuffled_labels_and_a_random_dictionary() -> None:
    pure, mixed = np.repeat(np.arange(10), 4).reshape(10, 4), np.add.outer(np.arange(10), np.arange(4)) % 10
    # one class a latent has entropy 0, so the gap is what shuffled labels have: below ln 4
    found = list(interpretable(interpretable_tables(pure, mixed), FLORA))
    assert [v.verdict for v in found] == [HOLDS, UNTESTED]
    assert 0.9 < found[0].ours.estimate < np.log(4) and "measures.truth_on" in found[1].reason
    assert found[0].ours.low < found[0].ours.estimate < found[0].ours.high  # though all seeds are alike
    assert next(iter(interpretable(interpretable_tables(mixed, pure), FLORA))).verdict == FAILS
    with pytest.raises(CannotTest, match="random"):
        list(interpretable(interpretable_tables(pure, mixed), made.about(dictionaries={"topk": {"method": "topk"}})))


def test_c16_compares_masks_where_they_are_known() -> None:
    pure = np.repeat(np.arange(10), 4).reshape(10, 4)
    rows = []
    for name, value in (("topk", 0.4), ("random", 0.2)):
        head = {"backbone": "tiny", "block": 4, "dictionary": name, "metric": "iou", "floor": 0.1}
        rows += [head | made.estimate(value + 0.01 * seed, seed=str(seed)) for seed in range(3)]
    tables = interpretable_tables(pure, pure[::-1]) | {"truth_patches": pd.DataFrame(rows)}
    found = list(interpretable(tables, FLORA))[-1]
    assert found.verdict == HOLDS and found.ours.estimate == pytest.approx(0.31)
    tables["truth_patches"]["dictionary"] = tables["truth_patches"]["dictionary"].map(
        {"topk": "random", "random": "topk"}
    )
    assert list(interpretable(tables, FLORA))[-1].verdict == FAILS


def test_c17_tells_two_clusters_from_one() -> None:
    rng = np.random.default_rng(1)
    one = rng.normal(size=(200, 2)) * 0.3
    two = one + np.where(np.arange(200) < 100, 0, 4)[:, None]
    assert made.only(clusters({"latents": made.statistics(two, "flora")}, FLORA)).verdict == HOLDS
    assert made.only(clusters({"latents": made.statistics(one, "flora")}, FLORA)).verdict == FAILS
    assert "fewer than 30" in made.only(clusters({"latents": made.statistics(two[:20], "flora")}, FLORA)).reason
