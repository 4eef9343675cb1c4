"""The closed forms against a double loop and against permutations; calibration; planted latents."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from conceptbench.dictionaries.codes import Codes
from conceptbench.errors import ConceptBenchError
from conceptbench.measures.monosemanticity import (
    FEWEST_IMAGES,
    GROUPS,
    embedding_pairs,
    judge,
    latent_sums,
    make_panel,
    measure_latents_alike,
)
from conceptbench.measures.stages.monosemanticity import embed_stored, measure_monosemanticity
from conceptbench.tables import write_json


def unit(rng, n, d, mean=0.0):
    rows = rng.standard_normal((n, d)) + mean
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def sparse_codes(rng, n, m, share=0.4):
    return sparse.csc_array(rng.random((n, m)) * (rng.random((n, m)) < share))


def double_loop(a, e):
    """Mean cosine over pairs i < j, weighted by the product of the activations."""
    above = below = 0.0
    for i in range(len(a)):
        for j in range(i + 1, len(a)):
            above += a[i] * a[j] * float(e[i] @ e[j])
            below += a[i] * a[j]
    return above / below if below else np.nan


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(5, 25), d=st.integers(1, 6))
def test_score_equals_the_double_loop(seed, n, d):
    rng = np.random.default_rng(seed)
    e, codes = unit(rng, n, d), sparse_codes(rng, n, 4)
    found = judge(latent_sums(codes, e), embedding_pairs(e))
    for latent in range(4):
        expected = double_loop(codes.toarray()[:, latent], e)
        assert found.score[latent] == pytest.approx(expected, abs=1e-9, nan_ok=True)
    assert found.null_mean == pytest.approx(double_loop(np.ones(n), e), abs=1e-9)


def test_null_mean_and_deviation_equal_those_of_permutations():
    rng = np.random.default_rng(0)
    n = 40
    e, codes = unit(rng, n, 5, mean=0.4), sparse_codes(rng, n, 3, share=0.5)
    found = judge(latent_sums(codes, e), embedding_pairs(e))
    cosines = e @ e.T
    np.fill_diagonal(cosines, 0.0)
    dense = codes.toarray()
    drawn = []
    for _ in range(20_000):
        a = dense[rng.permutation(n)]
        drawn.append(np.einsum("im,ij,jm->m", a, cosines, a))
    weights = dense.sum(0) ** 2 - np.square(dense).sum(0)
    scores = np.array(drawn) / weights
    error = scores.std(0) / np.sqrt(len(scores))
    assert (np.abs(scores.mean(0) - found.null_mean) < 4 * error).all()
    assert scores.std(0) == pytest.approx(found.null_sd, rel=0.02)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.floats(1e-3, 1e3))
def test_scale_of_a_latent_does_not_matter(seed, scale):
    rng = np.random.default_rng(seed)
    panel, codes = make_panel(unit(rng, 60, 4), rng), sparse_codes(rng, 60, 5)
    plain, scaled = (measure_latents_alike(c, panel).table for c in (codes, codes * scale))
    for column in ("score", "null_sd", "z"):
        assert scaled[column].to_numpy() == pytest.approx(plain[column].to_numpy(), rel=1e-8, nan_ok=True)


def test_sums_of_parts_add_up():
    rng = np.random.default_rng(2)
    e, codes = unit(rng, 30, 4), sparse_codes(rng, 30, 6)
    rows = codes.tocsr()
    whole, part = latent_sums(codes, e), latent_sums(sparse.csc_array(rows[:12]), e[:12])
    rest = whole - part
    expected = latent_sums(sparse.csc_array(rows[12:]), e[12:])
    assert rest.directions == pytest.approx(expected.directions) and rest.powers == pytest.approx(expected.powers)
    assert rest.firing.tolist() == expected.firing.tolist()


def test_left_out_groups_are_those_of_a_fresh_measurement():
    rng = np.random.default_rng(3)
    e, codes = unit(rng, 100, 4), sparse_codes(rng, 100, 5, share=0.6)
    panel = make_panel(e, rng)
    found = measure_latents_alike(codes, panel)
    kept = panel.group != 7
    part = judge(latent_sums(sparse.csc_array(codes.tocsr()[kept]), e[kept]), embedding_pairs(e[kept]))
    assert found.left_out["mean_excess"][7] == pytest.approx(part.excess.mean(), abs=1e-9)
    assert {len(values) for values in found.left_out.values()} == {GROUPS}


def test_a_planted_latent_is_found_and_random_ones_are_not():
    rng = np.random.default_rng(4)
    n = 400
    cluster = rng.random(n) < 0.15
    e = unit(rng, n, 16)
    e[cluster] += 0.8
    e /= np.linalg.norm(e, axis=1, keepdims=True)
    codes = sparse_codes(rng, n, 200, share=0.15).toarray()
    codes[:, 0] = cluster * rng.uniform(0.5, 1, n)
    found = measure_latents_alike(sparse.csc_array(codes), make_panel(e, rng))
    table = found.table
    assert table["q"][0] < 1e-6 and table["z"][0] > 10 and table["excess"][0] > 0.3
    assert (table["q"][1:] <= 0.05).mean() < 0.03
    assert abs(table["z"][1:].mean()) < 0.2 and table["z"][1:].std() == pytest.approx(1, abs=0.15)
    assert found.points["permuted_significant_share"] < 0.02


def test_rare_latents_are_not_tested_and_silent_ones_have_no_score():
    rng = np.random.default_rng(5)
    dense = np.zeros((60, 3))
    dense[: FEWEST_IMAGES - 1, 0] = 1
    dense[:FEWEST_IMAGES, 1] = 1
    table = measure_latents_alike(sparse.csc_array(dense), make_panel(unit(rng, 60, 4), rng)).table
    assert table["q"].isna().tolist() == [True, False, True]
    assert np.isfinite(table["score"][0]) and np.isnan(table["score"][2])
    assert "fewer than" in table["note"][0] and table["note"][1] == ""


def test_a_latent_that_never_rests_counts_from_its_smallest_value():
    rng = np.random.default_rng(6)
    above = rng.random((60, 1))
    panel = make_panel(unit(rng, 60, 4), rng)
    lifted = measure_latents_alike(sparse.csc_array(above + 5), panel).table
    plain = measure_latents_alike(sparse.csc_array(above - above.min()), panel).table
    assert lifted["score"][0] == pytest.approx(plain["score"][0], abs=1e-9)


def test_bad_input_is_refused():
    rng = np.random.default_rng(7)
    panel = make_panel(unit(rng, 60, 4), rng)
    with pytest.raises(ConceptBenchError, match="59 coded images and 60 embeddings"):
        measure_latents_alike(sparse_codes(rng, 59, 2), panel)
    with pytest.raises(ConceptBenchError, match="not negative"):
        measure_latents_alike(sparse.csc_array(-np.ones((60, 1))), panel)
    with pytest.raises(ConceptBenchError, match="zero or not finite"):
        make_panel(np.zeros((60, 4)), rng)
    with pytest.raises(ConceptBenchError, match="at least 40 images"):
        make_panel(unit(rng, 39, 4), rng)


# --- as the rule calls it --------------------------------------------------------------------------------------------


def write_codes(folder, dense, seeds):
    """Codes [image, 3 tokens, latent] of one dictionary, the first token a prefix that no image score counts."""
    tokens = np.zeros((len(dense), 3, dense.shape[1]), np.float32)
    tokens[:, 0] = 7.0
    tokens[:, 2] = dense
    rows = sparse.csr_matrix(tokens.reshape(-1, dense.shape[1]))
    codes = Codes(rows.indptr.astype(np.int64), rows.indices.astype(np.int32), rows.data, tokens.shape, "digest")
    for seed in seeds:
        codes.save(folder / "block1" / "mine" / f"seed{seed}" / "codes.safetensors")
    spec = {"backbone": "b", "blocks": [1], "seeds_of": {"mine": list(seeds)}}
    write_json({"rows": list(range(len(dense))), "spec": spec}, folder / "manifest.json")


def test_codes_on_disk_are_judged_on_their_patches(tmp_path):
    rng = np.random.default_rng(8)
    dense = rng.random((80, 4)) * (rng.random((80, 4)) < 0.6)
    e = unit(rng, 60, 5)
    write_codes(tmp_path, dense, (0, 1))
    spec = {"embedding_of": {"b": "judge"}, "dictionaries": {"mine": "topk"}, "seed": 0}
    rows = np.arange(20, 80)
    found = measure_monosemanticity({"b": tmp_path}, {"b": (1, 2)}, {"judge": e}, rows, spec)
    latents, summary = found["monosemanticity"], found["monosemanticity_summary"]
    expected = [double_loop(dense[20:, latent], e) for latent in range(4)]
    assert latents.loc[latents["seed"] == "1", "score"].to_numpy() == pytest.approx(expected, abs=1e-6)
    assert set(latents["embedding"]) == {"judge"} and set(summary["family"]) == {"topk"}
    mean = summary[summary["statistic"] == "mean_excess"].set_index("seed")
    assert list(mean.index) == ["0", "1", "all"]
    tested = latents[(latents["seed"] == "0") & (latents["note"] == "")]
    assert mean.loc["all", "estimate"] == pytest.approx(tested["excess"].mean())
    assert mean.loc["all", "low"] < mean.loc["all", "estimate"] < mean.loc["all", "high"]
    assert set(summary.loc[summary["statistic"].str.startswith("permuted"), "note"]) == {
        "one permutation of the images"
    }


def test_a_backbone_does_not_judge_itself(tmp_path):
    rng = np.random.default_rng(9)
    write_codes(tmp_path, rng.random((60, 2)), (0,))
    spec = {"embedding_of": {"b": "b"}, "dictionaries": {"mine": "topk"}, "seed": 0}
    with pytest.raises(ConceptBenchError, match="b cannot judge its own latents"):
        measure_monosemanticity({"b": tmp_path}, {"b": (1, 2)}, {"b": unit(rng, 60, 4)}, np.arange(60), spec)


def test_embeddings_are_those_of_the_blocks_above(tmp_path):
    """The store's tokens go through `upper` batch by batch, in the order of the rows asked for."""
    tokens = np.arange(24, dtype=np.float32).reshape(4, 3, 2)

    class Store:
        blocks = (1, 3)

        def iterate(self, block, rows, batch):
            assert block == 3
            yield from ((rows[at : at + 1], tokens[rows[at : at + 1]]) for at in range(len(rows)))

    class Judge:
        device, dtype = torch.device("cpu"), torch.float32

        def upper(self, own, block):
            return own.sum(1) + block

    found = embed_stored(Judge(), Store(), np.array([2, 0]))
    assert found == pytest.approx(tokens[[2, 0]].sum(1) + 3)
