"""Claims about top latents, C10 to C12, on tables of known truth."""

import claims_tables as made
import numpy as np
import pandas as pd
import pytest

from conceptbench.measures.claims.overlap import gain_and_new_latents, same_latents, the_exception
from conceptbench.measures.claims.verdict import FAILS, HOLDS, UNTESTED, CannotTest

FLORA = made.about(tasks={"flora": "flora"})


def test_c10_wants_most_latents_high_and_the_exception_lowest() -> None:
    overlap = made.overlap({"flora": 0.88, "terra": 0.7}, {"flora": 0.95, "terra": 0.6})
    new = {"flora": [0.1, 0.3, 0.1, 0.2], "terra": [9.0, 11.0, 10.0, 12.0]}
    tables = {"overlap": overlap, "overlap_regions": made.regions(new)}
    found = list(same_latents(tables, made.about()))
    assert [v.verdict for v in found] == [HOLDS] * 4
    share = next(v for v in found if v.task == "flora" and "share" in v.part)
    assert share.ours.estimate == pytest.approx(160 / (160 + 0.4 + 0.7))
    assert found[3].part == "Jaccard@50, base (the exception: lowest)" and "0.20 [0.20, 0.20]" in found[3].detail
    swapped = {"flora": new["terra"], "terra": new["flora"]}
    tables["overlap_regions"] = made.regions(swapped)
    assert made.verdicts(same_latents(tables, made.about())) == [FAILS, HOLDS, FAILS, HOLDS]
    apart = {
        "overlap": made.overlap({"flora": 0.3}, {"flora": 0.9}),
        "overlap_regions": made.regions({"flora": [0.1] * 4}),
    }
    assert made.verdicts(same_latents(apart, FLORA)) == [HOLDS, FAILS]


def test_c10_compares_halves_with_halves() -> None:
    """The share of all images is high; on halves it is 5 of 45 below what halves of one model have."""
    overlap, new = made.overlap({"flora": 0.88}, {"flora": 0.9}), {"flora": [0.1] * 4}
    moved = {"overlap": overlap, "overlap_regions": made.regions(new, on_halves={"flora": 5.0})}
    share, _ = same_latents(moved, FLORA)
    assert share.ours.estimate > 0.99 and share.verdict == FAILS and "beyond resampling" in share.reason
    assert share.control_value.estimate == pytest.approx(40 / 40.3 - 40 / 45.3)
    lost = {"overlap": made.overlap({"flora": 0.7}, {"flora": 0.9}), "overlap_regions": made.regions(new)}
    assert made.verdicts(same_latents(lost, FLORA)) == [HOLDS, FAILS]


def test_c11_finds_a_correlation_where_there_is_one() -> None:
    rng = np.random.default_rng(0)
    gains = rng.uniform(0.1, 0.7, 40)
    tables = {"hybrids": made.hybrids({"flora": gains}), "overlap_regions": made.regions({"flora": 10 * gains})}
    found = made.only(gain_and_new_latents(tables, made.about()))
    assert found.verdict == FAILS and found.ours.estimate > 0.95 and found.control_value.estimate < 0.05
    unrelated = rng.permutation(40) + 1
    tables["overlap_regions"] = made.regions({"flora": unrelated})
    found = made.only(gain_and_new_latents(tables, made.about()))
    assert found.verdict == HOLDS and found.detail == "40 of 40 classes have a new latent"
    few = {"hybrids": made.hybrids({"flora": gains[:4]}), "overlap_regions": made.regions({"flora": gains[:4]})}
    assert "4 classes" in made.only(gain_and_new_latents(few, made.about())).reason
    with pytest.raises(CannotTest, match=r"adaptations\.tasks"):
        list(gain_and_new_latents(tables, made.about(tasks={"terra": "terra"})))


def test_c11_needs_new_latents_and_an_interval_near_zero() -> None:
    """Zeros everywhere, or an interval that contains 0 because it is wide, show nothing."""
    gains = np.random.default_rng(0).uniform(0.1, 0.7, 24)
    hybrids = made.hybrids({"flora": gains})
    for counts in ([0.0] * 24, [0.3] * 4 + [0.0] * 20):
        tables = {"hybrids": hybrids, "overlap_regions": made.regions({"flora": counts})}
        found = made.only(gain_and_new_latents(tables, made.about()))
        assert found.verdict == UNTESTED and "of 24 base classes have a new latent" in found.reason
    unrelated = np.random.default_rng(1).permutation(9) + 1
    wide = {"hybrids": made.hybrids({"flora": gains[:9]}), "overlap_regions": made.regions({"flora": unrelated})}
    found = made.only(gain_and_new_latents(wide, made.about()))
    assert found.ours.low <= 0 <= found.ours.high and found.verdict == UNTESTED


def test_c11_leaves_out_classes_that_were_not_trained() -> None:
    """Trained classes gain and have new latents, the others lose and have none: over both they would correlate."""
    rng = np.random.default_rng(3)
    gains, losses, new = rng.uniform(0.1, 0.7, 40), [-0.1] * 40, rng.permutation(40) + 10
    hybrids = [made.hybrids({"flora": gains}), made.hybrids({"flora": losses}, half="novel", first=40)]
    regions = made.regions({"flora": new})
    novel = made.regions({"flora": [0.0] * 40}).assign(half="novel")
    novel["label"] += np.where(novel["label"] >= 0, 40, 0)
    tables = {"hybrids": pd.concat(hybrids), "overlap_regions": pd.concat([regions, novel])}
    found = made.only(gain_and_new_latents(tables, made.about()))
    alone = {"hybrids": hybrids[0], "overlap_regions": regions}
    assert found == made.only(gain_and_new_latents(alone, made.about()))


def test_c12_wants_the_exception_above_every_other_task() -> None:
    new = {"flora": [0.1, 0.3, 0.1, 0.2], "terra": [9.0, 11.0, 10.0, 12.0]}
    overlap = made.overlap({"flora": 0.9, "terra": 0.7}, {"flora": 0.95, "terra": 0.6})
    tables = {"overlap": overlap, "overlap_regions": made.regions(new, on_halves={"terra": 9.0})}
    found = list(the_exception(tables, made.about()))
    assert [v.verdict for v in found] == [HOLDS, HOLDS]
    assert [v.control_value.estimate for v in found] == [pytest.approx(9), pytest.approx(0.38)]
    alike = tables | {"overlap": made.overlap({"flora": 0.9, "terra": 0.7}, {"flora": 0.6, "terra": 0.9})}
    assert made.verdicts(the_exception(alike, made.about())) == [HOLDS, FAILS]
    resampled = tables | {"overlap_regions": made.regions(new, on_halves={"terra": -1.0})}
    assert made.verdicts(the_exception(resampled, made.about())) == [FAILS, HOLDS]
    with pytest.raises(CannotTest, match="a task like EuroSAT"):
        list(the_exception(tables, FLORA))
