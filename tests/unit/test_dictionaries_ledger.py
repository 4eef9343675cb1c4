"""A job that is killed learns no part twice: what it had saved is found again, and only that."""

import numpy as np
import pytest

from conceptbench.dictionaries import Dictionary, learn_many, load_dictionary, specify
from conceptbench.dictionaries.checkpoint import CheckpointPolicy
from conceptbench.dictionaries.ledger import Ledger
from conceptbench.dictionaries.trainer import Trainer

D, CHUNK, BATCH = 8, 300, 200
TRAIN = np.random.default_rng(0).standard_normal((3_000, D)).astype(np.float32)
SPECS = [specify(name="topk", method="topk", width=16, k=2, batch_size=BATCH, warmup_steps=2)]
PARTS = ("first", "second")


class KilledError(Exception):
    """Stands for a job that is killed."""


class Job:
    """Learns two parts and counts the chunks it reads of each; killed when it has read so many in all."""

    def __init__(self, folder, key="a" * 64, killed_after=None):
        self.folder, self.left = folder, killed_after
        self.ledger, self.read = Ledger(folder / "checkpoints", key), dict.fromkeys(PARTS, 0)

    def run(self, parts=PARTS):
        """From (part, name, seed) to the digest of what lies in its folder."""
        found = {}
        for part in parts:
            saved = self.ledger.part(
                part,
                lambda policy, of=part: self.learn(of, policy),
                lambda name, seed, of=part: self.folder / of / name / f"seed{seed}",
            )
            found |= {(part, *key): load_dictionary(folder).digest for key, folder in saved.items()}
        return found

    def learn(self, part, policy):
        return learn_many(
            SPECS, lambda epoch: self.chunks(part), d=D, seeds=[0, 1], held_out=TRAIN[:100],
            tokens_per_epoch=len(TRAIN), progress=False, checkpoint=CheckpointPolicy(policy.folder, 2 * CHUNK),
        )  # fmt: skip

    def chunks(self, part):
        for start in range(0, len(TRAIN), CHUNK):
            if self.left == 0:
                raise KilledError
            self.left = None if self.left is None else self.left - 1
            self.read[part] += 1
            yield TRAIN[start : start + CHUNK]


@pytest.fixture(autouse=True)
def _small_sample(monkeypatch):
    monkeypatch.setattr("conceptbench.dictionaries.train.SAMPLE_TOKENS", CHUNK)


@pytest.fixture
def steps(monkeypatch):
    """The steps that are taken from now on."""
    taken, original = [], Trainer.step

    def noted(trainer, batch):
        taken.append(trainer.label)
        original(trainer, batch)

    monkeypatch.setattr(Trainer, "step", noted)
    return taken


def test_a_killed_job_goes_on_where_it_was(tmp_path, steps):
    expected = Job(tmp_path / "whole").run()
    with pytest.raises(KilledError):
        Job(tmp_path / "killed", killed_after=15).run()
    steps.clear()
    again = Job(tmp_path / "killed")
    assert again.run() == expected
    assert again.read["first"] == 0, "a part that was saved is not read again"
    behind = 4 * CHUNK  # of the 5 chunks of the second part; a checkpoint is written every second chunk
    assert len(steps) == 2 * (len(TRAIN) - behind) // BATCH
    again.ledger.close()
    assert {path.name for path in (tmp_path / "killed").iterdir()} == set(PARTS)


def test_a_kill_while_saving_loses_no_training(tmp_path, steps, monkeypatch):
    save = Dictionary.save

    def killed(dictionary, folder):
        if folder.name == "seed1":
            raise KilledError
        save(dictionary, folder)

    with monkeypatch.context() as patch:
        patch.setattr(Dictionary, "save", killed)
        with pytest.raises(KilledError):
            Job(tmp_path).run()
    steps.clear()
    assert len(Job(tmp_path).run(["first"])) == 2
    assert steps == [], "the last checkpoint was written at the last token"


@pytest.mark.parametrize("change", ["key", "missing", "another"])
def test_what_is_not_the_same_is_learnt_again(tmp_path, change):
    expected = Job(tmp_path).run()
    folders = [tmp_path / "first" / "topk" / f"seed{seed}" for seed in (0, 1)]
    if change == "missing":
        (folders[1] / "card.json").unlink()
    if change == "another":
        load_dictionary(folders[0]).save(folders[1])
    again = Job(tmp_path, key="b" * 64 if change == "key" else "a" * 64)
    assert again.run() == expected
    assert again.read["first"] > 0
    assert (again.read["second"] > 0) == (change == "key")
