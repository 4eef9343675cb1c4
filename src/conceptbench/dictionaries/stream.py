"""The tokens that dictionaries learn from: where they come from, what is refused, and the first of them as a sample."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32

from conceptbench.dictionaries.specs import DictionarySpec
from conceptbench.errors import ConceptBenchError

Chunks: TypeAlias = Iterable[Float32[np.ndarray, "token feature"]]
"""Raw training tokens, shuffled, in chunks of any size."""
Epochs: TypeAlias = Callable[[int], Chunks]
"""From the epoch to its tokens."""


def epochs_of(batches: Epochs | Chunks, specs: Sequence[DictionarySpec]) -> Epochs:
    """Return a function from the epoch to its tokens; an iterable is one for the first epoch.

    Raises:
        ConceptBenchError: when a specification asks for more epochs than an iterable has.
    """
    if callable(batches):
        return batches
    if not isinstance(batches, Iterable):
        raise ConceptBenchError(
            f"The training tokens are a {type(batches).__name__}; pass an iterable of chunks, "
            "or a function from the epoch to one."
        )
    for spec in specs:
        if spec.epochs > 1:
            raise ConceptBenchError(
                f"Dictionary '{spec.name}' takes {spec.epochs} passes over the tokens, which an iterable gives once; "
                "pass a function from the epoch to its chunks, or set epochs to 1."
            )
    chunks = batches
    return lambda epoch: chunks


def checked_tokens(tokens: np.ndarray, d: int, what: str) -> Float32[np.ndarray, "token feature"]:
    """Return tokens as contiguous float32.

    Raises:
        ConceptBenchError: when their shape is another, or one of them is not finite in float32.
    """
    if tokens.ndim != 2 or tokens.shape[1] != d:
        raise ConceptBenchError(f"The {what} have shape {tokens.shape}, not (tokens, {d}); check the activation store.")
    with np.errstate(over="ignore"):  # a number that float32 does not hold becomes infinity, which is refused below
        rows = np.ascontiguousarray(tokens, np.float32)
    if not np.isfinite(rows).all():
        beyond = " once they are float32" if np.isfinite(tokens).all() else ""
        raise ConceptBenchError(f"The {what} hold NaN or infinity{beyond}; verify the activation store.")
    return rows


def refuse_short(spec: DictionarySpec, tokens: int) -> None:
    """Refuse to train on so few tokens in all that they are not one batch.

    Raises:
        ConceptBenchError: then.
    """
    if tokens < spec.batch_size:
        chosen = any(field.name == "batch_size" for field in fields(spec))
        lower = "lower batch_size or record more images" if chosen else "record more images"
        raise ConceptBenchError(
            f"Dictionary '{spec.name}' gets {tokens} tokens, fewer than one batch of {spec.batch_size}; {lower}."
        )


def take_sample(
    stream: Iterator[np.ndarray], d: int, most: int
) -> tuple[list[np.ndarray], Float32[np.ndarray, "token feature"]]:
    """Return the first chunks, to be trained on later, and the sample made of them: `most` tokens at most.

    Raises:
        ConceptBenchError: when there is none, or for what `checked_tokens` refuses.
    """
    head: list[np.ndarray] = []
    while sum(map(len, head)) < most and (tokens := next(stream, None)) is not None:
        head.append(checked_tokens(tokens, d, f"training chunk {len(head)} of epoch 0"))
    if not sum(map(len, head)):
        raise ConceptBenchError("There are no training tokens; record activations of at least one image.")
    return head, np.concatenate(head)[:most]


class FirstAgain:
    """The epochs, the first of which was begun; what was read of it comes again, and is let go as it is used."""

    def __init__(self, head: list[np.ndarray], rest: Iterator[np.ndarray], epochs: Epochs) -> None:
        """Keep the chunks that were read."""
        self._head, self._rest, self._epochs = head, rest, epochs

    def __call__(self, epoch: int) -> Iterator[np.ndarray]:
        """Yield the chunks of an epoch."""
        if epoch:
            yield from self._epochs(epoch)
            return
        while self._head:
            yield self._head.pop(0)
        yield from self._rest
