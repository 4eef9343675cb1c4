"""Learning dictionaries: one pass over the tokens feeds every method, seed and width that was asked for."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Final, TypeAlias

import numpy as np
import torch
from jaxtyping import Float32
from torch import Tensor
from tqdm import tqdm

from conceptbench.dictionaries.dictionary import Dictionary
from conceptbench.dictionaries.evaluate import evaluate
from conceptbench.dictionaries.learner import Learner, Setting, StepReport
from conceptbench.dictionaries.methods import learner_of
from conceptbench.dictionaries.normaliser import Normaliser
from conceptbench.dictionaries.specs import DictionarySpec, Trained, describe
from conceptbench.errors import ConceptBenchError
from conceptbench.seeds import torch_seed

Batches: TypeAlias = Callable[[int], Iterator[Float32[np.ndarray, "token feature"]]]
"""From the epoch to the raw training tokens of that epoch, shuffled, in chunks of any size."""

SAMPLE_TOKENS: Final = 65_536
"""Tokens taken from the start of the first epoch for normalisers and initial values; they are trained on as well."""
EVALUATION_BATCH: Final = 8_192
PROGRESS_SECONDS: Final = 0.5


@dataclass(eq=False)
class _Trainer:
    """One dictionary in training: collects tokens until its batch is full, and keeps its own account."""

    spec: DictionarySpec
    seed: int
    learner: Learner
    normaliser: Normaliser
    device: torch.device
    pending: list[np.ndarray] = field(default_factory=list)
    waiting: int = 0
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0
    report: StepReport | None = None

    @property
    def label(self) -> str:
        return f"{self.spec.name}, seed {self.seed}"

    def feed(self, tokens: np.ndarray) -> None:
        """Take tokens in, and take as many steps as there are full batches."""
        self.pending.append(tokens)
        self.waiting += len(tokens)
        size = self.spec.batch_size
        if self.waiting < size:
            return
        joined = np.concatenate(self.pending)
        full = len(joined) // size * size
        self.pending, self.waiting = [joined[full:]], len(joined) - full
        for start in range(0, full, size):
            self._step(joined[start : start + size])

    def _step(self, batch: np.ndarray) -> None:
        began = time.perf_counter()
        self.report = self.learner.step(torch.from_numpy(self.normaliser.apply(batch)).to(self.device))
        self.seconds += time.perf_counter() - began
        self.steps += 1
        self.tokens += len(batch)
        if self.report is not None and not math.isfinite(self.report.loss):
            raise ConceptBenchError(
                f"The loss of dictionary '{self.spec.name}' (seed {self.seed}) is {self.report.loss} "
                f"at step {self.steps}; lower its learning rate in the configuration."
            )


def learn(
    spec: DictionarySpec,
    batches: Batches,
    *,
    d: int,
    seed: int,
    held_out: Float32[np.ndarray, "token feature"],
    tokens_per_epoch: int | None = None,
    experiment_seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
    provenance: Mapping[str, Any] | None = None,
) -> Dictionary:
    """Learn one dictionary; see `learn_many`."""
    learnt = learn_many(
        [spec], batches, d=d, seeds=[seed], held_out=held_out, tokens_per_epoch=tokens_per_epoch,
        experiment_seed=experiment_seed, device=device, progress=progress, provenance=provenance,
    )  # fmt: skip
    return learnt[spec.name, seed]


def learn_many(
    specs: Sequence[DictionarySpec],
    batches: Batches,
    *,
    d: int,
    seeds: Sequence[int] | Mapping[str, Sequence[int]],
    held_out: Float32[np.ndarray, "token feature"],
    tokens_per_epoch: int | None = None,
    experiment_seed: int = 0,
    device: str = "cpu",
    progress: bool = True,
    provenance: Mapping[str, Any] | None = None,
) -> dict[tuple[str, int], Dictionary]:
    """Learn every specification with every seed on one pass over the tokens per epoch.

    This function writes no file; saving is left to the caller.

    Args:
        specs: what to learn; names are unique.
        batches: the training tokens of an epoch. Each dictionary regroups them into batches of its own size; what is
            left at the end of an epoch starts the next, and is dropped at the end of the last.
        d: features per token.
        seeds: repetitions, the same for all or by name. The random stream of a dictionary depends on
            (experiment_seed, its name, its seed) only.
        held_out: tokens for the metrics in the card; never trained on by the caller.
        tokens_per_epoch: needed by learning-rate decay, and shown by the progress bar.
        experiment_seed: base of the random streams.
        device: `cpu`, or a torch device for the trained methods.
        progress: show tokens/s, FVU, L0 and dead share.
        provenance: kept in the card under `data`, for instance the digest of the activation store.

    Returns:
        The dictionaries by (name, seed), with metrics on the held-out tokens in their cards.

    Raises:
        ConceptBenchError: for tokens of a wrong width, with NaN or too few for one batch; for a loss that is not
            finite (dictionary and step are named).
    """
    _check_request(specs, held_out, d, tokens_per_epoch)
    first = iter(batches(0))
    head, sample = _take_sample(first, d)
    jobs = [(s, seed) for s in specs for seed in (seeds[s.name] if isinstance(seeds, Mapping) else seeds)]
    target = torch.device(device)
    shared = _Shared(sample, target, tokens_per_epoch, experiment_seed)
    trainers = [_start(spec, seed, shared) for spec, seed in jobs]
    epochs = max(spec.epochs for spec in specs)
    total = tokens_per_epoch * epochs if tokens_per_epoch else None
    with tqdm(total=total, unit="token", unit_scale=True, disable=not progress, mininterval=PROGRESS_SECONDS) as bar:
        for epoch in range(epochs):
            stream = chain(head, first) if epoch == 0 else batches(epoch)
            head = []
            active = [trainer for trainer in trainers if epoch < trainer.spec.epochs]
            for index, tokens in enumerate(stream):
                checked = _check_tokens(tokens, d, f"training chunk {index} of epoch {epoch}")
                for trainer in active:
                    trainer.feed(checked)
                _show(bar, active[index % len(active)], len(checked))
    return {(t.spec.name, t.seed): _finish(t, held_out, provenance, device) for t in trainers}


@dataclass(frozen=True, eq=False)
class _Shared:
    """What all dictionaries of one call start from."""

    sample: Float32[np.ndarray, "token feature"]
    device: torch.device
    tokens_per_epoch: int | None
    experiment_seed: int


def _start(spec: DictionarySpec, seed: int, shared: _Shared) -> _Trainer:
    normaliser = Normaliser.fit(shared.sample) if spec.normalise else Normaliser.identity(shared.sample.shape[1])
    total = shared.tokens_per_epoch * spec.epochs // spec.batch_size if shared.tokens_per_epoch else None
    generator = torch.Generator().manual_seed(torch_seed(shared.experiment_seed, "dictionary", spec.name, seed))
    sample: Tensor = torch.from_numpy(normaliser.apply(shared.sample))
    setting = Setting(sample, normaliser, generator, total, shared.device)
    return _Trainer(spec, seed, learner_of(spec, setting), normaliser, shared.device)


def _finish(trainer: _Trainer, held_out: np.ndarray, provenance: Mapping[str, Any] | None, device: str) -> Dictionary:
    if not trainer.steps:
        raise ConceptBenchError(
            f"Dictionary '{trainer.spec.name}' got {trainer.waiting} tokens, fewer than one batch of "
            f"{trainer.spec.batch_size}; lower batch_size or record more images."
        )
    dictionary = trainer.learner.finish()
    pieces = (held_out[i : i + EVALUATION_BATCH] for i in range(0, len(held_out), EVALUATION_BATCH))
    card = {
        "name": trainer.spec.name,
        "method": trainer.spec.method,
        "seed": trainer.seed,
        "spec": describe(trainer.spec),
        "training": {
            "tokens": trainer.tokens,
            "steps": trainer.steps,
            "seconds": trainer.seconds,
            "tokens_per_s": trainer.tokens / max(trainer.seconds, 1e-9),
        },
        "metrics": evaluate(dictionary, pieces, device),
        "data": dict(provenance or {}),
    }
    dictionary.card.update(card)
    return dictionary


def _check_request(specs: Sequence[DictionarySpec], held_out: np.ndarray, d: int, tokens_per_epoch: int | None) -> None:
    names = [spec.name for spec in specs]
    if not names or len(set(names)) != len(names):
        raise ConceptBenchError(f"Dictionaries need unique names, and at least one; got {names}.")
    for spec in specs:
        if isinstance(spec, Trained) and spec.decay_share and tokens_per_epoch is None:
            raise ConceptBenchError(f"Dictionary '{spec.name}' decays its learning rate and needs tokens_per_epoch.")
    _check_tokens(held_out, d, "held-out tokens")


def _check_tokens(tokens: np.ndarray, d: int, what: str) -> Float32[np.ndarray, "token feature"]:
    if tokens.ndim != 2 or tokens.shape[1] != d:
        raise ConceptBenchError(f"The {what} have shape {tokens.shape}, not (tokens, {d}); check the activation store.")
    if not np.isfinite(tokens).all():
        raise ConceptBenchError(f"The {what} hold NaN or infinity; verify the activation store.")
    return np.ascontiguousarray(tokens, np.float32)


def _take_sample(stream: Iterator[np.ndarray], d: int) -> tuple[list[np.ndarray], Float32[np.ndarray, "token feature"]]:
    """Return the first chunks, to be trained on later, and the sample made of them."""
    head: list[np.ndarray] = []
    while sum(map(len, head)) < SAMPLE_TOKENS and (tokens := next(stream, None)) is not None:
        head.append(_check_tokens(tokens, d, f"training chunk {len(head)} of epoch 0"))
    if not head:
        raise ConceptBenchError("There are no training tokens; record activations of at least one image.")
    return head, np.concatenate(head)[:SAMPLE_TOKENS]


def _show(bar: "tqdm[Any]", trainer: _Trainer, tokens: int) -> None:
    if (report := trainer.report) is not None:
        text = f"{trainer.label}: FVU {report.fvu:.3f}, L0 {report.l0:.1f}, dead {report.dead_share:.1%}"
        bar.set_postfix_str(text, refresh=False)
    bar.update(tokens)
