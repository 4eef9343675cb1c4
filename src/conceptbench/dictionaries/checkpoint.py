"""Checkpoints of training: one file a dictionary, complete or absent, from which training goes on bit for bit.

A file holds every tensor that a step changes, the state of the random generator, and how far it had come in the stream
of tokens. It also says of what it is a checkpoint; another specification, seed, shape or stream of tokens is refused.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import rmtree
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float32, UInt64
from safetensors import SafetensorError, safe_open

from conceptbench.errors import ConceptBenchError
from conceptbench.tensor_files import write_tensors

FORMAT: Final = "conceptbench-checkpoint-1"
_GENERATOR: Final = "generator"
_WORD: Final = 2**64 - 1


@dataclass(frozen=True)
class CheckpointPolicy:
    """Where checkpoints are kept, and how often they are written; who saves what was learnt removes them then."""

    folder: Path
    """One folder for one call of `learn_many`; files are named by dictionary and seed."""
    every_tokens: int = 5_000_000
    """Tokens of the stream between two checkpoints."""

    def __post_init__(self) -> None:
        """Refuse an interval that is none."""
        if self.every_tokens < 1:
            raise ConceptBenchError(f"every_tokens of a checkpoint is {self.every_tokens}; it must be at least 1.")

    def path(self, name: str, seed: int) -> Path:
        """Return the file of a dictionary."""
        return Path(self.folder) / f"{name}.seed{seed}.safetensors"

    def clear(self) -> None:
        """Remove the folder with all checkpoints: what was learnt is saved."""
        rmtree(self.folder, ignore_errors=True)


@runtime_checkable
class Resumable(Protocol):
    """A learner that can be stopped and continued; a method of your own cannot, and starts from the first token."""

    def state(self) -> dict[str, np.ndarray]:
        """Return all that steps have changed, by name; the arrays may be views."""

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over a state, after a start from the same specification, sample and generator.

        Raises:
            ValueError: for the state of something else; nothing is changed then.
        """


@dataclass(frozen=True)
class Progress:
    """How far a dictionary has come."""

    steps: int
    tokens: int
    """Tokens of the stream, epoch after epoch, that its steps have used."""
    seconds: float
    epochs: tuple[int, ...]
    """Tokens of the epochs that were read to their end."""


def digest_of(sample: Float32[np.ndarray, "token feature"]) -> str:
    """Return the digest of the first tokens, which stands for the stream and so for backbone, block and data set."""
    return hashlib.sha256(np.ascontiguousarray(sample).data).hexdigest()


def identify(spec: Mapping[str, Any], seed: int, **others: Any) -> dict[str, Any]:
    """Return what a checkpoint is of, in plain values: the specification, and whatever else decides the result."""
    plain: dict[str, Any] = json.loads(json.dumps({"specification": dict(spec), "seed": seed, **others}))
    return plain


def save_checkpoint(
    path: Path, identity: Mapping[str, Any], progress: Progress, learner: Resumable, generator: torch.Generator
) -> None:
    """Write a checkpoint in place of an older one.

    Raises:
        ConceptBenchError: when the disk refuses; the older file is then untouched.
    """
    tensors = {**learner.state(), _GENERATOR: generator.get_state().numpy()}
    header = {"format": FORMAT, "identity": json.dumps(identity), "progress": json.dumps(vars(progress))}
    write_tensors(tensors, path, header)


