"""The contract of a dictionary method, as checks that anyone can run: `conceptbench check-method PATH`.

A small world with known atoms stands for the positive control, isotropic noise for the negative one.
"""

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from jaxtyping import Float, Float32
from scipy.optimize import linear_sum_assignment

from conceptbench.dictionaries.codes import Codes
from conceptbench.dictionaries.dictionary import Dictionary
from conceptbench.dictionaries.specs import METHODS, DictionarySpec, Own, describe, specify
from conceptbench.dictionaries.storage import load_dictionary
from conceptbench.dictionaries.train import learn

D: Final = 48
ATOMS: Final = 32
WIDTH: Final = 64
ACTIVE: Final = (1, 3)
"""A planted token has from one to three active atoms."""
NOISE: Final = 0.02
TOKENS: Final = 16_384
NOISE_TOKENS: Final = 4_096
HELD_OUT: Final = 4_096
FOUND_COSINE: Final = 0.9
"""A planted atom is found when a learnt atom has a larger signed cosine with it: codes are >= 0."""
FOUND_SHARE: Final = 0.9
"""Share of the planted atoms that a method must find."""
NULL_SHARE: Final = 0.1
"""Share of the planted atoms that a null may find."""
ROTATIONS: Final = 999
NOISE_LEVEL: Final = 0.001
"""A method fails the negative control when at most this share of rotations agrees as much as what it has learnt."""

NULLS: Final = ("frozen", "pca", "random", "raw")
DATA_FREE: Final = ("raw",)
"""Methods whose atoms depend neither on the data nor on the seed, so that noise cannot change them."""

_TRAINED: Final = {"width": WIDTH, "lr": 3e-3, "warmup_steps": 20, "batch_size": 256, "epochs": 4, "dead_tokens": 4_000}
OPTIONS: Final[dict[str, dict[str, Any]]] = {
    "topk": {**_TRAINED, "k": 3},
    "relu-l1": {**_TRAINED, "l1": 0.004},
    "batch-topk": {**_TRAINED, "k": 2},
    "matryoshka": {**_TRAINED, "k": 2, "prefixes": [0.5, 1.0]},
    "jump-relu": {**_TRAINED, "sparsity": 0.05, "bandwidth": 2.0},
    "archetypal": {**_TRAINED, "k": 3, "candidates": 128},
    "frozen": {**_TRAINED, "k": 3},
    "k-svd": {"width": ATOMS, "k": 3, "sign": "positive", "batch_size": 4_096, "epochs": 4},
    "k-means": {"width": 2 * WIDTH},
    "k-means-omp": {"width": 2 * WIDTH, "k": 3},
    "ica": {"k": 3, "components": ATOMS},
    "semi-nmf": {"width": 48, "k": 3, "sample": 8_192},
    "random": {"width": WIDTH, "k": 3},
    "raw": {"k": 8},
    "pca": {"k": 3},
}
"""Options with which the methods of the project are checked."""


@dataclass(frozen=True)
class Finding:
    """The outcome of one check."""

    check: str
    passed: bool
    detail: str


def planted_atoms() -> Float[np.ndarray, "atom feature"]:
    """Return the unit atoms of the positive control."""
    rows = np.random.default_rng(20).standard_normal((ATOMS, D))
    return _units(rows)


def planted_tokens(n: int, stream: int) -> Float32[np.ndarray, "token feature"]:
    """Return tokens that are sums of one to three planted atoms of size 0.5 to 1.5, off centre, with a little noise."""
    random = np.random.default_rng([21, stream])
    ranks = random.random((n, ATOMS)).argsort(1).argsort(1)
    active = ranks < random.integers(ACTIVE[0], ACTIVE[1] + 1, n)[:, None]
    codes = np.where(active, random.uniform(0.5, 1.5, (n, ATOMS)), 0)
    tokens = codes @ planted_atoms() + 1 + NOISE * random.standard_normal((n, D))
    return np.asarray(tokens, np.float32)


def noise_tokens(n: int, stream: int) -> Float32[np.ndarray, "token feature"]:
    """Return isotropic Gaussian tokens: no direction is better than another."""
    return np.random.default_rng([22, stream]).standard_normal((n, D), dtype=np.float32)


