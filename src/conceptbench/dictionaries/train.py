"""Learning dictionaries: one pass over the tokens feeds every method, seed and width that was asked for."""

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import torch
from jaxtyping import Float32
from tqdm import tqdm

from conceptbench.dictionaries.checkpoint import (
    CheckpointPolicy,
    Progress,
    Resumable,
    digest_of,
    identify,
    load_checkpoint,
    save_checkpoint,
)
from conceptbench.dictionaries.dictionary import Dictionary
from conceptbench.dictionaries.distributed import is_first, wait_for_all
from conceptbench.dictionaries.evaluate import evaluate
from conceptbench.dictionaries.learner import Precision, Sample, Setting
from conceptbench.dictionaries.methods import learner_of
from conceptbench.dictionaries.normaliser import Normaliser
from conceptbench.dictionaries.specs import DictionarySpec, Trained, describe
from conceptbench.dictionaries.stream import (
    Chunks,
    Epochs,
    FirstAgain,
    checked_tokens,
    epochs_of,
    refuse_short,
    take_sample,
)
from conceptbench.dictionaries.trainer import Lockstep, Trainer, lockstep
from conceptbench.errors import ConceptBenchError
from conceptbench.seeds import torch_seed

SAMPLE_TOKENS: Final = 65_536
"""Tokens taken from the start of the first epoch for normalisers and initial values; they are trained on as well."""
EVALUATION_BATCH: Final = 8_192
PROGRESS_SECONDS: Final = 0.5


def learn(
    spec: DictionarySpec,
    batches: Epochs | Chunks,
    *,
    d: int,
    seed: int,
    held_out: Float32[np.ndarray, "token feature"],
    tokens_per_epoch: int | None = None,
    experiment_seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
    provenance: Mapping[str, Any] | None = None,
    checkpoint: CheckpointPolicy | None = None,
    candidates: Precision = "auto",
) -> Dictionary:
    """Learn one dictionary; see `learn_many`."""
    learnt = learn_many(
        [spec], batches, d=d, seeds=[seed], held_out=held_out, tokens_per_epoch=tokens_per_epoch,
        experiment_seed=experiment_seed, device=device, progress=progress, provenance=provenance,
        checkpoint=checkpoint, candidates=candidates,
    )  # fmt: skip
    return learnt[spec.name, seed]


def learn_many(
    specs: Sequence[DictionarySpec],
    batches: Epochs | Chunks,
    *,
    d: int,
    seeds: Sequence[int] | Mapping[str, Sequence[int]],
    held_out: Float32[np.ndarray, "token feature"],
    tokens_per_epoch: int | None = None,
    experiment_seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
    provenance: Mapping[str, Any] | None = None,
    checkpoint: CheckpointPolicy | None = None,
    candidates: Precision = "auto",
) -> dict[tuple[str, int], Dictionary]:
    """Learn every specification with every seed on one pass over the tokens per epoch.

    Saving the dictionaries is left to the caller; only checkpoints are written here, when they are asked for. They stay
    when all is learnt, so that nothing is lost before the caller has saved and calls `CheckpointPolicy.clear`. In a
    group of processes (`distributed`) the first one writes them, and all of them read the same ones.

    Args:
        specs: what to learn; names are unique.
        batches: a function from the epoch to its training tokens in chunks of any size, or an iterable of such chunks
            when every method takes one pass. Each dictionary regroups them into batches of its own size; what is left
            at the end of an epoch starts the next, and is dropped at the end of the last.
        d: features per token.
        seeds: repetitions, the same for all or by name. The random stream of a dictionary depends on
            (experiment_seed, its name, its seed) only.
        held_out: tokens for the metrics in the card; never trained on by the caller.
        tokens_per_epoch: needed by learning-rate decay, and shown by the progress bar.
        experiment_seed: base of the random streams.
        device: `cpu`, or a torch device for the trained methods.
        progress: show tokens/s, FVU, L0 and dead share.
        provenance: kept in the card under `data`, for instance the digest of the activation store.
        checkpoint: where checkpoints are written, and looked for at the start. Training goes on from them bit for bit
            (`batches` must give the same tokens again); a method of your own, which has no state, starts again.
        candidates: precision in which firing latents are proposed on a CPU; it changes the speed, never the result.

    Returns:
        The dictionaries by (name, seed), with metrics on the held-out tokens in their cards.

    Raises:
        ConceptBenchError: for tokens of a wrong width, with NaN or too few for one batch; for a loss that is not
            finite (dictionary and step are named); for a checkpoint of something else.
    """
    _check_request(specs, seeds, held_out, d, tokens_per_epoch)
    place = _device(device)
    epochs = epochs_of(batches, specs)
    first = iter(epochs(0))
    head, sample = take_sample(first, d, SAMPLE_TOKENS)
    jobs = [(s, seed) for s in specs for seed in (seeds[s.name] if isinstance(seeds, Mapping) else seeds)]
    start = _Start(sample, place, tokens_per_epoch, experiment_seed, candidates)
    del sample  # what learners do not keep of it is freed with `start`, before training takes its memory
    trainers = [start.trainer(spec, seed) for spec, seed in jobs]
    book = _Book(checkpoint, {id(t): start.identity(t, provenance or {}) for t in trainers}) if checkpoint else None
    del start
    lengths = list(book.resume(trainers)) if book else []
    groups = lockstep(trainers, place)
    _read(groups, FirstAgain(head, first, epochs), d, tokens_per_epoch, lengths, book, progress and is_first())
    waiting = {id(trainer): group.tokens_waiting for group in groups for trainer in group.trainers}
    return {(t.spec.name, t.seed): _finish(t, waiting[id(t)], held_out, provenance, device) for t in trainers}


