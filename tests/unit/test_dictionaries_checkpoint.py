"""Training that was interrupted ends bit for bit like training that was not; foreign checkpoints are refused."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors import safe_open

from conceptbench.dictionaries import learn_many, specify
from conceptbench.dictionaries.checkpoint import CheckpointPolicy
from conceptbench.dictionaries.specs import METHODS
from conceptbench.dictionaries.trainer import Trainer
from conceptbench.errors import ConceptBenchError
from conceptbench.tensor_files import write_tensors

D, WIDTH = 10, 32
RNG = np.random.default_rng(0)
TRAIN = (RNG.standard_normal((6_000, 6)) ** 3 @ RNG.standard_normal((6, D))).astype(np.float32)
HELD_OUT = TRAIN[:500]
TRAINED = {"width": WIDTH, "lr": 3e-3, "warmup_steps": 10, "dead_tokens": 1_500}
SPECS = [
    specify(name="topk", method="topk", k=3, batch_size=256, epochs=2, **TRAINED),
    specify(name="relu", method="relu-l1", l1=0.01, batch_size=500, epochs=2, **TRAINED),
    specify(name="batch-topk", method="batch-topk", k=3, batch_size=256, epochs=1, **TRAINED),
    specify(name="jump", method="jump-relu", sparsity=0.05, batch_size=256, epochs=2, **TRAINED),
    specify(name="matryoshka", method="matryoshka", k=3, batch_size=256, epochs=2, **TRAINED),
    specify(name="archetypal", method="archetypal", k=3, candidates=50, batch_size=256, epochs=1, **TRAINED),
    specify(name="frozen", method="frozen", k=3, batch_size=256, epochs=2, **TRAINED),
    specify(name="as-is", method="topk", k=3, batch_size=256, epochs=2, normalise=False, **TRAINED),
    specify(name="k-svd", method="k-svd", width=24, k=3, batch_size=1_000, epochs=2),
    specify(name="k-svd-random", method="k-svd", width=24, k=3, batch_size=700, epochs=1, init="uniform"),
    specify(name="k-means", method="k-means", width=20, sample=1_500),
    specify(name="k-means-omp", method="k-means-omp", width=20, k=3, sample=30_000),
    specify(name="ica", method="ica", k=3, sample=1_500, max_iter=20),
    specify(name="semi-nmf", method="semi-nmf", width=20, k=3, sample=1_500, iterations=5),
    specify(name="pca", method="pca", k=3),
    specify(name="random", method="random", width=20, k=3),
    specify(name="raw", method="raw", k=3),
]


class StoppedError(Exception):
    """Stands for a machine that is switched off."""


class Stream:
    """Chunks of a shuffled epoch; stops after so many chunks, and remembers which epochs were opened."""

    def __init__(self, stop_after=None):
        self.left, self.opened = stop_after, []

    def __call__(self, epoch):
        self.opened.append(epoch)
        order = np.random.default_rng([7, epoch]).permutation(len(TRAIN))
        for start in range(0, len(TRAIN), 350):
            if self.left is not None:
                if not self.left:
                    raise StoppedError
                self.left -= 1
            yield TRAIN[order[start : start + 350]]


def run(stream, folder=None, specs=SPECS, every=1_000, seeds=(0, 1), provenance=None):
    policy = CheckpointPolicy(folder, every_tokens=every) if folder else None
    return learn_many(
        specs, stream, d=D, seeds=seeds, held_out=HELD_OUT, tokens_per_epoch=len(TRAIN), progress=False,
        checkpoint=policy, provenance=provenance,
    )  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _small_sample():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("conceptbench.dictionaries.train.SAMPLE_TOKENS", 1_000)
        yield


@pytest.fixture(scope="module")
def uninterrupted():
    return run(Stream())


@pytest.mark.parametrize("stops", [[12], [30], [9, 16, 33]])
def test_resume_equals_uninterrupted(uninterrupted, tmp_path, stops):
    """The number is that of chunks read until the stop; the second epoch begins after 18 chunks."""
    for stop in stops:
        with pytest.raises(StoppedError):
            run(Stream(stop), tmp_path)
        assert {path.name for path in tmp_path.iterdir()} >= {"topk.seed0.safetensors", "relu.seed1.safetensors"}
    learnt = run(Stream(), tmp_path)
    assert len(list(tmp_path.iterdir())) == len(uninterrupted), "checkpoints stay until the dictionaries are saved"
    CheckpointPolicy(tmp_path).clear()
    assert not tmp_path.exists()
    for key, dictionary in uninterrupted.items():
        assert learnt[key].digest == dictionary.digest, key
        for name in ("tokens", "steps"):
            assert learnt[key].card["training"][name] == dictionary.card["training"][name]


def test_every_method_has_been_interrupted():
    assert {spec.method for spec in SPECS} == METHODS.keys()


def test_no_method_starts_anew(tmp_path):
    """All steps before the last checkpoint are skipped: the second run takes the rest of them alone."""
    with pytest.raises(StoppedError):
        run(Stream(12), tmp_path, seeds=(0,))
    assert {path.name for path in tmp_path.iterdir()} == {f"{spec.name}.seed0.safetensors" for spec in SPECS}
    taken = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "step", lambda trainer, batch: taken.append(trainer.spec.name))
        with pytest.raises(StoppedError):
            run(Stream(12), tmp_path, seeds=(0,))
    assert taken == []


@pytest.mark.parametrize("change", [{"kept": (5, D + 1)}, {"kept": (5, D)}, {"seen": (2,)}])
def test_a_sample_of_another_shape_is_refused(tmp_path, change):
    """The sample grows, so its shape alone says little: it must be that of the tokens seen, or of the capacity."""
    specs = [spec for spec in SPECS if spec.name == "k-means"]
    with pytest.raises(StoppedError):
        run(Stream(12), tmp_path, specs, seeds=(0,))
    path = tmp_path / "k-means.seed0.safetensors"
    with safe_open(path, framework="numpy") as file:
        tensors, header = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    changed = {name: np.zeros(shape, tensors[name].dtype) for name, shape in change.items()}
    write_tensors({**tensors, **changed}, path, header)
    with pytest.raises(ConceptBenchError, match=r"k-means\.seed0\.safetensors holds tensors of another shape"):
        run(Stream(), tmp_path, specs, seeds=(0,))


def test_an_epoch_that_all_have_passed_is_not_read_again(tmp_path):
    specs = SPECS[:1]
    with pytest.raises(StoppedError):
        run(Stream(30), tmp_path, specs)
    again = Stream()
    stopped = run(again, tmp_path, specs, every=10**9)
    chunks = sum(1 for _ in Stream()(0))
    assert again.opened == [0, 1], "the first is opened for the sample, and not read on"
    assert chunks == 18
    assert stopped["topk", 0].digest == run(Stream(), specs=specs)["topk", 0].digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"specs": [replace(SPECS[0], width=48)]}, "width"),
        ({"specs": [replace(SPECS[0], lr=1e-4)]}, "lr"),
        ({"provenance": {"backbone": "another"}}, "data"),
    ],
)
def test_a_checkpoint_of_something_else_is_refused_and_kept(tmp_path, change, message):
    with pytest.raises(StoppedError):
        run(Stream(12), tmp_path, SPECS[:1])
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConceptBenchError, match=message) as caught:
        run(Stream(), tmp_path, **{"specs": SPECS[:1], **change})
    assert str(caught.value).count(". ") == 0
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_tokens_of_another_backbone_are_refused(tmp_path, monkeypatch):
    with pytest.raises(StoppedError):
        run(Stream(12), tmp_path, SPECS[:1])
    monkeypatch.setattr(f"{__name__}.TRAIN", TRAIN * np.float32(1.5))
    with pytest.raises(ConceptBenchError, match="another backbone"):
        run(Stream(), tmp_path, SPECS[:1])


def test_a_damaged_checkpoint_is_named(tmp_path):
    with pytest.raises(StoppedError):
        run(Stream(12), tmp_path, SPECS[:1])
    path = tmp_path / "topk.seed0.safetensors"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ConceptBenchError, match=r"topk\.seed0\.safetensors is not readable"):
        run(Stream(), tmp_path, SPECS[:1])


def test_an_interval_must_be_positive(tmp_path):
    with pytest.raises(ConceptBenchError, match="every_tokens"):
        CheckpointPolicy(tmp_path, 0)


def test_candidates_of_either_precision_learn_the_same_dictionary():
    digests = {
        learn_many(
            SPECS[:1], Stream(), d=D, seeds=[0], held_out=HELD_OUT, tokens_per_epoch=len(TRAIN), progress=False,
            candidates=precision,
        )["topk", 0].digest
        for precision in ("bf16", "fp32")
    }  # fmt: skip
    assert len(digests) == 1
