"""Learning, encoding and storing through the public interface; planted atoms; bad input."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from conceptbench.dictionaries import Dictionary, Normaliser, learn, learn_many, load_dictionary, specify
from conceptbench.dictionaries.rules import KeepAbove, KeepLargest
from conceptbench.errors import ConceptBenchError

D, ATOMS = 24, 48
METHODS = {
    "topk": {"method": "topk", "width": 64, "k": 4, "batch_size": 256},
    "relu-l1": {"method": "relu-l1", "width": 64, "l1": 1e-3, "batch_size": 256},
    "random": {"method": "random", "width": 64, "k": 4},
    "raw": {"method": "raw"},
    "pca": {"method": "pca", "k": 4},
}


def planted(n, seed):
    """Sparse non-negative combinations of known unit atoms, off centre."""
    atoms = np.random.default_rng(99).standard_normal((ATOMS, D))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    rng = np.random.default_rng(seed)
    codes = np.zeros((n, ATOMS))
    np.put_along_axis(codes, rng.integers(0, ATOMS, (n, 3)), rng.uniform(0.5, 1.5, (n, 3)), axis=1)
    return (codes @ atoms + 2).astype(np.float32), atoms


TRAIN, TRUE = planted(20_000, 1)
HELD_OUT, _ = planted(2_000, 2)


def batches(epoch):
    order = np.random.default_rng(epoch).permutation(len(TRAIN))
    for start in range(0, len(TRAIN), 3000):
        yield TRAIN[order[start : start + 3000]]


def quick(name, tokens=batches, seed=0, **options):
    spec = specify(name=name, **(METHODS[name] | options))
    return learn(spec, tokens, d=D, seed=seed, held_out=HELD_OUT, tokens_per_epoch=len(TRAIN), progress=False)


@pytest.fixture(scope="module")
def all_methods():
    specs = [specify(name=name, **options) for name, options in METHODS.items()]
    return learn_many(specs, batches, d=D, seeds=[0], held_out=HELD_OUT, tokens_per_epoch=len(TRAIN), progress=False)


@pytest.fixture(scope="module")
def recovered():
    options = {"epochs": 5, "lr": 3e-3, "warmup_steps": 20, "k": 3, "dead_tokens": 5_000}
    specs = [specify(name=n, **(METHODS[n] | (options if n == "topk" else {}))) for n in ("topk", "random")]
    return learn_many(specs, batches, d=D, seeds=[0], held_out=HELD_OUT, tokens_per_epoch=len(TRAIN), progress=False)


def share_recovered(dictionary):
    return float(((TRUE @ dictionary.atoms.T).max(1) > 0.9).mean())


def test_planted_atoms_are_recovered_and_the_null_recovers_none(recovered):
    """Signed cosine, because codes are non-negative: an anti-aligned atom is not a recovery."""
    assert share_recovered(recovered["topk", 0]) > 0.75
    assert share_recovered(recovered["random", 0]) < 0.05
    assert recovered["topk", 0].card["metrics"]["fvu"] < 0.6 * recovered["random", 0].card["metrics"]["fvu"]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_shares_the_interface(all_methods, name, tmp_path):
    dictionary = all_methods[name, 0]
    codes = dictionary.encode(HELD_OUT[:120].reshape(40, 3, D))
    assert codes.shape == (40, 3, dictionary.width)
    x_hat = dictionary.decode(codes)
    np.testing.assert_allclose(x_hat, dictionary.reconstruct(HELD_OUT[:120]), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(dictionary.atoms, axis=1), 1, atol=1e-5)
    dictionary.save(tmp_path)
    loaded = load_dictionary(tmp_path)
    assert loaded.digest == dictionary.digest
    for tensor, value in dictionary.tensors().items():
        np.testing.assert_array_equal(loaded.tensors()[tensor], value)
    again = loaded.encode(HELD_OUT[:120].reshape(40, 3, D))
    np.testing.assert_array_equal(again.values, codes.values)
    np.testing.assert_array_equal(again.indices, codes.indices)
    card = json.loads((tmp_path / "card.json").read_text())
    assert {"fvu", "l0", "dead_share", "dense_share"} <= set(card["metrics"])
    assert card["spec"] == {"name": name, "normalise": True, **card["spec"], **METHODS[name]}


def test_nulls_do_what_they_say(all_methods):
    raw, pca = all_methods["raw", 0], all_methods["pca", 0]
    assert raw.width == 2 * D
    assert raw.card["metrics"]["fvu"] < 1e-10
    assert raw.card["metrics"]["l0"] == pytest.approx(D)
    values = np.linalg.eigvalsh(np.cov(TRAIN.T))[::-1]
    subspace = 1 - values[:4].sum() / values.sum()
    assert pca.card["metrics"]["fvu"] <= subspace * 1.02, "4 free choices per token beat the 4 leading components"
    all_scores = quick("pca", k=D)
    assert all_scores.card["metrics"]["fvu"] < 1e-8
    np.testing.assert_allclose(pca.atoms[:D], -pca.atoms[D:], atol=0)


def test_random_scale_is_least_squares(all_methods):
    dictionary = all_methods["random", 0]
    x = dictionary.normaliser.apply(TRAIN[:8192]) - dictionary.decoder_bias
    y = dictionary.normaliser.apply(dictionary.reconstruct(TRAIN[:8192])) - dictionary.decoder_bias
    assert float((x * y).sum() / (y * y).sum()) == pytest.approx(1, abs=0.02)


def test_same_seed_same_result_and_company_does_not_matter(all_methods):
    alone, again, other = quick("topk"), quick("topk"), quick("topk", seed=1)
    assert alone.digest == again.digest == all_methods["topk", 0].digest
    assert other.digest != alone.digest
    assert quick("relu-l1").digest == all_methods["relu-l1", 0].digest


def test_chunks_of_the_stream_do_not_matter():
    def chunks(epoch):
        order = np.random.default_rng(epoch).permutation(len(TRAIN))
        yield from np.array_split(TRAIN[order], 37)

    assert quick("topk", chunks).digest == quick("topk").digest


def dictionary_of(encoder, rule, bias=None):
    width, d = encoder.shape
    unit = encoder / np.linalg.norm(encoder, axis=1, keepdims=True)
    bias = np.zeros(width, np.float32) if bias is None else bias
    return Dictionary(unit, encoder, bias, np.zeros(d, np.float32), Normaliser.identity(d), rule)


def test_exactly_k_fire_on_ties_and_negatives_never():
    encoder = np.ones((6, 2), np.float32)
    codes = dictionary_of(encoder, KeepLargest(3)).encode(np.array([[1, 1], [-1, -1], [0, 0]], np.float32))
    assert np.diff(codes.indptr).tolist() == [3, 0, 0]
    assert (codes.values == 2).all()


def test_thresholds_keep_the_full_value():
    rule = KeepAbove(np.array([0.5, 2.0], np.float32))
    codes = dictionary_of(np.eye(2, dtype=np.float32), rule).encode(np.array([[1, 1], [0.5, 3]], np.float32))
    np.testing.assert_array_equal(codes.csr().toarray(), [[1, 0], [0, 3]])


def test_encoding_in_tiles_equals_encoding_at_once(all_methods, monkeypatch):
    dictionary = all_methods["topk", 0]
    whole = dictionary.encode(HELD_OUT)
    monkeypatch.setattr("conceptbench.dictionaries.encoding.TILE_VALUES", 64 * 7)
    tiled = dictionary.encode(HELD_OUT)
    np.testing.assert_allclose((whole.csr() - tiled.csr()).toarray(), 0, atol=1e-5)


def test_a_foreign_code_is_not_decoded(all_methods):
    codes = all_methods["topk", 0].encode(HELD_OUT[:5])
    with pytest.raises(ConceptBenchError, match="another dictionary"):
        all_methods["random", 0].decode(codes)


def test_damaged_files_are_named(all_methods, tmp_path):
    all_methods["topk", 0].save(tmp_path)
    path = tmp_path / "dictionary.safetensors"
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    with pytest.raises(ConceptBenchError, match="digest"):
        load_dictionary(tmp_path)
    path.write_bytes(content[:100])
    with pytest.raises(ConceptBenchError, match=r"dictionary\.safetensors"):
        load_dictionary(tmp_path)
    path.unlink()
    with pytest.raises(ConceptBenchError, match="does not exist"):
        load_dictionary(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k is 0"),
        ({"k": 65}, "smaller than k"),
        ({"lr": 0}, "lr is 0"),
        ({"wdith": 3}, "did you mean 'width'"),
        ({"method": "topq"}, "did you mean 'topk'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(ConceptBenchError, match=message):
        quick("topk", **options)


QUICK = [specify(name="topk", **METHODS["topk"], decay_share=0.0)]


def test_too_few_tokens_are_refused_before_anything_is_learnt(monkeypatch):
    """Of two dictionaries one has enough tokens; it is not trained for nothing."""

    def trained(*arguments):
        raise AssertionError("a step was taken")

    monkeypatch.setattr("conceptbench.dictionaries.trainer.Trainer.step", trained)
    specs = [*QUICK, specify(name="big", method="topk", width=64, k=4, batch_size=30_000)]
    with pytest.raises(ConceptBenchError, match="'big' gets 20000 tokens, fewer than one batch of 30000"):
        learn_many(specs, batches, d=D, seeds=[0], held_out=HELD_OUT, tokens_per_epoch=len(TRAIN), progress=False)


def test_too_few_tokens_of_an_unknown_number_are_refused_after_the_first_pass():
    opened = []

    def noted(epoch):
        opened.append(epoch)
        return batches(epoch)

    twice = specify(name="big", method="topk", width=64, k=4, batch_size=50_000, epochs=2, decay_share=0.0)
    with pytest.raises(ConceptBenchError, match="'big' gets 40000 tokens, fewer than one batch of 50000"):
        learn_many([twice], noted, d=D, seeds=[0], held_out=HELD_OUT, progress=False)
    assert opened == [0]


@pytest.mark.parametrize("kind", [iter, list, tuple])
def test_any_iterable_of_chunks_is_one_pass(kind):
    assert quick("topk", kind(list(batches(0)))).digest == quick("topk").digest


def test_an_iterable_is_no_second_pass():
    with pytest.raises(ConceptBenchError, match="'topk' takes 2 passes over the tokens, which an iterable gives once"):
        quick("topk", batches(0), epochs=2)
    with pytest.raises(ConceptBenchError, match="training tokens are a int; pass an iterable of chunks"):
        quick("topk", 3)


def test_bad_tokens_are_named():
    def with_nan(epoch):
        bad = TRAIN.copy()
        bad[7, 3] = np.nan
        yield bad

    with pytest.raises(ConceptBenchError, match="NaN"):
        quick("topk", with_nan)
    with pytest.raises(ConceptBenchError, match="'topk' gets 100 tokens, fewer than one batch of 256; lower batch_s"):
        quick("topk", lambda epoch: iter([TRAIN[:100]]))
    with pytest.raises(ConceptBenchError, match="'raw' gets 100 tokens, fewer than one batch of 2048; record more"):
        quick("raw", lambda epoch: iter([TRAIN[:100]]))
    with pytest.raises(ConceptBenchError, match="training chunk 0 of epoch 0 hold NaN or infinity once they are float"):
        quick("topk", lambda epoch: iter([TRAIN.astype(np.float64) * 1e39]))
    with pytest.raises(ConceptBenchError, match="held-out tokens hold NaN or infinity once they are float32"):
        learn_many(QUICK, batches, d=D, seeds=[0], held_out=HELD_OUT.astype(np.float64) * 1e39, progress=False)
    with pytest.raises(ConceptBenchError, match="no training tokens"):
        quick("topk", lambda epoch: iter([]))
    with pytest.raises(ConceptBenchError, match="shape"):
        quick("topk", lambda epoch: iter([TRAIN[:, :5]]))
    with pytest.raises(ConceptBenchError, match="all equal"):
        quick("topk", lambda epoch: iter([np.ones((500, D), np.float32)]))


@pytest.mark.parametrize("name", ["topk", "relu-l1"])
def test_a_loss_that_is_not_finite_names_dictionary_and_step(name):
    with np.errstate(all="ignore"), pytest.raises(ConceptBenchError, match=rf"'{name}' \(seed 0\).* at step \d+"):
        quick(name, lr=1e30, warmup_steps=0)


def test_threads_of_torch_are_left_alone():
    before = torch.get_num_threads()
    quick("topk")
    assert torch.get_num_threads() == before


def test_reading_codes_does_not_import_torch():
    check = "import sys, conceptbench.dictionaries.storage; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