def load_checkpoint(
    path: Path, identity: Mapping[str, Any], learner: Resumable, generator: torch.Generator
) -> Progress | None:
    """Bring learner and generator to where the checkpoint was written; None when there is no file.

    Raises:
        ConceptBenchError: when the file is damaged, or a checkpoint of something else; nothing is changed then.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ConceptBenchError(f"Checkpoint {path} is not readable ({error}); delete it to start anew.") from error
    if header.get("format") != FORMAT or not {"identity", "progress"} <= header.keys():
        raise ConceptBenchError(f"{path} is not a {FORMAT} file; delete it to start anew.")
    _refuse_another(path, json.loads(header["identity"]), identity)
    generator_state = tensors.pop(_GENERATOR, np.empty(0, np.uint8))
    try:
        if generator_state.shape != generator.get_state().shape:
            raise ValueError("no state of a generator")
        learner.restore(tensors)
    except ValueError as error:
        raise ConceptBenchError(
            f"Checkpoint {path} holds tensors of another shape; delete it to start anew."
        ) from error
    generator.set_state(torch.from_numpy(generator_state))
    progress = json.loads(header["progress"])
    return Progress(**(progress | {"epochs": tuple(progress["epochs"])}))


def require_shapes(state: Mapping[str, np.ndarray], like: Mapping[str, np.ndarray]) -> None:
    """Refuse a state whose names or shapes are not those of another.

    Raises:
        ValueError: then.
    """
    if {name: array.shape for name, array in state.items()} != {name: array.shape for name, array in like.items()}:
        raise ValueError("tensors of other names or shapes")


def generator_words(generator: np.random.Generator) -> UInt64[np.ndarray, "6"]:
    """Return the state of NumPy's default generator (PCG64) as numbers, as a learner's `state` may hold it."""
    state = generator.bit_generator.state
    long = [state["state"][name] >> shift & _WORD for name in ("state", "inc") for shift in (0, 64)]
    return np.array([*long, state["has_uint32"], state["uinteger"]], np.uint64)


def restore_generator(generator: np.random.Generator, words: UInt64[np.ndarray, "6"]) -> None:
    """Bring a generator to such a state."""
    low, high, inc_low, inc_high, has_uint32, uinteger = (int(word) for word in words)
    generator.bit_generator.state = {
        "bit_generator": "PCG64",
        "state": {"state": low | high << 64, "inc": inc_low | inc_high << 64},
        "has_uint32": has_uint32,
        "uinteger": uinteger,
    }


def _refuse_another(path: Path, stored: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    for name, value in wanted.items():
        if stored.get(name) == value:
            continue
        what = f"another {name}" if name != "tokens" else "other tokens (another backbone, block or data set)"
        if isinstance(value, dict) and isinstance(stored.get(name), dict):
            options = [key for key in value if stored[name].get(key) != value[key]]
            what += f" (it differs in {', '.join(options)})"
        raise ConceptBenchError(f"Checkpoint {path} is of {what}; delete it, or keep checkpoints in another folder.")


def optimiser_state(optimiser: torch.optim.Optimizer) -> dict[str, np.ndarray]:
    """Return the parameters of a torch optimiser with what it remembers of each, as a learner's `state` does."""
    found: dict[str, np.ndarray] = {}
    for i, parameter in enumerate(_parameters(optimiser)):
        found[f"parameter{i}"] = parameter.detach().cpu().numpy()
        for name in ("step", "exp_avg", "exp_avg_sq"):
            kept = optimiser.state.get(parameter, {}).get(name)
            shape = () if name == "step" else parameter.shape
            found[f"{name}{i}"] = np.zeros(shape, np.float32) if kept is None else kept.detach().cpu().numpy()
    return found


@torch.no_grad()
def restore_optimiser(optimiser: torch.optim.Optimizer, state: Mapping[str, np.ndarray]) -> None:
    """Write what `optimiser_state` returned back into the same parameters and the optimiser's memory of them."""
    for i, parameter in enumerate(_parameters(optimiser)):
        parameter.copy_(torch.from_numpy(state[f"parameter{i}"]))
        memory = optimiser.state[parameter]
        memory["step"] = torch.from_numpy(state[f"step{i}"]).clone()
        for name in ("exp_avg", "exp_avg_sq"):
            memory[name] = torch.from_numpy(state[f"{name}{i}"]).to(parameter.device, copy=True)


def _parameters(optimiser: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]