class Contract:
    """The checks of one method with its options; dictionaries are learnt when a check first needs them."""

    def __init__(self, method: str, options: Mapping[str, Any] | None = None) -> None:
        """Read the method: a name of the project's own, or `package.module:Class`.

        Raises:
            ConceptBenchError: for a method or options that do not exist.
        """
        self.spec = contract_spec(method, options or {})

    def settings(self) -> str:
        """Return the options that are checked, as text."""
        options = {name: value for name, value in describe(self.spec).items() if name not in ("name", "method")}
        return ", ".join(f"{name}={value}" for name, value in options.items())

    def run(self) -> Iterator[Finding]:
        """Yield the finding of every check, in order."""
        for check in (
            self.shapes, self.storage, self.same_seed, self.save_and_load, self.batches,
            self.reconstruction, self.noise, self.atoms,
        ):  # fmt: skip
            yield check()

    def shapes(self) -> Finding:
        """Atoms, codes and reconstructions have the shapes they should, and codes fire."""
        learnt, codes = self._learnt, self._codes
        width = getattr(self.spec, "latents", getattr(self.spec, "width", learnt.width))
        holds = learnt.atoms.shape == learnt.encoder.shape == (width, D) and codes.shape == (HELD_OUT, 1, width)
        holds &= learnt.decode(codes).shape == (HELD_OUT, D) and len(codes.values) > 0
        lengths = np.linalg.norm(learnt.atoms, axis=1)
        detail = f"{width} x {D}, L0 {len(codes.values) / HELD_OUT:.2f}, norms {lengths.min():.2f}..{lengths.max():.2f}"
        return Finding("shapes", bool(holds), detail)

    def storage(self) -> Finding:
        """Encoder and atoms do not share memory: a change of one leaves the other."""
        apart = not np.shares_memory(self._learnt.atoms, self._learnt.encoder)
        return Finding("encoder and atoms apart", apart, "own memory" if apart else "one array for both")

    def same_seed(self) -> Finding:
        """The same seed and tokens give the same bits."""
        again = self._learn(planted_tokens(TOKENS, 0), seed=0)
        same = again.digest == self._learnt.digest
        return Finding("same seed, same result", same, f"digest {again.digest[:12]} and {self._learnt.digest[:12]}")

    def save_and_load(self) -> Finding:
        """What is read back encodes to the same bits."""
        with tempfile.TemporaryDirectory() as folder:
            self._learnt.save(Path(folder))
            read = load_dictionary(folder)
        codes = read.encode(self._held_out)
        same = _equal(codes, self._codes) and read.digest == self._learnt.digest
        return Finding("save and load", same, f"L0 {len(codes.values) / HELD_OUT:.2f} after loading")

    def batches(self) -> Finding:
        """The code of a token does not depend on the tokens beside it."""
        cut = HELD_OUT // 3
        parts = [self._learnt.encode(part) for part in (self._held_out[:cut], self._held_out[cut:])]
        same = _close(Codes.concatenate(parts), self._codes)
        return Finding("codes independent of the batch", same, f"{cut} and {HELD_OUT - cut} tokens apart or together")

    def reconstruction(self) -> Finding:
        """Held-out tokens are reconstructed better than by their mean."""
        fvu = float(self._learnt.card["metrics"]["fvu"])
        return Finding("better than the mean", fvu < 1, f"held-out FVU {fvu:.3f} < 1")

    def noise(self) -> Finding:
        """Negative control: on isotropic noise there is nothing to find, so two dictionaries agree by chance only.

        They are learnt from different noise with different seeds. The score is the mean signed cosine of their best
        one-to-one matching; the null rotates one of them at random, which isotropic data would not notice.
        """
        if self.spec.method in DATA_FREE:
            return Finding("negative control", True, "atoms depend on nothing: no noise can change them")
        first, second = (_units(self._learn(noise_tokens(NOISE_TOKENS, seed), seed=seed).atoms) for seed in (0, 1))
        score = matched_cosine(first, second)
        random = np.random.default_rng(23)
        null = np.array([matched_cosine(first, second @ _rotation(random)) for _ in range(ROTATIONS)])
        p = (1 + int((null >= score).sum())) / (1 + ROTATIONS)
        detail = f"agreement {score:.3f}, by chance {null.mean():.3f}..{null.max():.3f}, p {p:.3f} > {NOISE_LEVEL}"
        return Finding("negative control", p > NOISE_LEVEL, detail)

    def atoms(self) -> Finding:
        """Positive control: planted atoms are found; a null finds none."""
        best = (planted_atoms() @ _units(self._learnt.atoms).T).max(1)
        share = float((best > FOUND_COSINE).mean())
        detail = f"{share:.0%} of {ATOMS} atoms found (cosine > {FOUND_COSINE}), mean cosine {best.mean():.3f}"
        if self.spec.method in NULLS:
            return Finding("positive control (a null)", share <= NULL_SHARE, f"{detail}; at most {NULL_SHARE:.0%}")
        return Finding("positive control", share >= FOUND_SHARE, f"{detail}; at least {FOUND_SHARE:.0%}")

    @cached_property
    def _held_out(self) -> Float32[np.ndarray, "token feature"]:
        return planted_tokens(HELD_OUT, 1)

    @cached_property
    def _learnt(self) -> Dictionary:
        return self._learn(planted_tokens(TOKENS, 0), seed=0)

    @cached_property
    def _codes(self) -> Codes:
        return self._learnt.encode(self._held_out)

    def _learn(self, tokens: Float32[np.ndarray, "token feature"], seed: int) -> Dictionary:
        def batches(epoch: int) -> Iterator[Float32[np.ndarray, "token feature"]]:
            """Yield the tokens in an order that depends on the epoch."""
            yield tokens[np.random.default_rng(epoch).permutation(len(tokens))]

        return learn(
            self.spec, batches, d=D, seed=seed, held_out=self._held_out, tokens_per_epoch=len(tokens), progress=False
        )


