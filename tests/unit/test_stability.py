"""Stability: matchings against brute force, laws, and what chance must give."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from conceptbench.dictionaries.codes import Codes
from conceptbench.dictionaries.dictionary import Dictionary
from conceptbench.dictionaries.normaliser import Normaliser
from conceptbench.dictionaries.rules import KeepLargest
from conceptbench.errors import ConceptBenchError
from conceptbench.figures.dictionary_rows import row_labels, rows_shown
from conceptbench.figures.stability import draw_stability
from conceptbench.measures.stability import (
    DRAWS,
    LiveLatents,
    above,
    compare,
    floors,
    live_latents,
    match,
    random_floor,
    shuffled,
)
from conceptbench.measures.stages.stability import measure_stability


def unit(rng, n, d):
    rows = rng.standard_normal((n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def latents(atoms, encoder=None, weight=None):
    weight = np.arange(1.0, len(atoms) + 1) if weight is None else weight
    return LiveLatents(atoms, atoms if encoder is None else encoder, weight / weight.sum(), weight, weight**2)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(1, 5), m=st.integers(1, 5))
def test_assignment_is_the_best_of_all(seed, n, m):
    rng = np.random.default_rng(seed)
    a, b = unit(rng, n, 3), unit(rng, m, 3)
    small, large = (a, b) if n <= m else (b, a)
    best = max(
        sum(float(small[i] @ large[j]) for i, j in enumerate(order))
        for order in permutations(range(len(large)), len(small))
    )
    found = match(a, b)
    assert found.rule == "assignment" and len(set(found.left)) == len(set(found.right)) == min(n, m)
    assert found.cosine.sum() == pytest.approx(best, abs=1e-5)
    assert found.cosine == pytest.approx(
        [float(a[i] @ b[j]) for i, j in zip(found.left, found.right, strict=True)], abs=1e-6
    )


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_mutual_nearest_is_a_lower_bound_found_by_hand(seed):
    rng = np.random.default_rng(seed)
    a, b = unit(rng, 9, 4), unit(rng, 7, 4)
    cosines = a @ b.T
    expected = {
        (i, j)
        for i in range(9)
        for j in range(7)
        if cosines[i, j] > 0 and cosines[i].argmax() == j and cosines[:, j].argmax() == i
    }
    found = match(a, b, largest=4)
    assert found.rule == "mutual nearest"
    assert set(zip(found.left.tolist(), found.right.tolist(), strict=True)) == expected
    assert found.cosine.sum() <= match(a, b).cosine.clip(0).sum() + 1e-6


def test_mutual_nearest_goes_through_blocks(monkeypatch):
    rng = np.random.default_rng(0)
    a = unit(rng, 50, 6)
    order = rng.permutation(50)
    whole = match(a, a[order], largest=1)
    monkeypatch.setattr("conceptbench.measures.stability.BLOCK", 7)
    parts = match(a, a[order], largest=1)
    assert np.array_equal(whole.left, parts.left) and np.array_equal(order[parts.right], parts.left)
    assert len(parts.left) == 50 and parts.cosine == pytest.approx(np.ones(50), abs=1e-6)


def test_a_permuted_copy_scores_one_everywhere():
    rng = np.random.default_rng(1)
    atoms, order = unit(rng, 40, 12), rng.permutation(40)
    weight = rng.random(40) + 0.1
    values, rule = compare(latents(atoms, weight=weight), latents(atoms[order], weight=weight[order]))
    assert rule == "assignment"
    assert values == pytest.approx(dict.fromkeys(values, 1.0), abs=1e-6)


def test_opposite_atoms_are_not_alike():
    atoms = np.eye(6, dtype=np.float32)[:4]
    values, _ = compare(latents(atoms), latents(-atoms))
    assert values["mcc"] <= 0 and values["shared_decoder"] == 0 and values["energy_mcc"] <= 0


def test_unmatched_latents_count_as_nothing():
    atoms = np.eye(8, dtype=np.float32)
    values, _ = compare(latents(atoms), latents(atoms[:2]))
    assert values["mcc"] == pytest.approx(2 / 8)
    assert values["shared_both"] == pytest.approx(2 / 8)


def test_weights_and_quarters_follow_the_latents_that_come_back():
    """Of eight latents the two most frequent and strongest are found again, the others turn into new directions."""
    atoms = np.eye(16, dtype=np.float32)
    a, b = atoms[:8], np.concatenate([atoms[8:14], atoms[6:8]])
    weight = np.array([1, 1, 1, 1, 1, 1, 9, 9], dtype=float)
    values, _ = compare(latents(a, weight=weight), latents(b, weight=weight))
    assert values["mcc"] == pytest.approx(2 / 8)
    assert values["energy_mcc"] == pytest.approx(18 / 24)
    assert values["square_energy_mcc"] == pytest.approx(162 / 168)
    assert [values[f"frequency_{at}"] for at in (1, 2, 3, 4)] == pytest.approx([0, 0, 0, 1])


def test_both_sides_must_agree_on_the_partner():
    atoms = np.eye(6, dtype=np.float32)[:3]
    swapped = atoms[[1, 0, 2]]
    values, _ = compare(latents(atoms), latents(atoms, encoder=swapped))
    assert values["shared_decoder"] == 1
    assert values["encoder_mcc"] == pytest.approx(1)
    assert values["shared_both"] == pytest.approx(1 / 3)


def test_random_dictionaries_lie_on_the_random_floor():
    rng = np.random.default_rng(3)
    a, b = latents(unit(rng, 120, 16)), latents(unit(rng, 120, 16))
    lowest, drawn, values = random_floor(a, b, rng), floors([a, b], rng)[0, 1], compare(a, b)[0]
    assert values["mcc"] == pytest.approx(lowest, abs=0.03)
    assert abs(above(values["mcc"], lowest, drawn["mcc"])) < 0.05


def test_shuffled_floor_knows_the_shape_of_the_cloud():
    """Atoms near one plane are alike by chance: only the floor that keeps their covariance says so."""
    rng = np.random.default_rng(4)

    def flat(n):
        rows = rng.standard_normal((n, 12)) * np.r_[1.0, 1.0, np.full(10, 0.15)]
        return latents((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))

    a, b = flat(100), flat(100)
    values = compare(a, b)[0]
    assert values["mcc"] > random_floor(a, b, rng) + 0.15
    assert values["mcc"] == pytest.approx(floors([a, b], rng)[0, 1]["mcc"], abs=0.05)


def crowded(rng, n=480, d=32):
    """Latents with no concept, of which those along the main axes of the cloud fire often and strongly."""
    atoms = rng.standard_normal((n, d)) / np.sqrt(np.arange(1, d + 1))
    atoms = (atoms / np.linalg.norm(atoms, axis=1, keepdims=True)).astype(np.float32)
    encoder = atoms + 0.3 * unit(rng, n, d)
    encoder /= np.linalg.norm(encoder, axis=1, keepdims=True)
    energy = np.square(np.square(atoms[:, :3]).sum(axis=1)) * rng.lognormal(0, 0.3, n)
    return LiveLatents(atoms, encoder, energy / energy.sum(), energy, energy**2)


def test_unrelated_dictionaries_lie_on_the_floor_of_every_statistic():
    """Strong latents crowd along the main axes, so unrelated ones are alike: each statistic needs its own floor."""
    rng = np.random.default_rng(6)
    a, b = crowded(rng), crowded(rng)
    values, drawn = compare(a, b)[0], floors([a, b], rng)[0, 1]
    assert set(drawn) == set(values)
    assert values["energy_mcc"] > drawn["mcc"] + 0.05 and values["frequency_4"] > drawn["mcc"] + 0.08
    for statistic in set(values) - {"shared_decoder", "shared_both"}:
        assert values[statistic] == pytest.approx(drawn[statistic], abs=0.04), statistic
    assert values["shared_decoder"] == pytest.approx(drawn["shared_decoder"], abs=0.08)


def test_shuffled_latents_keep_the_cloud_and_the_strong_ones_but_no_latent():
    rng = np.random.default_rng(7)
    true = crowded(rng)
    made = shuffled(true, rng)
    assert made.frequency is true.frequency and made.energy is true.energy
    assert compare(true, made)[0]["mcc"] == pytest.approx(compare(true, crowded(rng))[0]["mcc"], abs=0.05)
    strong = true.energy >= np.quantile(true.energy, 0.75)
    for rows, new in ((true.atoms, made.atoms), (true.encoder, made.encoder)):
        assert np.linalg.norm(new, axis=1) == pytest.approx(np.ones(len(new)), abs=1e-5)
        for some in (strong, ~strong):
            assert np.square(new[some, :3]).sum(1).mean() == pytest.approx(
                np.square(rows[some, :3]).sum(1).mean(), abs=0.06
            )
    own = (made.atoms * made.encoder).sum(axis=1)
    assert own.mean() == pytest.approx((true.atoms * true.encoder).sum(axis=1).mean(), abs=0.05)


def test_floors_are_means_over_draws_of_every_pair(monkeypatch):
    rng, compared = np.random.default_rng(8), []

    def counted(a, b):
        compared.append((a, b))
        return {"mcc": float(len(compared))}, "assignment"

    monkeypatch.setattr("conceptbench.measures.stability.compare", counted)
    runs = [latents(unit(rng, 12, 4)) for _ in range(3)]
    assert floors(runs[:2], rng) == {(0, 1): {"mcc": pytest.approx((1 + DRAWS) / 2)}} and len(compared) == DRAWS
    compared.clear()
    assert set(floors(runs, rng)) == {(0, 1), (0, 2), (1, 2)} and len(compared) == 3


def test_a_floor_of_one_leaves_nothing_above_it():
    assert above(1.0, 1.0) == 0.0 and above(0.5, 0.0, -0.2) == 0.5


def dictionary(scale=2.0):
    atoms = np.array([[1, 0], [0, 3], [1, 1]], dtype=np.float32)
    zeros = np.zeros(3, np.float32), np.zeros(2, np.float32)
    return Dictionary(atoms, atoms.copy(), *zeros, Normaliser(np.zeros(2, np.float32), scale), KeepLargest(1))


def codes_of(dense, digest):
    rows = sparse.csr_matrix(np.asarray(dense, np.float32))
    indptr, indices = rows.indptr.astype(np.int64), rows.indices.astype(np.int32)
    return Codes(indptr, indices, rows.data, (len(dense), 1, 3), digest)


def test_live_latents_have_their_frequency_and_energy():
    learnt = dictionary()
    found = live_latents(learnt, codes_of([[1, 0, 0], [3, 2, 0], [0, 0, 0], [0, 0, 0]], learnt.digest))
    assert found.n == 2 and found.atoms == pytest.approx(np.eye(2))
    assert found.frequency == pytest.approx([0.5, 0.25])
    assert found.energy == pytest.approx([2 * 4 / 4, 6 * 2 / 4])
    assert found.square_energy == pytest.approx([4 * 10 / 4, 36 * 4 / 4])


def test_codes_of_another_dictionary_and_dead_ones_are_refused():
    learnt = dictionary()
    with pytest.raises(ConceptBenchError, match="written by another dictionary"):
        live_latents(learnt, codes_of([[1, 0, 0]], "other"))
    with pytest.raises(ConceptBenchError, match="No latent of a dictionary fires"):
        live_latents(learnt, codes_of([[0, 0, 0]], learnt.digest))


# --- as the rule calls it --------------------------------------------------------------------------------------------


def learnt_world(folder, halves=()):
    """Three seeds of a dictionary: the same atoms in another order, codes in which each of them fires alike."""
    rng = np.random.default_rng(5)
    atoms, zeros = unit(rng, 6, 4), (np.zeros(6, np.float32), np.zeros(4, np.float32))
    for at, run in enumerate((*(f"seed{seed}" for seed in (0, 1, 2)), *halves)):
        rows = atoms[np.roll(np.arange(6), at)]
        made = Dictionary(rows, rows.copy(), *zeros, Normaliser(np.zeros(4, np.float32), 1.0), KeepLargest(2))
        made.save(folder / "learnt" / "block1" / "mine" / run)
        if run.startswith("seed"):
            codes = made.encode(atoms[:, None, :].repeat(3, axis=1))
            codes.save(folder / "codes" / "block1" / "mine" / run / "codes.safetensors")
    spec = {"hooks": {"b": [1]}, "seeds_of": {"mine": [0, 1, 2], "raw": [0]}, "halves": [], "seed": 0}
    spec["dictionaries"] = {"mine": "topk", "raw": "raw"}
    return spec, {"b": folder / "learnt"}, {"b": folder / "codes"}, atoms


class Store:
    """Activations that are the atoms themselves."""

    def __init__(self, atoms):
        self.atoms = atoms

    def iterate(self, block, rows, batch):
        yield rows, self.atoms[rows][:, None, :]


def test_runs_on_disk_are_compared_in_pairs(tmp_path):
    spec, dictionaries, codes, atoms = learnt_world(tmp_path, ("half0", "half1"))
    table = measure_stability(dictionaries, codes, {}, spec)
    assert set(table["dictionary"]) == {"mine"} and set(table["runs"]) == {"seeds"}
    mcc = table[table["statistic"] == "mcc"].set_index("seed")["estimate"]
    assert list(mcc.index) == ["0 and 1", "0 and 2", "1 and 2", "all"]
    assert mcc.to_numpy() == pytest.approx(np.ones(4), abs=1e-6)
    assert table.loc[table["statistic"] == "floor_random", "note"].tolist() == ["one draw"]
    compared = {name for name in set(table["statistic"]) if not name.startswith(("floor", "above"))}
    chance = {"floor_shuffled", "floor_random", *(f"floor_{name}" for name in compared - {"mcc"})}
    assert set(table["statistic"]) == compared | chance | {"above_floor"}
    wide = table.pivot(index="seed", columns="statistic", values="estimate")
    floor = np.maximum(wide["floor_shuffled"], wide.loc["all", "floor_random"])
    pairs = ["0 and 1", "0 and 2", "1 and 2"]
    assert wide["above_floor"][pairs].to_numpy() == pytest.approx(((wide["mcc"] - floor) / (1 - floor))[pairs])

    halved = measure_stability(dictionaries, codes, {"b": (Store(atoms), np.arange(6))}, spec | {"halves": ["mine"]})
    pooled = halved[(halved["runs"] == "halves") & (halved["seed"] == "all") & (halved["statistic"] == "mcc")].iloc[0]
    assert pooled["estimate"] == pytest.approx(1, abs=1e-6) and pooled["note"] == "one pair of seeds only"


def test_shares_stay_between_zero_and_one(tmp_path):
    spec, dictionaries, codes, _ = learnt_world(tmp_path)
    table = measure_stability(dictionaries, codes, {}, spec)
    shares = table[table["statistic"].str.removeprefix("floor_").str.startswith("shared")]
    assert shares["low"].dropna().ge(0).all() and shares["high"].dropna().le(1).all() and len(shares) == 16


def test_without_repetitions_the_table_is_empty_but_has_its_columns(tmp_path):
    spec, dictionaries, codes, _ = learnt_world(tmp_path)
    table = measure_stability(dictionaries, codes, {}, spec | {"seeds_of": {"mine": [0]}})
    assert table.empty and {"statistic", "estimate", "matching", "runs"} <= set(table.columns)


# --- as the figure shows it ------------------------------------------------------------------------------------------


def test_every_mark_has_its_floor_beside_it(monkeypatch, tmp_path):
    kept = []
    monkeypatch.setattr("conceptbench.figures.stability.save_figure", lambda sheet, *_, **__: kept.append(sheet))
    statistics = ["mcc", "energy_mcc", "shared_decoder", "shared_both", *(f"frequency_{at}" for at in (1, 2, 3, 4))]
    chance = {name: f"floor_{name}" if name != "mcc" else "floor_shuffled" for name in statistics}
    ids = {"backbone": "b", "block": 1, "dictionary": "d", "family": "topk", "runs": "seeds", "matching": "assignment"}
    rest = {"low": np.nan, "high": np.nan, "n": 3, "seed": "all", "note": ""}
    values = {chance[name]: (at + 1) / 100 for at, name in enumerate(statistics)} | dict.fromkeys(statistics, 0.5)
    draw_stability(
        pd.DataFrame([{**ids, "statistic": key, "estimate": values[key], **rest} for key in values]), tmp_path
    )
    ticks = [
        [float(line.get_xdata()[0]) for line in axes.lines if line.get_marker() == "|"] for axes in kept[0].figure.axes
    ]
    assert ticks == [[0.01, 0.02], [0.03, 0.04], [0.05, 0.06, 0.07, 0.08]]
    assert [label.get_text() for label in kept[0].figure.axes[0].get_yticklabels()] == ["d"]


def test_rows_follow_the_numbers_in_the_names_and_keep_their_seeds_in_order():
    names = ["topk-k16", "topk-k4", "raw-k8", "topk-k8", "raw-k16"]
    table = pd.DataFrame({"backbone": "b", "block": 1, "dictionary": names, "family": [n.split("-")[0] for n in names]})
    shown, _ = rows_shown(pd.concat([table.assign(seed=0), table.assign(seed=1)], ignore_index=True), "b", 1)
    assert list(dict.fromkeys(shown["dictionary"])) == ["topk-k4", "topk-k8", "topk-k16", "raw-k8", "raw-k16"]
    assert shown["seed"].tolist() == [0, 1] * 5


def test_names_have_their_hook_point_only_among_several():
    table = pd.DataFrame({"backbone": "b", "block": 1, "dictionary": ["random", "topk"], "family": ["random", "topk"]})
    shown, note = rows_shown(table, "b", 1)
    assert list(shown["dictionary"]) == ["topk", "random"] and note == "Hook point: b · block 1."
    more = pd.concat([table, table.assign(block=2)], ignore_index=True)
    assert rows_shown(more, "b", 2)[0]["block"].tolist() == [2, 2, 1, 1] and rows_shown(more, "b", 2)[1] == ""
    assert row_labels([("b", 1, "x"), ("b", 2, "x")]) == ["b · block 1 · x", "b · block 2 · x"]
    many = pd.concat([more.assign(dictionary=f"{at}") for at in range(20)], ignore_index=True)
    cut, note = rows_shown(many, "b", 2)
    assert set(cut["block"]) == {2} and note == "Hook point: b · block 2; the table has all."
