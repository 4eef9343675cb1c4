"""K-SVD in its double-batched form: chunks of signals, and blocks of atoms inside each chunk.

One iteration codes a chunk by orthogonal matching pursuit and updates all atoms on it (`ksvd_update`); the atoms are
carried over to the next chunk (DB-KSVD, arXiv 2505.18441). Memory is that of two chunks, k values and indices per
signal and the Gram matrix of the atoms; it depends neither on the number of chunks nor on the number of cores.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import torch
from jaxtyping import Float, Float32, Int32, Int64
from torch import Tensor

from conceptbench.dictionaries.assembled import both_signs, linear, refuse_few
from conceptbench.dictionaries.checkpoint import generator_words, require_shapes, restore_generator
from conceptbench.dictionaries.dictionary import Dictionary
from conceptbench.dictionaries.ksvd_update import Update, update_dictionary
from conceptbench.dictionaries.learner import TINY, Setting, StepReport, to_numpy, total_variation
from conceptbench.dictionaries.omp import gram_matrix, omp_encode, split_signs
from conceptbench.dictionaries.rules import Pursue, Sign
from conceptbench.dictionaries.specs import KSvd

TWIN_COSINE: Final = 0.99
"""Two atoms with a larger cosine (signed codes: absolute cosine) are one; the less used of them is replaced."""
TWIN_ROWS: Final = 1024


@dataclass(frozen=True, eq=False)
class Iteration:
    """What one iteration made of a chunk."""

    atoms: Float32[np.ndarray, "atom feature"]
    """Unit rows: updated, and revived where they had no users or a twin."""
    indices: Int32[np.ndarray, "signal slot"]
    """Support of each signal, -1 in spare slots."""
    values: Float32[np.ndarray, "signal slot"]
    """Coefficients of the updated atoms, before any was revived."""
    before: float
    """Squared error of the chunk after coding."""
    after: float
    """Squared error after the update, before any atom was revived."""
    revived: Int64[np.ndarray, "revived"]
    """Atoms that were replaced by badly reconstructed signals."""


def ksvd_iteration(
    y: Float32[np.ndarray, "signal feature"],
    atoms: Float32[np.ndarray, "atom feature"],
    k: int,
    *,
    rng: np.random.Generator,
    sign: Sign = "split",
    block_size: int | None = None,
    power_steps: int = 3,
) -> Iteration:
    """Code a chunk with unit atoms, at most k for each signal, then update the atoms on it and revive idle ones.

    Args:
        y: the signals of the chunk.
        atoms: unit rows.
        k: atoms for each signal, at most.
        rng: order of the atoms; the same generator and input give the same result.
        sign: whether coefficients may be negative.
        block_size: atoms updated in parallel, at most; 1 is the serial form, whose update never raises the error.
        power_steps: alternations for each atom; see `update_dictionary`.

    Raises:
        ConceptBenchError: for what `omp_encode` refuses.
    """
    gram = gram_matrix(atoms)
    indices, values = omp_encode(y, atoms, k, sign, gram)
    update = update_dictionary(
        y, atoms, indices, values, rng=rng, sign=sign, block_size=block_size, power_steps=power_steps
    )
    idle = np.union1d(np.flatnonzero(update.users == 0), _twins(gram, update, sign))
    renewed, revived = _revive(y, update, idle)
    return Iteration(renewed, indices, update.values, update.before, update.after, revived)


def initial_atoms(
    sample: Float32[np.ndarray, "token feature"],
    width: int,
    rng: np.random.Generator,
    init: Literal["data", "uniform"] = "data",
) -> Float32[np.ndarray, "atom feature"]:
    """Return unit atoms: distinct random tokens that are not zero, or uniform draws from a cube around 0.

    Where there are fewer tokens than atoms, uniform draws make up for the rest.
    """
    rows = rng.uniform(-0.5, 0.5, (width, sample.shape[1])).astype(np.float32)
    if init == "data":
        lengths = np.linalg.norm(sample, axis=1)
        chosen = rng.permutation(np.flatnonzero(lengths > 0))[:width]
        rows[: len(chosen)] = sample[chosen]
    units: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return units


def _twins(gram: Float32[np.ndarray, "atom atom"], update: Update, sign: Sign) -> Int64[np.ndarray, "twin"]:
    """Return the less used atom of each pair that was one direction before the update and still is."""
    left, right = [], []
    for start in range(0, len(gram), TWIN_ROWS):
        rows = gram[start : start + TWIN_ROWS, : start + TWIN_ROWS]
        close = np.abs(rows) > TWIN_COSINE if sign == "split" else rows > TWIN_COSINE
        one, other = np.nonzero(close)
        below = other < one + start
        left.append(one[below] + start)
        right.append(other[below])
    one, other = np.concatenate(left), np.concatenate(right)
    cosine = np.einsum("pd,pd->p", update.atoms[one], update.atoms[other])
    still = (np.abs(cosine) if sign == "split" else cosine) > TWIN_COSINE
    one, other = one[still], other[still]
    return np.unique(np.where(update.users[one] <= update.users[other], one, other))


def _revive(
    y: Float32[np.ndarray, "signal feature"], update: Update, idle: Int64[np.ndarray, "idle"]
) -> tuple[Float32[np.ndarray, "atom feature"], Int64[np.ndarray, "revived"]]:
    """Replace idle atoms by the directions of the signals with the largest errors, each once."""
    worst = np.argsort(-update.errors, kind="stable")[: len(idle)]
    lengths = np.linalg.norm(y[worst], axis=1)
    useful = (update.errors[worst] > 0) & (lengths > 0)
    revived = idle[: int(useful.sum())]
    atoms = update.atoms
    atoms[revived] = y[worst[useful]] / lengths[useful, None]
    return atoms, revived


class KSvdLearner:
    """One iteration for each batch of tokens; the decoder bias is the mean of the sample."""

    def __init__(self, spec: KSvd, setting: Setting) -> None:
        """Draw the first atoms."""
        self._spec, self._setting = spec, setting
        sample = to_numpy(setting.sample)
        self._centre = sample.mean(0, dtype=np.float64).astype(np.float32)
        self._rng = np.random.default_rng(int(torch.randint(2**62, (), generator=setting.generator)))
        if spec.init == "data":
            refuse_few(spec.name, len(sample), spec.width)
        self._atoms = initial_atoms(sample - self._centre, spec.width, self._rng, spec.init)

    def step(self, x: Float[Tensor, "token feature"]) -> StepReport:
        """Take one iteration on a chunk; it runs on the CPU whatever the device."""
        spec = self._spec
        chunk = x.to("cpu", torch.float32).numpy() - self._centre
        done = ksvd_iteration(
            chunk, self._atoms, spec.k, rng=self._rng, sign=spec.sign,
            block_size=spec.block_size, power_steps=spec.power_steps,
        )  # fmt: skip
        self._atoms = done.atoms
        latents, values = split_signs(done.indices, done.values, spec.width, spec.sign)
        fired = values > 0
        silent = 1 - len(np.unique(latents[fired])) / spec.latents
        fvu = done.before / max(total_variation(x), TINY)
        return StepReport(fvu, fvu, float(fired.sum() / len(x)), silent)

    def state(self) -> dict[str, np.ndarray]:
        """Return all that steps have changed; see `checkpoint.Resumable`."""
        return {"atoms": self._atoms, "order": generator_words(self._rng)}

    def restore(self, state: Mapping[str, np.ndarray]) -> None:
        """Take over such a state."""
        require_shapes(state, self.state())
        self._atoms = state["atoms"].copy()
        restore_generator(self._rng, state["order"])

    def finish(self) -> Dictionary:
        """Return the dictionary, which encodes by the same pursuit."""
        atoms = both_signs(self._atoms) if self._spec.sign == "split" else self._atoms.copy()
        return linear(atoms, atoms.copy(), self._centre, self._setting, Pursue(self._spec.k, self._spec.sign))
