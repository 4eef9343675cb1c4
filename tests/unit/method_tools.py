"""What the tests of single dictionary methods share: tokens, settings, short trainings."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from conceptbench.dictionaries import Dictionary, Normaliser, learn, specify
from conceptbench.dictionaries.autoencoder import AutoencoderLearner, UnitAtoms, whole
from conceptbench.dictionaries.autoencoder_sparse import SparseAutoencoderLearner
from conceptbench.dictionaries.batch_topk import LargestOfBatch
from conceptbench.dictionaries.learner import Learner, Setting, starting_atoms
from conceptbench.dictionaries.matryoshka import nested, prefix_ends
from conceptbench.dictionaries.methods import learner_of
from conceptbench.dictionaries.specs import Archetypal, BatchTopK, DictionarySpec, Frozen, JumpRelu, Matryoshka

D, ATOMS = 24, 40
SHORT: dict[str, Any] = {"width": 48, "batch_size": 128, "lr": 3e-3, "warmup_steps": 5, "dead_tokens": 2_000}


def planted(n: int, seed: int) -> np.ndarray:
    """Sums of three of forty unit atoms, off centre."""
    atoms = np.random.default_rng(5).standard_normal((ATOMS, D))
    atoms /= np.linalg.norm(atoms, axis=1, keepdims=True)
    random = np.random.default_rng([6, seed])
    codes = np.zeros((n, ATOMS))
    np.put_along_axis(codes, random.integers(0, ATOMS, (n, 3)), random.uniform(0.5, 1.5, (n, 3)), axis=1)
    return np.asarray(codes @ atoms + 1, np.float32)


def setting_of(tokens: np.ndarray, seed: int = 0, total_steps: int | None = None) -> Setting:
    generator = torch.Generator().manual_seed(seed)
    identity = Normaliser.identity(tokens.shape[1])
    return Setting(torch.from_numpy(tokens), identity, generator, total_steps, torch.device("cpu"))


def started(tokens: np.ndarray, **options: Any) -> tuple[DictionarySpec, Learner]:
    """A specification and its learner before the first step."""
    spec = specify(**{"name": "x", **options})
    return spec, learner_of(spec, setting_of(tokens))


def in_torch(tokens: np.ndarray, **options: Any) -> tuple[DictionarySpec, AutoencoderLearner]:
    """The same, always by automatic differentiation: what a GPU runs, and the reference of the sparse steps."""
    spec = specify(**{"name": "x", **options})
    setting = setting_of(tokens)
    if isinstance(spec, Archetypal | Frozen | JumpRelu):
        own = started(tokens, **options)[1]
        assert isinstance(own, SparseAutoencoderLearner)
        return spec, AutoencoderLearner(spec, setting, own._selection, own._decoder, spec.k)
    if not isinstance(spec, BatchTopK | Matryoshka):
        learner = learner_of(spec, setting)
        assert isinstance(learner, AutoencoderLearner)
        return spec, learner
    selection = LargestOfBatch(spec.k, spec.width)
    decoder = UnitAtoms(starting_atoms(spec.width, setting, spec.start), setting.device)
    reconstruct = nested(prefix_ends(spec)) if isinstance(spec, Matryoshka) else whole
    return spec, AutoencoderLearner(spec, setting, selection, decoder, spec.k, reconstruct)


def trained(tokens: np.ndarray, held_out: np.ndarray, seed: int = 0, **options: Any) -> Dictionary:
    def batches(epoch: int) -> Iterator[np.ndarray]:
        yield tokens[np.random.default_rng(epoch).permutation(len(tokens))]

    spec = specify(**{"name": "x", **options})
    return learn(
        spec, batches, d=tokens.shape[1], seed=seed, held_out=held_out, tokens_per_epoch=len(tokens), progress=False
    )


def dense_codes(dictionary: Dictionary, tokens: np.ndarray) -> np.ndarray:
    return np.asarray(dictionary.encode(tokens).csr().todense())


def dense_pre(dictionary: Dictionary, tokens: np.ndarray) -> np.ndarray:
    """Pre-activations by the formula of docs/formats.md, in float64."""
    normalised = (tokens.astype(np.float64) - dictionary.normaliser.mean) / dictionary.normaliser.scale
    return (
        np.asarray((normalised - dictionary.decoder_bias) @ dictionary.encoder.T.astype(np.float64))
        + dictionary.encoder_bias
    )