def contract_spec(method: str, options: Mapping[str, Any]) -> DictionarySpec:
    """Return the specification that is checked: the options given, over those of the contract."""
    if ":" not in method and method not in METHODS:
        return specify(name="checked", method=method)
    if ":" in method:
        ours = {field.name for field in fields(Own)}
        own = {key: value for key, value in options.items() if key not in ours}
        rest = {key: value for key, value in options.items() if key in ours}
        return specify(name="checked", method=method, **{"width": WIDTH, "batch_size": 256, **rest, "options": own})
    return specify(name="checked", method=method, **{**OPTIONS[method], **options})


def matched_cosine(left: Float[np.ndarray, "latent feature"], right: Float[np.ndarray, "other feature"]) -> float:
    """Return the mean signed cosine of the one-to-one matching of unit rows with the largest sum."""
    cosines = left @ right.T
    return float(cosines[linear_sum_assignment(cosines, maximize=True)].mean())


def _rotation(random: np.random.Generator) -> Float[np.ndarray, "feature feature"]:
    """Return a uniformly random orthogonal matrix (Mezzadri 2007: the signs of R's diagonal are removed)."""
    q, r = np.linalg.qr(random.standard_normal((D, D)))
    rotation: np.ndarray = q * np.sign(np.diag(r))
    return rotation


def _units(atoms: Float[np.ndarray, "latent feature"]) -> Float[np.ndarray, "latent feature"]:
    norms = np.linalg.norm(atoms.astype(np.float64), axis=1, keepdims=True)
    units: np.ndarray = atoms / np.maximum(norms, np.finfo(np.float64).tiny)
    return units


def _equal(left: Codes, right: Codes) -> bool:
    pairs = ((left.indptr, right.indptr), (left.indices, right.indices), (left.values, right.values))
    return all(np.array_equal(one, other) for one, other in pairs)


def _close(left: Codes, right: Codes) -> bool:
    """Compare codes up to the rounding of products of other shapes, which may move a value across a threshold."""
    gap = abs(left.csr() - right.csr())
    return left.shape == right.shape and bool((gap > 1e-4 * max(1.0, float(right.values.max()))).sum() <= 2)