def _read(
    groups: Sequence[Lockstep], epochs_of_tokens: Epochs, d: int, tokens_per_epoch: int | None, lengths: list[int],
    book: "_Book | None", progress: bool,
) -> None:  # fmt: skip
    """Feed all epochs to the groups; those of known length that all have behind them are not read."""
    epochs = max(group.epochs for group in groups)
    total = tokens_per_epoch * epochs if tokens_per_epoch else None
    with tqdm(total=total, unit="token", unit_scale=True, disable=not progress, mininterval=PROGRESS_SECONDS) as bar:
        for epoch in range(epochs):
            active = [group for group in groups if epoch < group.epochs]
            if epoch < len(lengths) and all(group.to_skip >= lengths[epoch] for group in active):
                for group in active:
                    group.to_skip -= lengths[epoch]
                bar.update(lengths[epoch])
                continue
            seen = 0
            for index, tokens in enumerate(epochs_of_tokens(epoch)):
                checked = checked_tokens(tokens, d, f"training chunk {index} of epoch {epoch}")
                for group in active:
                    group.feed(checked)
                seen += len(checked)
                if book:
                    book.note(len(checked), groups, tuple(lengths[:epoch]))
                _show(bar, active[index % len(active)], index // len(active), len(checked))
            lengths[epoch:] = [seen]
            if not epoch:
                for trainer in (trainer for group in groups for trainer in group.trainers):
                    refuse_short(trainer.spec, seen * trainer.spec.epochs)


class _Start:
    """What all dictionaries of one call start from."""

    def __init__(
        self,
        sample: Float32[np.ndarray, "token feature"],
        device: torch.device,
        tokens_per_epoch: int | None,
        experiment_seed: int,
        candidates: Precision,
    ) -> None:
        """Keep the first training tokens."""
        self.device, self.d, self.digest = device, int(sample.shape[1]), digest_of(sample)
        self.tokens_per_epoch, self._experiment_seed, self._candidates = tokens_per_epoch, experiment_seed, candidates
        self._sample = sample
        self._samples: dict[bool, tuple[Normaliser, Sample]] = {}

    def normaliser(self, spec: DictionarySpec) -> Normaliser:
        """Return the normaliser of a specification; there are two, each made once."""
        return self._of(spec.normalise)[0]

    def trainer(self, spec: DictionarySpec, seed: int) -> Trainer:
        """Return a dictionary at the start of its training."""
        total = self.tokens_per_epoch * spec.epochs // spec.batch_size if self.tokens_per_epoch else None
        began = time.perf_counter()
        generator = torch.Generator().manual_seed(torch_seed(self._experiment_seed, "dictionary", spec.name, seed))
        normaliser, sample = self._of(spec.normalise)
        setting = Setting(sample.tokens, normaliser, generator, total, self.device, sample, self._candidates)
        learner = learner_of(spec, setting)
        return Trainer(spec, seed, learner, normaliser, generator, seconds=time.perf_counter() - began)

    def identity(self, trainer: Trainer, provenance: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a checkpoint of the trainer is of."""
        return identify(
            describe(trainer.spec), trainer.seed, features=self.d, tokens=self.digest, device=self.device.type,
            experiment_seed=self._experiment_seed, tokens_per_epoch=self.tokens_per_epoch, data=dict(provenance),
        )  # fmt: skip

    def _of(self, normalise: bool) -> tuple[Normaliser, Sample]:
        if normalise not in self._samples:
            normaliser = Normaliser.fit(self._sample) if normalise else Normaliser.identity(self.d)
            self._samples[normalise] = normaliser, Sample(torch.from_numpy(normaliser.apply(self._sample)))
        return self._samples[normalise]


class _Book:
    """Keeps the checkpoints of one call."""

    def __init__(self, policy: CheckpointPolicy, identities: Mapping[int, Mapping[str, Any]]) -> None:
        """Write nothing yet; what a checkpoint is of is given by the `id` of its trainer."""
        self._policy, self._identities = policy, identities
        self._since = 0

    def resume(self, trainers: Sequence[Trainer]) -> tuple[int, ...]:
        """Bring the trainers to where their checkpoints are; return the lengths of the epochs known from them."""
        known: tuple[int, ...] = ()
        for trainer in trainers:
            if isinstance(trainer.learner, Resumable):
                path, identity = self._policy.path(trainer.spec.name, trainer.seed), self._identities[id(trainer)]
                if progress := load_checkpoint(path, identity, trainer.learner, trainer.generator):
                    trainer.resume(progress)
                    known = max(known, progress.epochs, key=len)
        wait_for_all()  # the first process writes new checkpoints only when all have read the old ones
        return known

    def note(self, tokens: int, groups: Sequence[Lockstep], epochs: tuple[int, ...]) -> None:
        """Count tokens of the stream, and write checkpoints when it is time."""
        self._since += tokens
        if self._since < self._policy.every_tokens:
            return
        self._since = 0
        if not is_first():
            return
        for trainer in (trainer for group in groups for trainer in group.trainers):
            if trainer.steps and isinstance(trainer.learner, Resumable):
                progress = Progress(trainer.steps, trainer.tokens, trainer.seconds, epochs)
                path = self._policy.path(trainer.spec.name, trainer.seed)
                save_checkpoint(path, self._identities[id(trainer)], progress, trainer.learner, trainer.generator)


def _finish(
    trainer: Trainer, waiting: int, held_out: np.ndarray, provenance: Mapping[str, Any] | None, device: str
) -> Dictionary:
    if not trainer.steps:
        refuse_short(trainer.spec, waiting)
    began = time.perf_counter()
    dictionary = trainer.learner.finish()
    seconds = trainer.seconds + time.perf_counter() - began
    pieces = (held_out[i : i + EVALUATION_BATCH] for i in range(0, len(held_out), EVALUATION_BATCH))
    card = {
        "name": trainer.spec.name,
        "method": trainer.spec.method,
        "seed": trainer.seed,
        "spec": describe(trainer.spec),
        "training": {
            "tokens": trainer.tokens,
            "steps": trainer.steps,
            "seconds": seconds,  # with the start and the end, where k-means and its like do their work
            "tokens_per_s": trainer.tokens / max(seconds, 1e-9),
        },
        "metrics": evaluate(dictionary, pieces, device),
        "data": dict(provenance or {}),
    }
    dictionary.card.update(card)
    return dictionary


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConceptBenchError(f"'{name}' is no device of torch; use 'cpu' or, with a GPU, 'cuda'.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConceptBenchError(f"The device '{name}' was asked for, but torch finds no GPU here; use 'cpu'.")
    return device


def _check_request(
    specs: Sequence[DictionarySpec],
    seeds: Sequence[int] | Mapping[str, Sequence[int]],
    held_out: np.ndarray,
    d: int,
    tokens_per_epoch: int | None,
) -> None:
    names = [spec.name for spec in specs]
    if not names or len(set(names)) != len(names):
        raise ConceptBenchError(f"Dictionaries need unique names, and at least one; got {names}.")
    for spec in specs:
        if not (seeds.get(spec.name) if isinstance(seeds, Mapping) else seeds):
            raise ConceptBenchError(f"Dictionary '{spec.name}' has no seed to be learnt with; give at least one.")
        if isinstance(spec, Trained) and spec.decay_share and tokens_per_epoch is None:
            raise ConceptBenchError(f"Dictionary '{spec.name}' decays its learning rate and needs tokens_per_epoch.")
        if tokens_per_epoch is not None:
            refuse_short(spec, tokens_per_epoch * spec.epochs)
    checked_tokens(held_out, d, "held-out tokens")


def _show(bar: "tqdm[Any]", group: Lockstep, turn: int, tokens: int) -> None:
    trainer = group.trainers[turn % len(group.trainers)]
    if (report := trainer.report) is not None:
        text = f"{trainer.label}: FVU {report.fvu:.3f}, L0 {report.l0:.1f}, dead {report.dead_share:.1%}"
        bar.set_postfix_str(text, refresh=False)
    bar.update(tokens)
